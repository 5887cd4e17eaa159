"""Two columns of values or of counts: how far apart they are, and the p-value of that."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BINS = 10  # quantile bins of the first set, as is usual for the PSI (Siddiqi 2006, "Credit Risk Scorecards")
SMOOTHING = 0.5  # added to the count of every bin, so that an empty one has a logarithm (Jeffreys' prior)
LEAST_EXPECTED = 5.0  # of a value in either set, for chi-square (Cochran 1954); rarer values are counted together
EXACT_CELLS = 10**6  # up to so many pairs of rows the distribution of KS is computed exactly
Column = NDArray[np.generic]
Numbers = NDArray[np.float64]
Counts = NDArray[np.int64]


def psi(counts_a: Counts, counts_b: Counts) -> tuple[float, float]:
    """Population stability index of two rows of counts over the same bins, and what chance gives at these numbers of rows.

    psi = sum of (share_b - share_a) ln(share_b / share_a), of shares with half a row added to each bin; bins that are empty in both do
    not count. Equal distributions give (bins - 1)(1/n + 1/m) on average (Yurdakul 2018, "Statistical properties of population stability
    index"), so .36 for ten bins of 50 rows each: small sets need p-values, not thresholds.

    >>> [round(x, 3) for x in psi(np.array([500, 500]), np.array([250, 750]))]
    [0.274, 0.002]
    """
    used = (counts_a + counts_b) > 0
    n, m, bins = int(counts_a.sum()), int(counts_b.sum()), int(used.sum())
    share_a = (counts_a[used] + SMOOTHING) / (n + SMOOTHING * bins)
    share_b = (counts_b[used] + SMOOTHING) / (m + SMOOTHING * bins)
    value = float(((share_b - share_a) * np.log(share_b / share_a)).sum())
    return value, max(0, bins - 1) * (1 / max(n, 1) + 1 / max(m, 1))


def chi_square_p(a: Counts, b: Counts) -> float:
    """p-value of two rows of counts being of one distribution; by chi-square, by Fisher's exact test where two values are left and few rows.

    >>> chi_square_p(np.array([50, 50]), np.array([50, 50])), chi_square_p(np.array([9, 1]), np.array([1, 9])) < 0.01
    (1.0, True)
    """
    from scipy.special import chdtrc

    x, y = without_rare(a, b)
    table = np.stack([x, y])[:, (x + y) > 0].astype(np.float64)
    if table.shape[1] < 2 or not table.sum(axis=1).all():
        return 1.0
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    if table.shape[1] == 2 and expected.min() < LEAST_EXPECTED:
        from scipy.stats import fisher_exact

        return min(1.0, float(fisher_exact(table.astype(np.int64)).pvalue))
    return float(chdtrc(table.shape[1] - 1, ((table - expected) ** 2 / expected).sum()))


def without_rare(a: Counts, b: Counts) -> tuple[Counts, Counts]:
    """Counts with all values that chi-square would expect under five times in either set added up into one, the last.

    Which are rare depends on both sets together alone, so the test stays valid. When the rare together are still few, the next ones join them.
    """
    both = a + b
    least = min(a.sum(), b.sum()) / both.sum() * both  # expected in the smaller set
    order = np.argsort(-both, kind="stable")
    kept = max(1, int((least >= LEAST_EXPECTED).sum()))
    while 1 < kept < len(order) and least[order[kept:]].sum() < LEAST_EXPECTED:
        kept -= 1
    if kept == len(order):
        return a, b
    first, rest = order[:kept], order[kept:]
    return np.append(a[first], a[rest].sum()), np.append(b[first], b[rest].sum())


def kolmogorov_smirnov(x: Numbers, y: Numbers) -> tuple[float, float]:
    """Largest difference of the two distribution functions, and its p-value; ties make the p-value too large, never too small."""
    from scipy.stats import ks_2samp  # the module takes two seconds to import

    with warnings.catch_warnings():  # where its exact sum comes out a rounding above 1, scipy says so and takes the asymptotic one
        warnings.simplefilter("ignore", RuntimeWarning)
        found = ks_2samp(x, y, method="exact" if len(x) * len(y) <= EXACT_CELLS else "asymp")
    return float(found.statistic), float(found.pvalue)


def wasserstein(x: Numbers, y: Numbers) -> float:
    """Mean distance, in their own unit, that values of one must move to become the other: the area between the distribution functions."""
    both = np.sort(np.concatenate([x, y]))
    at = [np.searchsorted(np.sort(one), both[:-1], "right") / len(one) for one in (x, y)]
    return float((np.abs(at[0] - at[1]) * np.diff(both)).sum())


def quantile_edges(values: Numbers) -> Numbers:
    """Inner edges of the quantile bins: a bin holds what is above one edge and at most the next. Fewer where values repeat."""
    edges = np.unique(np.quantile(values, np.arange(1, BINS) / BINS, method="inverted_cdf"))
    lowest = values.min()
    return np.append(np.nextafter(lowest, -np.inf), edges) if edges[0] == lowest else edges  # what lies under them all is not as they are


def present_numbers(values: Column) -> Numbers:
    """(m,) float64 of a column of numbers, those that are not NaN, in their order."""
    found = np.asarray(values, np.float64)
    return found[~np.isnan(found)]


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in their order: calling those <= level keeps the chance of any false call at level.

    Valid under any dependence. Source: Holm 1979.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = highest
    return adjusted
