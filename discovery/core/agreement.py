"""How well two pictures that were laid on each other agree, once a tone curve, a blur and a sub-pixel motion are taken out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from discovery.core.grid import BLOCK, LUMA, SAMPLED, Array, unit

CAPTION_HEIGHT, CAPTION_ASPECT, CAPTION_RICH = 0.25, 1.25, 0.06  # at most so high, wider than high, so much to see around it


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well two pictures agree that were laid on each other, after one tone curve and a sub-pixel shift were taken out.

    different: (16, 16) cells that differ. bad: share of 8 x 8 blocks that differ. detail: what differs over what there is to see, 0 is
    equal. rich: share of blocks that show detail and agree on it. gamma, gain, offset: the tone curve (offset in levels of 255).
    is_grey: only one of both has colours.
    """

    bad: float
    detail: float
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
    rich_outside: float

    @property
    def is_line(self) -> bool:
        """Whether what differs lies in a low, wide band, and around it there is enough to see."""
        is_wide = 0 < self.band_height <= CAPTION_HEIGHT and self.band_width >= CAPTION_ASPECT * self.band_height
        return is_wide and self.rich_outside >= CAPTION_RICH

    @property
    def around(self) -> float:
        """What is not explained outside of the band, counted as `Alignment.plain_difference`."""
        return max(self.detail_outside, 3 * self.bad_outside)


GAMMAS = np.exp(np.linspace(np.log(0.5), np.log(2.0), 11)).astype(np.float32)
PLACE = ((np.arange(SAMPLED, dtype=np.float32) + 0.5) / SAMPLED) - 0.5
RIDGE = np.diag(np.array([120, 120, 2, 2, 2, 2, 2], np.float64))  # a level of 255 of the tone curve counts like that much noise
NOISE = 2.0  # squared levels in a block: what storing in 8 bits and mild compression leave
FLOOR = 64.0  # squared levels of 255: JPEG of quality 30 leaves 8 in a block of 4 x 4 means
CELLS = 16


def agreement(a: Array, b: Array) -> Agreement:
    """Compare two (32, 32, 3) RGB pictures that were laid on each other."""
    colour_a, colour_b = float(np.ptp(a, axis=2).mean()), float(np.ptp(b, axis=2).mean())
    luma_a, luma_b = a @ LUMA, b @ LUMA
    correlation = float((unit(luma_a) * unit(luma_b)).sum())
    if _energy(luma_b) > _energy(luma_a):  # the sharper one can be blurred to be like the other
        a, b, luma_a, luma_b = b, a, luma_b, luma_a
    in_luma = min(colour_a, colour_b) < 3.0
    if in_luma:
        a, b = luma_a[..., None], luma_b[..., None]
    model, goal = _Model(luma_a[..., None]), luma_b[..., None]
    best = np.inf
    for start in (np.zeros_like(luma_a), luma_b - luma_a):  # all blocks; those that are equal as they are, so that a caption counts little
        residual = start[..., None]
        for _ in range(2):
            residual, gamma, solution = model.fit(goal, _calm(residual[..., 0]))
        cost = float(np.minimum(_blocks(residual[..., 0] ** 2, BLOCK), FLOOR).sum())
        if cost < best - 1e-3:
            best, chosen = cost, (residual, gamma, solution)
    residual, gamma, solution = chosen
    weights = _calm(residual[..., 0])
    if not in_luma:
        residual, gamma, solution = _Model(a).fit(b, weights)  # of colours: gamma of luma is not luma of gamma
    squares = (residual**2).mean(axis=2)
    energy, seen = _blocks(squares, BLOCK), np.maximum(_variance(a, BLOCK), _variance(b, BLOCK))
    floor = FLOOR * (1 + 3 * abs(np.log(gamma)))  # the mean of tones is not the tone of the mean, so other tones fit less well
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
    return Agreement(
        bad=float(is_bad.mean()), detail=float(unexplained.sum() / max(seen.sum(), 64.0)), rich=float(is_rich.mean()),
        correlation=correlation, gamma=float(gamma), gain=float(1 + solution[1]), offset=float(255 * solution[0]), is_grey=in_luma and max(colour_a, colour_b) > 6.0,
        band_height=height / CELLS, band_width=width / CELLS, bad_outside=float(is_bad[outside].sum() / count),
        detail_outside=float(unexplained[outside].sum() / max(seen[outside].sum(), 64.0)), rich_outside=float(is_rich[outside].sum() / count),
    )  # fmt: skip


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


class _Model:
    """What a picture looks like under a tone curve, a blur and a sub-pixel motion, all small: linear in seven numbers for each gamma."""

    def __init__(self, x: Array) -> None:
        """x: (32, 32, c)."""
        down, across = np.gradient(x, axis=(0, 1))
        laplacian = -4 * x
        laplacian[1:] += x[:-1]
        laplacian[:-1] += x[1:]
        laplacian[:, 1:] += x[:, :-1]
        laplacian[:, :-1] += x[:, 1:]
        laplacian[0] += x[0]
        laplacian[-1] += x[-1]
        laplacian[:, 0] += x[:, 0]
        laplacian[:, -1] += x[:, -1]
        motion = [laplacian, across, down, across * PLACE[None, :, None], down * PLACE[:, None, None]]
        fixed = np.stack([np.full_like(x, 255.0), *motion], axis=-1).reshape(-1, 6)
        tones = 255 * np.clip(x.reshape(-1, 1) / 255, 0, 1) ** GAMMAS
        self.columns = np.concatenate([fixed, tones], axis=1, dtype=np.float64)
        self.shape = x.shape

    def fit(self, y: Array, weights: Array) -> tuple[Array, float, NDArray[np.float64]]:
        """The residual of y (32, 32, c), the gamma, and the numbers: offset over 255, gain less 1, blur, four of motion."""
        weight = np.repeat(weights.reshape(-1), self.shape[2])
        total = float(weight.sum())
        goal = y.reshape(-1).astype(np.float64)
        weighted = self.columns * weight[:, None]
        gram, right = weighted.T @ self.columns, weighted.T @ goal
        pick = np.concatenate([np.broadcast_to(np.arange(6), (len(GAMMAS), 6)), 6 + np.arange(len(GAMMAS))[:, None]], axis=1)[:, ORDER]
        normal = gram[pick[:, :, None], pick[:, None, :]]
        rest = right[pick] - normal[:, :, 1]  # what is left to explain beside the tone curve of gain 1
        solution = np.linalg.solve(normal + total * RIDGE, rest[:, :, None])[:, :, 0]
        solution[:, 1] = np.maximum(solution[:, 1], -0.6)
        explained = 2 * (solution * rest).sum(axis=1) - np.einsum("gi,gij,gj->g", solution, normal, solution)
        before = float((weight * goal * goal).sum()) - 2 * right[6:] + np.diag(gram)[6:]
        cost = before - explained + total * 120 * (solution[:, 0] ** 2 + solution[:, 1] ** 2)
        best = int(np.argmin(cost))
        tone = self.columns[:, 6 + best]
        residual = goal - tone - self.columns[:, pick[best]] @ solution[best]
        return residual.reshape(self.shape).astype(np.float32), float(GAMMAS[best]), solution[best]


ORDER = [0, 6, 1, 2, 3, 4, 5]  # of the columns: offset, tones, blur, motion


def _energy(luma: Array) -> float:
    return float(sum((part**2).sum() for part in np.gradient(luma)))


def _blocks(values: Array, size: int) -> Array:
    count = values.shape[0] // size
    return np.asarray(values.reshape(count, size, count, size).mean(axis=(1, 3)))


def _variance(picture: Array, size: int) -> Array:
    return np.asarray(
        np.mean([_blocks(picture[..., c] ** 2, size) - _blocks(picture[..., c], size) ** 2 for c in range(picture.shape[2])], axis=0)
    )
