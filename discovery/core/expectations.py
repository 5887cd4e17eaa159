"""What is expected of pictures, of a batch and of a collection, as data: which rows miss it is computed here, Great Expectations reports it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from discovery.core.issues import ISSUES
from discovery.errors import ConfigError

QUARANTINED = frozenset({"blank", "odd_aspect"})  # issues that the first expectations are about


class Severity(StrEnum):
    """How bad a miss is, in the words of Great Expectations."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Action(StrEnum):
    """What a miss leads to. QUARANTINE: pictures that miss it take no further part. FAIL: the run stops."""

    REPORT = "report"
    QUARANTINE = "quarantine"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Expectation:
    """A column stays within bounds (None: open) in a share `mostly` of the rows; a row outside misses it, and so does one without a value.

    condition: an SQL expression that is to be true, instead of bounds on a column; the column then is the expectation's own, of 1 and 0.
    """

    name: str
    column: str
    minimum: float | None
    maximum: float | None
    why: str
    severity: Severity = Severity.WARNING
    action: Action = Action.REPORT
    mostly: float = 1.0
    condition: str = ""

    @property
    def stops(self) -> bool:
        """Whether a run ends when too many rows miss it: with the action `fail`, or a critical one that quarantines."""
        return self.action is Action.FAIL or (self.action is Action.QUARANTINE and self.severity is Severity.CRITICAL)

    @property
    def bounds(self) -> str:
        """What is expected, for people.

        >>> Expectation("a", "aspect", 1.0, 10.0, "").bounds, Expectation("b", "b", 1.0, None, "", condition="iso < 800").bounds
        ('1 ≤ aspect ≤ 10', 'iso < 800')
        """
        low = "" if self.minimum is None else f"{self.minimum:g} ≤ "
        high = "" if self.maximum is None else f" ≤ {self.maximum:g}"
        return self.condition or f"{low}{self.column}{high}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an expectation: `missed` of `looked_at` rows (1 for a number of the whole), and what that says of all.

    is_met: enough rows meet it. statement: in words, with its confidence where only a sample was looked at.
    """

    expectation: Expectation
    looked_at: int
    missed: int
    is_met: bool
    statement: str

    @property
    def fails(self) -> bool:
        """Whether the report fails by it."""
        return not self.is_met and self.expectation.stops

    @property
    def verdict(self) -> str:
        """met, missed (told, and no more) or FAILED."""
        return "met" if self.is_met else "FAILED" if self.fails else "missed"


def row_expectations(min_side_px: int, max_aspect: float, min_contrast: float, max_quarantined: float = 0.2) -> list[Expectation]:
    """What is expected of each picture of a batch from the start; adding one is a line here, on any column of the batch table.

    A picture that misses one is quarantined; when more than the share max_quarantined does, the report fails.
    """
    mostly = 1.0 - max_quarantined

    def quarantines(name: str, column: str, minimum: float | None, maximum: float | None, why: str) -> Expectation:
        return Expectation(name, column, minimum, maximum, why, Severity.CRITICAL, Action.QUARANTINE, mostly)

    return [
        quarantines("side_not_tiny", "shorter_side_px", min_side_px, None, "too small to show anything"),
        quarantines("aspect_not_extreme", "aspect", 1.0, max_aspect, "a strip, most often a banner or a broken crop"),
        quarantines("not_blank", "contrast", min_contrast, None, "one flat colour"),
    ]


def issue_expectations(max_quarantined: float = 0.2) -> list[Expectation]:
    """What is besides expected of each picture: that nobody marked it as junk, else it is quarantined; and that it has none of core.issues, else it is told.

    They are on the columns marked_junk and `<issue>_score`. Telling is a warning where more than the share max_quarantined have the issue.
    """
    mostly = 1.0 - max_quarantined
    return [
        Expectation("not_marked_junk", "marked_junk", None, 0.0, "a person said that it should not be here", Severity.WARNING, Action.QUARANTINE, mostly),
        *(
            Expectation(f"few_{one.name}", f"{one.name}_score", one.threshold, None, one.meaning, Severity.INFO, Action.REPORT, mostly)
            for one in ISSUES.values()
            if one.name not in QUARANTINED
        ),
    ]


def batch_expectations(max_rejected: float, max_quarantined: float) -> list[Expectation]:
    """What is expected of the numbers of a whole batch."""
    critical, fail = Severity.CRITICAL, Action.FAIL
    return [
        Expectation("batch_has_assets", "assets", 1, None, "nothing to work on", critical, fail),
        Expectation("few_rejected", "rejected_share", None, max_rejected, "the source is broken, or is not one of pictures", critical, fail),
        Expectation("few_quarantined", "quarantined_share", None, max_quarantined, "the batch is not what it should be", critical, fail),
    ]


def with_users(own: Sequence[Expectation], users: Sequence[Expectation], reserved: Sequence[Expectation] = ()) -> list[Expectation]:
    """The built-in expectations and the user's. Raises ConfigError when one of the user's has the name of a built-in one, or of a `reserved` one."""
    taken = {one.name for one in (*own, *reserved)}
    for one in users:
        if one.name in taken:
            raise ConfigError(f"Expectation {one.name!r} is a built-in one. Give yours another name; the settings of its section move the built-in ones.")
    return [*own, *users]


def failing_rows(columns: Mapping[str, NDArray[np.float64]], expectations: Sequence[Expectation]) -> dict[str, NDArray[np.bool_]]:
    """Name of each expectation to (n,) bool, true where the row misses it; NaN misses it.

    >>> e = Expectation("not_blank", "contrast", 0.01, None, "")
    >>> failing_rows({"contrast": np.array([0.2, 0.0, np.nan])}, [e])["not_blank"].tolist()
    [False, True, True]
    """
    missed = {}
    for expectation in expectations:
        values = columns[expectation.column]
        low = -np.inf if expectation.minimum is None else expectation.minimum
        high = np.inf if expectation.maximum is None else expectation.maximum
        missed[expectation.name] = ~((values >= low) & (values <= high))
    return missed
