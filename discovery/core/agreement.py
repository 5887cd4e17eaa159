"""How well two pictures that were laid on each other agree, once a tone curve, a blur and a sub-pixel motion are taken out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from discovery.core.grid import BLOCK, LUMA, SAMPLED, Array, unit
from discovery.core.tones import Laid, Model

CAPTION_HEIGHT, CAPTION_ASPECT, CAPTION_RICH = 0.2, 1.6, 0.06  # at most so high, so many times as wide, so much to see around it


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well two pictures agree that were laid on each other, after one tone curve and a sub-pixel shift were taken out.

    bad: share of 8 x 8 blocks that differ. detail: what differs over what there is to see, 0 is equal. streak: see the function of that
    name. rich: share of blocks that show detail and agree on it. gamma, gain, offset: the tone curve (offset in levels of 255). is_grey: only one of both has colours. band_*: a
    rectangle that holds most of what differs; *_outside: as above, beside it.
    """

    bad: float
    detail: float
    streak: float
    rich: float
    correlation: float
    gamma: float
    gain: float
    offset: float
    is_grey: bool
    band_height: float
    band_width: float
    bad_outside: float
    detail_outside: float
    streak_outside: float
    rich_outside: float

    @property
    def is_line(self) -> bool:
        """Whether what differs lies in a low, wide band, and around it there is enough to see."""
        is_wide = 0 < self.band_height <= CAPTION_HEIGHT and self.band_width >= CAPTION_ASPECT * self.band_height
        return is_wide and self.rich_outside >= CAPTION_RICH

    @property
    def around(self) -> float:
        """What is not explained outside of the band, counted like `Alignment.plain_difference`, without streaks."""
        return max(self.detail_outside, 3 * self.bad_outside)


NOISE = 2.0  # squared levels in a block: what storing in 8 bits and mild compression leave
FLOOR = 64.0  # squared levels of 255: JPEG of quality 30 leaves 8 in a block of 4 x 4 means
CELLS = 16
LEAST_SHARED = 0.9  # correlation of luma under which two pictures are not looked at more closely
STREAK = 10  # points that a streak is long, of SAMPLED


def agreement(laid: Laid, other: Laid) -> Agreement:
    """Compare two pictures that were laid on each other."""
    a, b = laid.seen(), other.seen()
    colour_a, colour_b = float(np.ptp(a, axis=2).mean()), float(np.ptp(b, axis=2).mean())
    luma_a, luma_b = a @ LUMA, b @ LUMA
    correlation = float((unit(luma_a) * unit(luma_b)).sum())
    if _energy(luma_b) > _energy(luma_a):  # the sharper one can be blurred to be like the other
        laid, a, b, luma_a, luma_b = other, b, a, luma_b, luma_a
    in_luma = min(colour_a, colour_b) < 3.0
    if in_luma:
        a, b = luma_a[..., None], luma_b[..., None]
    model, goal = Model(luma_a[..., None]), luma_b[..., None]
    best = np.inf
    for start in (np.zeros_like(luma_a), luma_b - luma_a):  # all blocks; those that are equal as they are, so that a caption counts little
        residual = start[..., None]
        for _ in range(2):
            residual, gamma, solution = model.fit(goal, _calm(residual[..., 0]))
        cost = float(np.minimum(_blocks(residual[..., 0] ** 2, BLOCK), FLOOR).sum())
        if cost < best - 1e-3:
            best, chosen = cost, (residual, gamma, solution)
    residual, gamma, solution = chosen
    has_tones = gamma != 1 and correlation >= LEAST_SHARED  # then it pays to look more closely
    if has_tones and in_luma:
        model = Model(a, laid.toned(in_luma=True))
        residual, gamma, solution = model.fit(b, _calm(residual[..., 0]))
    weights = _calm(residual[..., 0])
    if not in_luma:  # gamma of luma is not luma of gamma
        residual, gamma, solution = Model(a, laid.toned() if has_tones else None).fit(b, weights)
    squares = (residual**2).mean(axis=2)
    energy, seen = _blocks(squares, BLOCK), np.maximum(_variance(a, BLOCK), _variance(b, BLOCK))
    floor = FLOOR * (1 + abs(np.log(gamma)))  # the mean of tones is not the tone of the mean, so other tones fit less well
    is_bad = energy > np.maximum(floor, 0.15 * seen)
    is_rich = (seen > 12.0) & (energy < 0.1 * seen)
    size = SAMPLED // CELLS
    around = np.repeat(np.repeat(seen, BLOCK // size, 0), BLOCK // size, 1)
    cells = _blocks(squares, size) > np.maximum(2 * FLOOR, 0.3 * around)
    top, left, height, width = band(cells)
    inside = np.zeros((CELLS, CELLS), bool)
    inside[max(0, top - 1) : top + height + 1, max(0, left - 1) : left + width + 1] = True
    outside = ~_blocks(inside.astype(np.float32), BLOCK // size).astype(bool)
    count = max(1, int(outside.sum()))
    unexplained = np.maximum(energy - NOISE, 0.0)
    left, level = residual.mean(axis=2), b.mean(axis=2)
    beside = left * ~np.repeat(inside.any(axis=1), size)[:, None]  # words go on to the left and right of the band
    return Agreement(
        bad=float(is_bad.mean()), detail=float(unexplained.sum() / max(seen.sum(), 64.0)), streak=streak(left, level), rich=float(is_rich.mean()),
        correlation=correlation, gamma=float(gamma), gain=float(1 + solution[1]), offset=float(255 * solution[0]), is_grey=in_luma and max(colour_a, colour_b) > 6.0,
        band_height=height / CELLS, band_width=width / CELLS, bad_outside=float(is_bad[outside].sum() / count),
        detail_outside=float(unexplained[outside].sum() / max(seen[outside].sum(), 64.0)), streak_outside=streak(beside, level), rich_outside=float(is_rich[outside].sum() / count),
    )  # fmt: skip


def streak(residual: Array, picture: Array) -> float:
    """The mean of the residual along the straight line of STREAK points, across or down, on which it differs most from both of its sides, in levels.

    residual, picture: (32, 32). A crack, a string or a second door leaves little energy, but all of it in one line; noise and compression leave none there.
    Where the picture has an edge along the line, a slight blur leaves a line as well, which counts less.
    """
    worst = 0.0
    for values, edge in ((residual, np.gradient(picture, axis=1)), (residual.T, np.gradient(picture, axis=0).T)):
        along, steep = _running_mean(values), _running_mean(np.abs(edge))
        left, right = along[:, 2:-2] - along[:, :-4], along[:, 2:-2] - along[:, 4:]
        beyond = np.where(left * right > 0, np.minimum(np.abs(left), np.abs(right)), 0.0)  # a line stands out from both sides
        steepest = np.maximum(np.maximum(steep[:, 1:-3], steep[:, 2:-2]), steep[:, 3:-1])
        worst = max(worst, float((beyond / (1 + 0.25 * steepest)).max()))
    return worst


def _running_mean(values: Array) -> Array:
    sums = np.pad(values.cumsum(axis=0), ((1, 0), (0, 0)))
    return np.asarray((sums[STREAK:] - sums[:-STREAK]) / STREAK)


def _calm(residual: Array) -> Array:
    """(32, 32): 1 in the four fifths of the blocks that differ least, so that a caption does not bend the tone curve; else 0."""
    energy = _blocks(residual**2, BLOCK)
    cut = max(9.0, float(np.sort(energy, axis=None)[int(0.8 * energy.size)]))
    return np.repeat(np.repeat(energy <= cut, BLOCK, 0), BLOCK, 1).astype(np.float32)


def band(cells: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Top, left, height, width of the smallest rows and columns that hold nine tenths of the true cells; zeros when none is."""
    total = int(cells.sum())
    if not total:
        return 0, 0, 0, 0
    top, height = _shortest(cells.sum(axis=1), 0.9 * total)
    left, width = _shortest(cells[top : top + height].sum(axis=0), 0.9 * int(cells[top : top + height].sum()))
    return top, left, height, width


def _shortest(counts: NDArray[np.int64], wanted: float) -> tuple[int, int]:
    sums = np.concatenate([[0], np.cumsum(counts)])
    for length in range(1, len(counts) + 1):
        held = sums[length:] - sums[:-length]
        at = int(np.argmax(held))
        if held[at] >= wanted:
            return at, length
    return 0, len(counts)


def _energy(luma: Array) -> float:
    return float(sum((part**2).sum() for part in np.gradient(luma)))


def _blocks(values: Array, size: int) -> Array:
    count = values.shape[0] // size
    return np.asarray(values.reshape(count, size, count, size).mean(axis=(1, 3)))


def _variance(picture: Array, size: int) -> Array:
    return np.asarray(
        np.mean([_blocks(picture[..., c] ** 2, size) - _blocks(picture[..., c], size) ** 2 for c in range(picture.shape[2])], axis=0)
    )
