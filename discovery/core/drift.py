"""Which columns of one set moved against another: how far, whether chance explains it, and which way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from discovery.errors import InvalidInput

BINS = 10  # quantile bins of the first set, as is usual for the PSI (Siddiqi 2006, "Credit Risk Scorecards", section on stability)
SMOOTHING = 0.5  # added to the count of every bin, so that an empty one has a logarithm (Jeffreys' prior)
SOME, MUCH = 0.1, 0.25  # PSI under .1 "no significant change", over .25 "a significant shift": the rule of thumb of Siddiqi 2006
LEAST_EXPECTED = 5.0  # of a value in either set, for chi-square (Cochran 1954); rarer values are counted together
EXACT_CELLS = 10**6  # up to so many pairs of rows the distribution of KS is computed exactly
TOP_CHANGES = 5
NOT_SAID = "(not said)"
Column = NDArray[np.generic]
Numbers = NDArray[np.float64]

WORDS = {  # what a lower and a higher median are called
    "brightness": ("darker", "brighter"),
    "clipped_fraction": ("less clipped", "more clipped"),
    "contrast": ("of less contrast", "of more contrast"),
    "entropy": ("plainer in tone", "richer in tone"),
    "saturation": ("less colourful", "more colourful"),
    "sharpness": ("less sharp", "sharper"),
}


@dataclass(frozen=True, slots=True)
class ValueChange:
    """One value of a category, and its share of the rows of each set."""

    value: str
    share_a: float
    share_b: float


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """How one column of set b differs from that of set a.

    psi: population stability index, 0 is equal, no upper end; psi_by_chance: what equal distributions give at these sizes. distance: in
    [0, 1], of Kolmogorov and Smirnov for numbers, total variation for categories. adjusted_p: `p_value` after Holm over all columns of one
    comparison. For numbers: medians, `shift` = difference of the medians in interquartile ranges of a (positive: b is higher), `spread` =
    interquartile range of b over that of a, `wasserstein` in interquartile ranges of a. For categories: `changes`, largest first.
    missing_a, missing_b: share of rows without a value. is_moved: significant, and a PSI of at least .1 beyond chance.
    """

    name: str
    is_number: bool
    psi: float
    psi_by_chance: float
    distance: float
    p_value: float
    adjusted_p: float
    is_moved: bool
    missing_a: float
    missing_b: float
    median_a: float = 0.0
    median_b: float = 0.0
    shift: float = 0.0
    spread: float = 1.0
    wasserstein: float = 0.0
    changes: tuple[ValueChange, ...] = ()

    @property
    def effect(self) -> float:
        """PSI beyond chance, by which columns are ordered; never under 0."""
        return max(0.0, self.psi - self.psi_by_chance)

    @property
    def size(self) -> str:
        """`hardly`, `somewhat` or `much`: the effect by the rule of thumb of .1 and .25."""
        return "much" if self.effect >= MUCH else "somewhat" if self.effect >= SOME else "hardly"


def moved(a: Mapping[str, Column], b: Mapping[str, Column], level: float = 0.05) -> list[ColumnDrift]:
    """The columns of b that moved against a, the most moved first; empty when none did. Arguments as `compare`.

    >>> grey, dark = {"brightness": np.linspace(0.4, 0.6, 80)}, {"brightness": np.linspace(0.1, 0.3, 80)}
    >>> [in_words(one) for one in moved(grey, dark)], moved(grey, grey)
    (['darker'], [])
    """
    return [one for one in compare(a, b, level) if one.is_moved]


def compare(a: Mapping[str, Column], b: Mapping[str, Column], level: float = 0.05) -> list[ColumnDrift]:
    """Every column that both sets have, the most moved first, ties by name.

    a, b: name to (n,) and (m,) values of one set's rows. Columns of floats and integers are numbers, NaN is missing; truth values and
    text are categories, None and "" are missing. p-values: Kolmogorov and Smirnov's or chi-square's (and, where values are missing,
    chi-square's of that, counted twice), each valid for independent rows; Holm's correction keeps the chance that any column is called
    moved, while none is, at or under level. Raises InvalidInput when a set is empty or columns of one set differ in length.
    """
    rows_a, rows_b = _rows(a), _rows(b)
    if not rows_a or not rows_b:
        raise InvalidInput(f"Expected rows in both sets, found {rows_a} and {rows_b}.")
    found = [_compare_one(name, np.asarray(a[name]), np.asarray(b[name])) for name in sorted(set(a) & set(b))]
    adjusted = holm([one.p_value for one in found])
    called = [
        replace(one, adjusted_p=p, is_moved=p <= level and one.effect >= SOME) for one, p in zip(found, adjusted, strict=True)
    ]
    return sorted(called, key=lambda one: (not one.is_moved, -one.effect, one.name))


def in_words(drift: ColumnDrift) -> str:
    """What of a column changed, in a few words, such as `darker`; the value that changed most, for a category."""
    if not drift.is_number:
        if not drift.changes:
            return "as before"
        top = drift.changes[0]
        return f"{top.value} {_percent(top.share_a)} to {_percent(top.share_b)}"
    if drift.distance and abs(drift.missing_b - drift.missing_a) >= drift.distance:
        return f"not said of {_percent(drift.missing_a)} to {_percent(drift.missing_b)}"
    if abs(drift.shift) < 0.1 and not 0.8 < drift.spread < 1.25:
        return f"{drift.name} varies {'more' if drift.spread > 1 else 'less'}"
    lower, higher = WORDS.get(drift.name, (f"lower {drift.name}", f"higher {drift.name}"))
    return higher if drift.shift > 0 else lower if drift.shift < 0 else f"{drift.name} differs"


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


def psi(counts_a: NDArray[np.int64], counts_b: NDArray[np.int64]) -> tuple[float, float]:
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


@dataclass(frozen=True, slots=True)
class Histogram:
    """Shares of the rows of two sets in the same bins of equal width; `is_log`: equal on a scale of logarithms."""

    edges: tuple[float, ...]
    share_a: tuple[float, ...]
    share_b: tuple[float, ...]
    is_log: bool


def histogram(a: Column, b: Column, bins: int = 24) -> Histogram:
    """Both columns of numbers over one range, for drawing. The outermost hundredth of each is counted in the last bin of its side.

    The scale is logarithmic where all values are positive and the range is over a hundredfold. Missing values are left out.
    """
    x, y = _numbers(a), _numbers(b)
    present = [one for one in (x, y) if len(one)]
    if not present:
        return Histogram((0.0, 1.0), (0.0,), (0.0,), False)
    low, high = (float(edge(np.quantile(one, q) for one in present)) for edge, q in ((min, 0.01), (max, 0.99)))
    is_log = min(float(one.min()) for one in present) > 0 and high > 100 * low
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.geomspace(low, high, bins + 1) if is_log else np.linspace(low, high, bins + 1)
    shares = [np.bincount(np.clip(np.searchsorted(edges, one, "right") - 1, 0, bins - 1), minlength=bins) / max(len(one), 1) for one in (x, y)]
    return Histogram(tuple(edges.tolist()), tuple(shares[0].tolist()), tuple(shares[1].tolist()), is_log)


def _rows(columns: Mapping[str, Column]) -> int:
    """Rows of one set; 0 when it has no columns."""
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise InvalidInput(f"Expected columns of one length, found {sorted(lengths)}.")
    return lengths.pop() if lengths else 0


def _compare_one(name: str, a: Column, b: Column) -> ColumnDrift:
    is_number = a.dtype.kind in "fiu" and b.dtype.kind in "fiu"
    return _compare_numbers(name, a, b) if is_number else _compare_categories(name, a, b)


def _numbers(values: Column) -> Numbers:
    found = np.asarray(values, np.float64)
    return found[~np.isnan(found)]


def _compare_numbers(name: str, a: Column, b: Column) -> ColumnDrift:
    x, y = _numbers(a), _numbers(b)
    absent = np.array([len(a) - len(x), len(b) - len(y)])
    missing_a, missing_b = float(absent[0] / len(a)), float(absent[1] / len(b))
    present = np.array([len(x), len(y)])
    missing_p = chi_square_p(np.array([present[0], absent[0]]), np.array([present[1], absent[1]])) if absent.any() else 1.0
    if not present.all():
        value, chance = psi(np.array([present[0], absent[0]]), np.array([present[1], absent[1]]))
        return ColumnDrift(name, True, value, chance, abs(missing_b - missing_a), missing_p, missing_p, False, missing_a, missing_b)
    edges = _edges(x)
    counts = [
        np.append(np.bincount(np.searchsorted(edges, one, "left"), minlength=len(edges) + 1), gone)
        for one, gone in ((x, absent[0]), (y, absent[1]))
    ]
    value, chance = psi(*counts)
    statistic, p = _kolmogorov_smirnov(x, y)
    if absent.any():
        p = min(1.0, 2 * min(p, missing_p))  # two looks at one column
    quartiles_x, quartiles_y = np.quantile(x, [0.25, 0.5, 0.75]), np.quantile(y, [0.25, 0.5, 0.75])
    range_x, range_y = float(quartiles_x[2] - quartiles_x[0]), float(quartiles_y[2] - quartiles_y[0])
    unit = range_x or float(np.std(x)) or float(np.std(np.concatenate([x, y]))) or 1.0  # a column of few values may have no range
    return ColumnDrift(
        name, True, value, chance, max(statistic, abs(missing_b - missing_a)), p, p, False, missing_a, missing_b,
        median_a=float(quartiles_x[1]), median_b=float(quartiles_y[1]), shift=float(quartiles_y[1] - quartiles_x[1]) / unit,
        spread=range_y / range_x if range_x and range_y else 1.0, wasserstein=_wasserstein(x, y) / unit,
    )  # fmt: skip


def _edges(values: Numbers) -> Numbers:
    """Inner edges of the quantile bins: a bin holds what is above one edge and at most the next. Fewer where values repeat."""
    edges = np.unique(np.quantile(values, np.arange(1, BINS) / BINS, method="inverted_cdf"))
    lowest = values.min()
    return np.append(np.nextafter(lowest, -np.inf), edges) if edges[0] == lowest else edges  # what lies under them all is not as they are


def _kolmogorov_smirnov(x: Numbers, y: Numbers) -> tuple[float, float]:
    """Largest difference of the two distribution functions, and its p-value; ties make the p-value too large, never too small."""
    from scipy.stats import ks_2samp  # the module takes two seconds to import

    found = ks_2samp(x, y, method="exact" if len(x) * len(y) <= EXACT_CELLS else "asymp")
    return float(found.statistic), float(found.pvalue)


def _wasserstein(x: Numbers, y: Numbers) -> float:
    """Mean distance that values of one must move to become the other: the area between the distribution functions."""
    both = np.sort(np.concatenate([x, y]))
    at = [np.searchsorted(np.sort(one), both[:-1], "right") / len(one) for one in (x, y)]
    return float((np.abs(at[0] - at[1]) * np.diff(both)).sum())


def _compare_categories(name: str, a: Column, b: Column) -> ColumnDrift:
    texts_a, texts_b = _texts(a), _texts(b)
    values, inverse = np.unique(np.concatenate([texts_a, texts_b]), return_inverse=True)
    counts_a = np.bincount(inverse[: len(a)], minlength=len(values))
    counts_b = np.bincount(inverse[len(a) :], minlength=len(values))
    share_a, share_b = counts_a / len(a), counts_b / len(b)
    common_a, common_b = _without_rare(counts_a, counts_b)
    value, chance = psi(common_a, common_b)
    order = sorted(range(len(values)), key=lambda place: (-abs(share_b[place] - share_a[place]), values[place]))
    changes = tuple(
        ValueChange(str(values[place]), float(share_a[place]), float(share_b[place])) for place in order[:TOP_CHANGES] if share_a[place] != share_b[place]
    )
    p = chi_square_p(counts_a, counts_b)
    missing_a, missing_b = float((texts_a == NOT_SAID).mean()), float((texts_b == NOT_SAID).mean())
    distance = float(np.abs(common_a / len(a) - common_b / len(b)).sum() / 2)
    return ColumnDrift(name, False, value, chance, distance, p, p, False, missing_a, missing_b, changes=changes)


def _texts(values: Column) -> NDArray[np.str_]:
    return np.array([NOT_SAID if one is None or one != one or str(one) == "" else str(one) for one in values.tolist()], np.str_)


def _without_rare(a: NDArray[np.int64], b: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
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


def chi_square_p(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    """p-value of two rows of counts being of one distribution; by chi-square, by Fisher's exact test where two values are left and few rows.

    >>> chi_square_p(np.array([50, 50]), np.array([50, 50])), chi_square_p(np.array([9, 1]), np.array([1, 9])) < 0.01
    (1.0, True)
    """
    from scipy.special import chdtrc

    x, y = _without_rare(a, b)
    table = np.stack([x, y])[:, (x + y) > 0].astype(np.float64)
    if table.shape[1] < 2 or not table.sum(axis=1).all():
        return 1.0
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    if table.shape[1] == 2 and expected.min() < LEAST_EXPECTED:
        from scipy.stats import fisher_exact

        return min(1.0, float(fisher_exact(table.astype(np.int64)).pvalue))
    return float(chdtrc(table.shape[1] - 1, ((table - expected) ** 2 / expected).sum()))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share in (0, 1) or 0.01 <= share <= 0.99 else f"{100 * share:.1f} %"
