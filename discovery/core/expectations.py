"""What is expected of a picture and of a batch, as data: which rows fail is computed here, Great Expectations reports it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class RowExpectation:
    """A column stays within bounds (None: open); a row outside, or NaN, is quarantined."""

    name: str
    column: str
    minimum: float | None
    maximum: float | None
    why: str


def row_expectations(min_side_px: int, max_aspect: float, min_contrast: float) -> list[RowExpectation]:
    """The expectations on each picture of a batch; adding one is a line here, on any measure or manifest column."""
    return [
        RowExpectation("side_not_tiny", "shorter_side_px", min_side_px, None, "too small to show anything"),
        RowExpectation("aspect_not_extreme", "aspect", 1.0, max_aspect, "a strip, most often a banner or a broken crop"),
        RowExpectation("not_blank", "contrast", min_contrast, None, "one flat colour"),
    ]


def failing_rows(columns: Mapping[str, NDArray[np.float64]], expectations: list[RowExpectation]) -> dict[str, NDArray[np.bool_]]:
    """Name of each expectation to (n,) bool, true where the row fails; NaN fails.

    >>> e = RowExpectation("not_blank", "contrast", 0.01, None, "")
    >>> failing_rows({"contrast": np.array([0.2, 0.0, np.nan])}, [e])["not_blank"].tolist()
    [False, True, True]
    """
    failed = {}
    for expectation in expectations:
        values = columns[expectation.column]
        low = -np.inf if expectation.minimum is None else expectation.minimum
        high = np.inf if expectation.maximum is None else expectation.maximum
        failed[expectation.name] = ~((values >= low) & (values <= high))
    return failed
