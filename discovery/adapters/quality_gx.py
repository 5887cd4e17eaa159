"""Great Expectations: suites built in code from our expectations, each run on a table, their results as plain JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from discovery.adapters.heavy_imports import uncollected
from discovery.core.expectations import Expectation

ROUNDING = 1e-12  # of a share that is met to the last row


@dataclass(frozen=True, slots=True)
class Suite:
    """Expectations on the columns of one table: a row a picture, or one row of numbers of the whole. Names differ between suites too."""

    name: str
    rows: pd.DataFrame
    expectations: Sequence[Expectation]


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """`met` maps each expectation's name to its outcome; `details` is GX's own result of each suite, JSON values only."""

    met: dict[str, bool]
    details: dict[str, Any]


def run_suites(suites: Sequence[Suite]) -> SuiteResult:
    """Validate each table. A suite without rows is left out, since every row expectation would pass it.

    Each expectation is paired with a not-null expectation, because GX's between-check leaves nulls out of its count: its own `mostly` is raised so
    that the share is one of all rows. GX 1.24 carries the severity and says whether each is met; what follows from it is the caller's.
    """
    logging.getLogger("great_expectations").setLevel(logging.WARNING)  # it logs hundreds of lines while it is imported
    with uncollected():
        import great_expectations as gx
        import great_expectations.expectations as gxe

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_pandas("discovery")
    met: dict[str, bool] = {}
    details: dict[str, Any] = {}
    for suite in suites:
        if not len(suite.rows) or not suite.expectations:
            continue
        built = gx.ExpectationSuite(name=suite.name)
        for item in suite.expectations:
            present = float(suite.rows[item.column].notna().mean())
            mostly = 1.0 if not present else min(1.0, item.mostly / present * (1.0 - ROUNDING))
            about = {"meta": {"name": item.name, "action": item.action.value}, "severity": item.severity.value}
            built.add_expectation(gxe.ExpectColumnValuesToNotBeNull(column=item.column, mostly=item.mostly * (1.0 - ROUNDING), **about))
            built.add_expectation(
                gxe.ExpectColumnValuesToBeBetween(
                    column=item.column, min_value=item.minimum, max_value=item.maximum, mostly=mostly,
                    description=item.why or None, **about,
                )
            )  # fmt: skip
        definition = source.add_dataframe_asset(suite.name).add_batch_definition_whole_dataframe("batch")
        batch = definition.get_batch(batch_parameters={"dataframe": suite.rows})
        result = batch.validate(built, result_format="SUMMARY")
        details[suite.name] = json.loads(json.dumps(result.to_json_dict()))
        for outcome in result.results:
            name = outcome.expectation_config.meta["name"]
            met[name] = met.get(name, True) and bool(outcome.success)
    return SuiteResult(met, details)
