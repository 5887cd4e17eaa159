"""Histograms of two columns over one axis, for drawing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from discovery.core.columns import Column, present_numbers


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
    x, y = present_numbers(a), present_numbers(b)
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
