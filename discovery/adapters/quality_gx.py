"""Great Expectations: the suite built in code from our expectations, run on one batch, its result as plain JSON."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any

import pandas as pd

from discovery.core.expectations import RowExpectation


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """`passed` maps each expectation to its outcome; `details` is GX's own result, JSON values only."""

    passed: dict[str, bool]
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BatchExpectation:
    """A number of the whole batch stays within bounds, else the report fails."""

    name: str
    column: str
    minimum: float | None
    maximum: float | None


def run_suite(
    rows: pd.DataFrame, expectations: list[RowExpectation], mostly: float, batch: dict[str, float],
    batch_expectations: list[BatchExpectation],
) -> SuiteResult:  # fmt: skip
    """Validate rows (one a picture) and the batch's numbers (a one-row table).

    mostly: share of rows in [0, 1] that must meet each row expectation. Each is paired with a not-null expectation, because NaN
    passes GX's between-check.
    """
    logging.getLogger("great_expectations").setLevel(logging.WARNING)  # it logs hundreds of lines while it is imported
    import great_expectations as gx
    import great_expectations.expectations as gxe

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_pandas("discovery")

    def validate(name: str, frame: pd.DataFrame, suite: Any) -> Any:
        definition = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("batch")
        return definition.get_batch(batch_parameters={"dataframe": frame}).validate(suite, result_format="SUMMARY")

    passed: dict[str, bool] = {}
    details: dict[str, Any] = {}
    if len(rows):
        suite = gx.ExpectationSuite(name="pictures")
        for item in expectations:
            suite.add_expectation(gxe.ExpectColumnValuesToNotBeNull(column=item.column, meta={"name": item.name}))
            suite.add_expectation(
                gxe.ExpectColumnValuesToBeBetween(
                    column=item.column, min_value=item.minimum, max_value=item.maximum, mostly=mostly,
                    meta={"name": item.name, "why": item.why},
                )
            )  # fmt: skip
        result = validate("pictures", rows, suite)
        details["pictures"] = json.loads(json.dumps(result.to_json_dict()))
        for outcome in result.results:
            name = outcome.expectation_config.meta["name"]
            passed[name] = passed.get(name, True) and bool(outcome.success)
    suite = gx.ExpectationSuite(name="batch")
    for number in batch_expectations:
        suite.add_expectation(
            gxe.ExpectColumnValuesToBeBetween(
                column=number.column, min_value=number.minimum, max_value=number.maximum, meta={"name": number.name}
            )
        )
    result = validate("batch", pd.DataFrame([batch]), suite)
    details["batch"] = json.loads(json.dumps(result.to_json_dict()))
    for outcome in result.results:
        passed[outcome.expectation_config.meta["name"]] = bool(outcome.success)
    return SuiteResult(passed, details)
