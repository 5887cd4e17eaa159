"""Error control for novelty: conformal p-values, Benjamini-Hochberg q-values, and what tells when they do not hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from discovery.core.binomial import share_upper_bound
from discovery.errors import InvalidInput

ENOUGH_CALIBRATION = 2000  # rows, for which half of the references are given up (ALGORITHMS section 4)
NULL_THRESHOLD = 0.5  # Storey's lambda: p-values above it come almost only from ordinary assets
MAJORITY = 0.5  # a batch with certainly less than this share of ordinary assets is shifted
BULK = 0.75  # of the calibration: with less, small moves are missed; with more, what is new is taken for one (both simulated)
MOVED_LEVEL = 0.01  # share of ordinary batches that are called moved
LEAST_BULK = 10  # rows on either side, under which the bulk is not tested
FAR_OUT = 3.0  # interquartile ranges above the upper quartile: Tukey 1977 calls a value beyond it far out


def calibration_size(references: int, most: int) -> int:
    """How many of so many references are held out: half of few, and a tenth of many once that is more than 2,000; `most` at most.

    The least p-value is 1 / (c + 1), so that many calibration rows find what is rarer; references that are not held out make scores better.

    >>> [calibration_size(r, 10_000) for r in (100, 4000, 30_000, 1_000_000)]
    [50, 2000, 3000, 10000]
    """
    return min(most, max(min(ENOUGH_CALIBRATION, references // 2), references // 10))


def conformal_p_values(calibration_scores: NDArray[np.float32], scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """p = (1 + #{calibration >= score}) / (c + 1): small means more novel than almost all held-out references.

    calibration_scores: (c,), scores: (n,); both against the same references, which contain neither. Returns (n,) in (0, 1]. For an
    asset that is exchangeable with the calibration rows, P(p <= t) <= t. Raises InvalidInput when c is 0 or a score is NaN.
    Source: Bates et al. 2023, "Testing for outliers with conformal p-values".

    >>> conformal_p_values(np.array([1, 2, 3], np.float32), np.array([2.5, 9], np.float32)).tolist()
    [0.5, 0.25]
    """
    if len(calibration_scores) == 0 or np.isnan(calibration_scores).any() or np.isnan(scores).any():
        raise InvalidInput("Expected at least one calibration score and no NaN.")
    ordered = np.sort(calibration_scores)
    at_least = len(ordered) - np.searchsorted(ordered, scores, side="left")
    return np.asarray((1.0 + at_least) / (len(ordered) + 1.0), np.float64)


def benjamini_hochberg(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """q-values: calling all with q <= level a discovery keeps the expected share of false ones at or under level.

    p_values: (n,). Returns (n,) in [0, 1], in the order of the input. Conformal p-values of one batch are positively dependent, under
    which the bound holds (Bates et al. 2023). Source: Benjamini and Hochberg 1995.

    >>> benjamini_hochberg(np.array([0.01, 0.5, 0.02])).round(3).tolist()
    [0.03, 0.5, 0.03]
    """
    n = len(p_values)
    if n == 0:
        return np.zeros(0)
    order = np.argsort(p_values, kind="stable")
    scaled = p_values[order] * n / np.arange(1, n + 1)
    q = np.empty(n)
    q[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return q


def conditional_p_values(p_values: NDArray[np.float64], calibration_rows: int, delta: float) -> NDArray[np.float64]:
    """Conformal p-values raised so that they hold for one given calibration set, with probability 1 - delta over which set that is.

    Conformal p-values hold on average over calibration sets; one set that is used again and again may be an unlucky one, for all batches. With
    the adjustment P(p <= t | the set) <= t for every t at once. p_values: (n,) of `conformal_p_values` from c = calibration_rows. Returns (n,)
    in (0, 1]; the least is about 2 ln(1 / delta) / c. Raises InvalidInput for fewer than two rows. Source: Bates et al. 2023, section 3, in
    the form of Simes with k = c / 2.

    >>> conditional_p_values(np.array([1 / 101, 0.5, 1.0]), 100, 0.1).round(3).tolist()
    [0.045, 0.728, 1.0]
    """
    c = calibration_rows
    if c < 2:
        raise InvalidInput(f"Expected two calibration rows or more, found {c}.")
    from scipy.special import gammaln

    k = c // 2
    i = np.arange(c, k - 1, -1, dtype=np.float64)  # for fewer than k rows at least as novel as that the bound is 1
    falling = gammaln(i + 1) - gammaln(i - k + 1)  # log of i (i - 1) … (i - k + 1)
    bounds = np.ones(c + 1)
    bounds[: len(i)] = 1.0 - np.exp((np.log(delta) + falling - falling[0]) / k)
    index = np.clip(np.round(p_values * (c + 1)).astype(np.int64), 1, c + 1) - 1
    return np.asarray(np.maximum(bounds[index], p_values), np.float64)


@dataclass(frozen=True, slots=True)
class ShiftTest:
    """`null_fraction`: estimated share of the batch that looks like the reference. `bulk_p_value`: of the batch's ordinary part being as the reference's.

    is_shifted: the upper bound of the share is under a half, or the ordinary part is more novel than the reference's own; then no discovery
    can be told from the rest.
    """

    is_shifted: bool
    null_fraction: float
    null_fraction_upper: float
    bulk_p_value: float


def shift_test(calibration_scores: NDArray[np.float32], scores: NDArray[np.float32], delta: float = 0.05) -> ShiftTest:
    """Whether a batch moved as a whole, so that its p-values do not hold.

    calibration_scores: (c,), scores: (n,), higher is more novel. Two tests. *Majority*: ordinary assets have p above 0.5 half of the time, so
    their share is estimated by twice the share of such p (Storey 2002), and bounded by Clopper and Pearson with confidence 1 - delta. *Bulk*: assets
    that are less novel than the median calibration row are hardly the new ones; if the batch is ordinary but for these, they are as novel as calibration
    rows under that median are (Mann and Whitney 1947, one-sided, level 1 %). It is what tells a batch that moved a little, in which each
    asset is a bit farther off, from one with something new in it. An empty batch is not shifted.

    >>> rng = np.random.default_rng(0)
    >>> usual = rng.normal(size=2000).astype(np.float32)
    >>> [shift_test(usual, batch.astype(np.float32)).is_shifted for batch in (rng.normal(size=500), rng.normal(size=500) + 0.3, rng.normal(size=500) + 5)]
    [False, True, True]
    """
    from scipy.stats import mannwhitneyu

    n = len(scores)
    if n == 0:
        return ShiftTest(False, 1.0, 1.0, 1.0)
    above = int((conformal_p_values(calibration_scores, scores) > NULL_THRESHOLD).sum())
    estimate = min(1.0, above / n / (1 - NULL_THRESHOLD))
    upper = min(1.0, share_upper_bound(above, n, delta) / (1 - NULL_THRESHOLD))
    end = np.quantile(calibration_scores, BULK)
    low, usual = scores[scores < end], calibration_scores[calibration_scores < end]
    enough = min(len(low), len(usual)) >= LEAST_BULK
    bulk = float(mannwhitneyu(low, usual, alternative="greater", method="asymptotic").pvalue) if enough else 1.0
    return ShiftTest(upper < MAJORITY or bulk <= MOVED_LEVEL, estimate, upper, bulk)


@dataclass(frozen=True, slots=True)
class Contamination:
    """Calibration rows that are far out themselves, and the discoveries that they may hide."""

    rows: NDArray[np.int64]  # of the calibration, most novel first
    hidden: int  # candidates that would be called besides if none of these belonged into the reference


def contamination(calibration_scores: NDArray[np.float32], scores: NDArray[np.float32], fdr: float) -> Contamination:
    """Whether what does not belong into the reference may hide discoveries: errors stay controlled, but nothing is found.

    Each calibration row that is as novel as a candidate raises the candidate's p-value. Rows beyond Tukey's far-out fence of the calibration
    (three interquartile ranges above the upper quartile, of the logarithms) are taken out for a trial; if more is called then, these rows are worth
    a look by a person. They are not taken out by themselves: without a look the errors would not be controlled (Bashari et al. 2025, "Robust
    conformal outlier detection under contaminated reference data").
    """
    logs = np.log(np.maximum(calibration_scores.astype(np.float64), np.finfo(np.float32).tiny))
    low, high = np.quantile(logs, [0.25, 0.75])
    far = np.flatnonzero(logs > high + FAR_OUT * (high - low))
    if not len(far) or not len(scores):
        return Contamination(np.zeros(0, np.int64), 0)
    called, would = (
        int((benjamini_hochberg(conformal_p_values(usual, scores)) <= fdr).sum())
        for usual in (calibration_scores, np.delete(calibration_scores, far))
    )
    order = far[np.argsort(-calibration_scores[far], kind="stable")]
    return Contamination(np.asarray(order, np.int64), max(0, would - called))


def least_discoveries(candidates: int, least_p: float, fdr: float) -> int:
    """How many candidates must be as novel as can be, at once, before one is called; more than there are: nothing can be.

    >>> least_discoveries(20_000, 1 / 501, 0.1), least_discoveries(100, 1 / 2001, 0.1)
    (400, 1)
    """
    return max(1, int(np.ceil(candidates * least_p / fdr - 1e-9)))
