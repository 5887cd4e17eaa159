"""Which columns of one set moved against another: how far, whether chance explains it, and which way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from discovery.core.columns import (
    Column,
    chi_square_p,
    holm,
    kolmogorov_smirnov,
    present_numbers,
    psi,
    quantile_edges,
    wasserstein,
    without_rare,
)
from discovery.errors import InvalidInput

SOME, MUCH = 0.1, 0.25  # PSI under .1 "no significant change", over .25 "a significant shift": the rule of thumb of Siddiqi 2006
TOP_CHANGES = 5
NOT_SAID = "(not said)"

WORDS = {  # what a lower and a higher median are called
    "brightness": ("darker", "brighter"),
    "clipped_fraction": ("less clipped", "more clipped"),
    "contrast": ("of less contrast", "of more contrast"),
    "entropy": ("plainer in tone", "richer in tone"),
    "saturation": ("less colourful", "more colourful"),
    "exposure_s": ("exposed shorter", "exposed longer"),
    "f_number": ("of wider apertures", "of narrower apertures"),
    "focal_length_mm": ("of shorter focal lengths", "of longer focal lengths"),
    "height_px": ("less high", "higher"),
    "hour_taken": ("taken earlier in the day", "taken later in the day"),
    "iso": ("of lower ISO", "of higher ISO"),
    "sharpness": ("less sharp", "sharper"),
    "size_bytes": ("smaller in bytes", "larger in bytes"),
    "width_px": ("less wide", "wider"),
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
    missing_a, missing_b: share of rows without a value; is_about_missing: that differs more surely than the values do. is_moved: significant, and a PSI of at least .1 beyond chance.
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
    is_about_missing: bool = False
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
    if drift.is_about_missing:
        return f"not said of {_percent(drift.missing_a)} to {_percent(drift.missing_b)}"
    if abs(drift.shift) < 0.1 and not 0.8 < drift.spread < 1.25:
        return f"{drift.name} varies {'more' if drift.spread > 1 else 'less'}"
    lower, higher = WORDS.get(drift.name, (f"lower {drift.name}", f"higher {drift.name}"))
    return higher if drift.shift > 0 else lower if drift.shift < 0 else f"{drift.name} differs"


def _rows(columns: Mapping[str, Column]) -> int:
    """Rows of one set; 0 when it has no columns."""
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise InvalidInput(f"Expected columns of one length, found {sorted(lengths)}.")
    return lengths.pop() if lengths else 0


def _compare_one(name: str, a: Column, b: Column) -> ColumnDrift:
    is_number = a.dtype.kind in "fiu" and b.dtype.kind in "fiu"
    return _compare_numbers(name, a, b) if is_number else _compare_categories(name, a, b)


def _compare_numbers(name: str, a: Column, b: Column) -> ColumnDrift:
    x, y = present_numbers(a), present_numbers(b)
    absent = np.array([len(a) - len(x), len(b) - len(y)])
    missing_a, missing_b = float(absent[0] / len(a)), float(absent[1] / len(b))
    present = np.array([len(x), len(y)])
    missing_p = chi_square_p(np.array([present[0], absent[0]]), np.array([present[1], absent[1]])) if absent.any() else 1.0
    if not present.all():
        value, chance = psi(np.array([present[0], absent[0]]), np.array([present[1], absent[1]]))
        return ColumnDrift(name, True, value, chance, abs(missing_b - missing_a), missing_p, missing_p, False, missing_a, missing_b, is_about_missing=True)
    edges = quantile_edges(x)
    counts = [
        np.append(np.bincount(np.searchsorted(edges, one, "left"), minlength=len(edges) + 1), gone)
        for one, gone in ((x, absent[0]), (y, absent[1]))
    ]
    value, chance = psi(*counts)
    statistic, p = kolmogorov_smirnov(x, y)
    is_about_missing = missing_p < p
    if absent.any():
        p = min(1.0, 2 * min(p, missing_p))  # two looks at one column
    quartiles_x, quartiles_y = np.quantile(x, [0.25, 0.5, 0.75]), np.quantile(y, [0.25, 0.5, 0.75])
    range_x, range_y = float(quartiles_x[2] - quartiles_x[0]), float(quartiles_y[2] - quartiles_y[0])
    unit = range_x or float(np.std(x)) or float(np.std(np.concatenate([x, y]))) or 1.0  # a column of few values may have no range
    return ColumnDrift(
        name, True, value, chance, max(statistic, abs(missing_b - missing_a)), p, p, False, missing_a, missing_b,
        median_a=float(quartiles_x[1]), median_b=float(quartiles_y[1]), shift=float(quartiles_y[1] - quartiles_x[1]) / unit,
        spread=range_y / range_x if range_x and range_y else 1.0, wasserstein=wasserstein(x, y) / unit, is_about_missing=is_about_missing,
    )  # fmt: skip


def _compare_categories(name: str, a: Column, b: Column) -> ColumnDrift:
    texts_a, texts_b = _texts(a), _texts(b)
    values, inverse = np.unique(np.concatenate([texts_a, texts_b]), return_inverse=True)
    counts_a = np.bincount(inverse[: len(a)], minlength=len(values))
    counts_b = np.bincount(inverse[len(a) :], minlength=len(values))
    share_a, share_b = counts_a / len(a), counts_b / len(b)
    common_a, common_b = without_rare(counts_a, counts_b)
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


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share in (0, 1) or 0.01 <= share <= 0.99 else f"{100 * share:.1f} %"
