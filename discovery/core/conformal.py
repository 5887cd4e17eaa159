"""Error control for novelty: split-conformal p-values, Benjamini-Hochberg q-values, and a test for a batch that moved as a whole."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from discovery.core.binomial import share_upper_bound
from discovery.errors import InvalidInput

NULL_THRESHOLD = 0.5  # Storey's lambda: p-values above it come almost only from ordinary assets
MAJORITY = 0.5  # a batch with certainly less than this share of ordinary assets is shifted


def calibration_mask(asset_ids: Sequence[str], n_calibration: int, salt: str) -> NDArray[np.bool_]:
    """Which rows are held out: the `n_calibration` with the smallest salted hash, whatever their order.

    Returns (n,) bool. Raises InvalidInput when more are asked for than there are.
    """
    if not 0 <= n_calibration <= len(asset_ids):
        raise InvalidInput(f"Cannot hold out {n_calibration} of {len(asset_ids)} rows.")
    hashes = [hashlib.sha256((salt + asset_id).encode()).digest() for asset_id in asset_ids]
    mask = np.zeros(len(asset_ids), bool)
    mask[sorted(range(len(hashes)), key=hashes.__getitem__)[:n_calibration]] = True
    return mask


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


@dataclass(frozen=True, slots=True)
class ShiftTest:
    """`null_fraction`: estimated share of the batch that looks like the reference; its upper bound decides `is_shifted`."""

    is_shifted: bool
    null_fraction: float
    null_fraction_upper: float


def shift_test(p_values: NDArray[np.float64], delta: float = 0.05) -> ShiftTest:
    """Whether, with confidence 1 - delta, less than half of the batch is exchangeable with the reference.

    Ordinary assets have p above 0.5 half of the time, so their share is estimated by twice the share of such p (Storey 2002); the
    upper bound is Clopper and Pearson's exact one for that share. An empty batch is not shifted.

    >>> shift_test(np.linspace(0.01, 1, 100)).is_shifted, shift_test(np.full(100, 0.01)).is_shifted
    (False, True)
    """
    n = len(p_values)
    if n == 0:
        return ShiftTest(False, 1.0, 1.0)
    above = int((p_values > NULL_THRESHOLD).sum())
    estimate = min(1.0, above / n / (1 - NULL_THRESHOLD))
    upper = min(1.0, share_upper_bound(above, n, delta) / (1 - NULL_THRESHOLD))
    return ShiftTest(upper < MAJORITY, estimate, upper)
