"""What a look at some of the rows says of all: an upper bound on the share of defects that holds for several checks at once."""

from __future__ import annotations

from dataclasses import dataclass

from discovery.core.binomial import share_upper_bound
from discovery.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Sample:
    """`defects` among `rows` that were drawn without replacement from `of` rows."""

    rows: int
    of: int
    defects: int

    def __post_init__(self) -> None:
        if not 0 <= self.defects <= self.rows <= self.of:
            raise InvalidInput(f"Expected defects <= rows <= all, found {self.defects}, {self.rows}, {self.of}.")

    @property
    def is_whole(self) -> bool:
        """Whether every row was looked at, so that there is nothing to be uncertain of."""
        return self.rows == self.of


def defect_rate_bound(sample: Sample, checks: int = 1, confidence: float = 0.95) -> float:
    """A share that the defects among all rows do not exceed, with at least this confidence for all `checks` together.

    Clopper and Pearson's one-sided bound at (1 - confidence) / checks (Bonferroni: the checks may depend on one another in any way, and
    often do, since they look at the same rows). Of a draw without replacement it is conservative (Hoeffding 1963, section 6). When all rows were looked at it is
    the share itself.

    >>> round(defect_rate_bound(Sample(59, 10_000, 0)), 3), defect_rate_bound(Sample(10, 10, 1))  # .95 ** 59 = .0485 < .05
    (0.05, 0.1)
    >>> round(defect_rate_bound(Sample(1000, 10**6, 0), checks=4), 5)  # 1 - (.05 / 4) ** (1 / 1000)
    0.00437
    """
    if not sample.of:
        return 0.0
    if sample.is_whole:
        return sample.defects / sample.of
    return share_upper_bound(sample.defects, sample.rows, (1.0 - confidence) / max(checks, 1))


def statement(sample: Sample, checks: int = 1, confidence: float = 0.95, what: str = "defect rate") -> str:
    """The bound in words.

    >>> statement(Sample(1000, 50_000, 0), checks=3)
    'defect rate ≤ 0.41 % at 95 %, from 1,000 of 50,000 rows (0 found, corrected for 3 sampled checks)'
    >>> statement(Sample(12, 12, 1))
    '1 of 12 rows, all of which were looked at'
    """
    if sample.is_whole:
        return f"{sample.defects:,} of {sample.of:,} rows, all of which were looked at"
    corrected = f", corrected for {checks} sampled checks" if checks > 1 else ""
    bound = 100 * defect_rate_bound(sample, checks, confidence)
    return (
        f"{what} ≤ {bound:.2g} % at {100 * confidence:g} %, from {sample.rows:,} of {sample.of:,} rows "
        f"({sample.defects:,} found{corrected})"
    )
