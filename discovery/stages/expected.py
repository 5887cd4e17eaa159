"""Expectations judged: on the rows of a table and on the numbers of a whole, through Great Expectations, with what each outcome says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from discovery.adapters.filters import rows_where
from discovery.config import ExpectationConfig
from discovery.core.expectations import Action, Expectation, Outcome, Severity, failing_rows
from discovery.core.samples import Sample, statement
from discovery.errors import ConfigError, SpecError, nearest


@dataclass(frozen=True, slots=True)
class Judgement:
    """outcomes: in the order of the expectations, those on rows first. missed: name of each expectation on rows to (n,) bool. details: GX's JSON."""

    outcomes: tuple[Outcome, ...]
    missed: dict[str, NDArray[np.bool_]]
    details: dict[str, Any]

    @property
    def failed(self) -> tuple[str, ...]:
        """Names, sorted, of the expectations by which the report fails."""
        return tuple(sorted(one.expectation.name for one in self.outcomes if one.fails))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Names, sorted, of those that were missed, and no more."""
        return tuple(sorted(one.expectation.name for one in self.outcomes if not one.is_met and not one.fails))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: our outcomes, then GX's own result of each suite."""
        return {"outcomes": [outcome_to_dict(one) for one in self.outcomes], **self.details}

    def with_statements(self, statements: Mapping[str, str]) -> Judgement:
        """The same with other words for some outcomes, by name of the expectation."""
        said = (
            Outcome(one.expectation, one.looked_at, one.missed, one.is_met, statements.get(one.expectation.name, one.statement))
            for one in self.outcomes
        )
        return Judgement(tuple(said), self.missed, self.details)


def outcome_to_dict(outcome: Outcome) -> dict[str, Any]:
    """Plain JSON of one outcome, as `discovery check --json` shows it."""
    expected = asdict(outcome.expectation)
    return {
        "name": expected["name"], "expected": outcome.expectation.bounds, "mostly": expected["mostly"], "severity": expected["severity"].value,
        "action": expected["action"].value, "looked_at": outcome.looked_at, "missed": outcome.missed, "verdict": outcome.verdict,
        "statement": outcome.statement,
    }  # fmt: skip


def users_expectations(settings: Sequence[ExpectationConfig]) -> list[Expectation]:
    """Those of the settings as data."""
    return [
        Expectation(
            one.name, one.column or f"where: {one.name}", 1.0 if one.where else one.min, one.max, one.why, Severity(one.severity),
            Action(one.action), one.mostly, one.where.strip(),
        )
        for one in settings
    ]  # fmt: skip


def judge(
    rows: pa.Table, on_rows: Sequence[Expectation], numbers: Mapping[str, float], on_numbers: Sequence[Expectation], whole: str = "batch"
) -> Judgement:
    """Judge expectations on each row of a table and on the numbers of the whole.

    whole: what the numbers are of, for GX's JSON. Raises ConfigError when an expectation names no column of numbers.
    """
    from discovery.adapters.quality_gx import Suite, run_suites

    columns = columns_of(rows, on_rows)
    missed = failing_rows(columns, on_rows)
    result = run_suites(
        [
            Suite("pictures", pd.DataFrame(columns), on_rows),
            Suite(whole, pd.DataFrame([{one.column: numbers[one.column] for one in on_numbers}]), on_numbers),
        ]
    )
    outcomes = [
        Outcome(one, len(rows), count := int(missed[one.name].sum()), result.met.get(one.name, True), statement(Sample(len(rows), len(rows), count)))
        for one in on_rows
    ]
    for one in on_numbers:
        is_met = result.met[one.name]
        outcomes.append(Outcome(one, 1, int(not is_met), is_met, f"{one.column} is {numbers[one.column]:.6g}"))
    return Judgement(tuple(outcomes), missed, result.details)


def columns_of(table: pa.Table, expectations: Sequence[Expectation]) -> dict[str, NDArray[np.float64]]:
    """(n,) float64 of every column that the expectations are on, null as NaN; a condition is 1 where it is true, else 0.

    Raises ConfigError naming the expectation, and the nearest column when there is none of that name.
    """
    columns: dict[str, NDArray[np.float64]] = {}
    for one in expectations:
        if one.condition:
            try:
                hits = rows_where(table, one.condition)
            except SpecError as error:
                raise ConfigError(f"Expectation {one.name}: {error}") from error
            column = np.zeros(len(table))
            column[hits] = 1.0
            columns[one.column] = column
        elif one.column not in columns:
            columns[one.column] = _numbers(table, one)
    return columns


def _numbers(table: pa.Table, one: Expectation) -> NDArray[np.float64]:
    if one.column not in table.column_names:
        raise ConfigError(f"Expectation {one.name}: there is no column {one.column!r}. {nearest(one.column, table.column_names)}")
    column = table[one.column]
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)):
        raise ConfigError(f"Expectation {one.name}: column {one.column!r} holds {kind}, not numbers. Use where, such as where = \"{one.column} = '…'\".")
    return np.array(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False) if len(column) else [], np.float64)
