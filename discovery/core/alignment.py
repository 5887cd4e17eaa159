"""How one small picture lies in another: turned, mirrored, cropped or framed; and how well their pixels agree once they are laid on each other.

Pictures are grids of 64 x 64 equal areas, whatever their shape, so that a crop or a frame is a rectangle of the other's grid, and one of
eight turns takes either onto the other. All functions are of one pair: what is found does not depend on any third picture.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
GRID = 64  # cells a side of a stored picture
COARSE = 32  # cells a side where rectangles are searched
SAMPLED = 32  # points a side where aligned pictures are compared
BLOCK = 4  # points a side of a block whose difference is looked at alone
SCALES = np.exp(np.linspace(np.log(0.5), np.log(0.96), 14))  # of a crop's longer side; 4 % is 0.6 cells of half a coarse grid
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, which is what programs make grey pictures with
TURNS = ("same", "mirror", "turn_180", "flip", "transpose", "turn_left", "turn_right", "transverse")


Cells = TypeVar("Cells", bound=np.generic)


def turned(picture: NDArray[Cells], turn: int) -> NDArray[Cells]:
    """A picture (h, w, ...) under one of the eight TURNS."""
    if turn >= 4:
        picture = np.swapaxes(picture, 0, 1)
    if turn % 4 == 1:
        return picture[:, ::-1]
    if turn % 4 == 2:
        return picture[::-1, ::-1]
    return picture[::-1] if turn % 4 == 3 else picture


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of the unit square, in shares of it; may lie partly outside."""

    left: float
    top: float
    width: float
    height: float


WHOLE = Window(0.0, 0.0, 1.0, 1.0)
MARGIN = 0.03  # of a window, left out on all sides: its edges show what is beside it


def inner(window: Window) -> Window:
    """The window without its edges."""
    return Window(
        window.left + MARGIN * window.width, window.top + MARGIN * window.height, window.width * (1 - 2 * MARGIN), window.height * (1 - 2 * MARGIN)
    )


@functools.lru_cache(maxsize=4096)
def samples(low: float, size: float, points: int, cells: int) -> Array:
    """(points, cells): weights that take the means of `points` equal parts of [low, low + size] of a row of cells on [0, 1]."""
    step = size * cells / points
    centre = low * cells + (np.arange(points) + 0.5) * step - 0.5
    weights = np.clip(1.0 - np.abs(centre[:, None] - np.arange(cells)) / max(1.0, step), 0.0, None)
    total = weights.sum(axis=1, keepdims=True)
    return np.asarray(weights / np.where(total > 0, total, 1.0), np.float32)


def view(picture: Array, window: Window, points: int) -> Array:
    """What a window shows, as (points, points, ...) means."""
    rows = samples(window.top, window.height, points, picture.shape[0])
    columns = samples(window.left, window.width, points, picture.shape[1])
    if picture.ndim == 2:
        return np.asarray(rows @ picture @ columns.T, np.float32)
    return np.stack([rows @ picture[..., c] @ columns.T for c in range(picture.shape[2])], axis=-1)


def unit(values: Array) -> Array:
    """Zero mean and length 1, or zero where flat."""
    centred = values - values.mean()
    length = np.sqrt((centred * centred).sum())
    return centred / length if length > 1e-3 else np.zeros_like(centred)


def best_turn(a: Array, b: Array) -> tuple[int, float]:
    """Which turn of b is most like a, by (16, 16) luma, and its correlation."""
    first = unit(a)
    values = [float((first * unit(turned(b, turn))).sum()) for turn in range(8)]
    best = int(np.argmax(np.round(values, 6)))
    return best, values[best]


def find_window(whole: Array, part: Array, ratio: float) -> tuple[Window, float]:
    """Where in `whole` the picture `part` lies, by (64, 64) luma, and the correlation there.

    ratio: the width over height of `part`, over that of `whole`.
    """
    coarse = view(whole, WHOLE, COARSE)
    spectrum = np.fft.rfft2(coarse - coarse.mean())
    table = np.zeros((COARSE + 1, COARSE + 1))
    squares = np.zeros((COARSE + 1, COARSE + 1))
    centred = (coarse - coarse.mean()).astype(np.float64)
    table[1:, 1:] = centred.cumsum(0).cumsum(1)
    squares[1:, 1:] = (centred**2).cumsum(0).cumsum(1)
    sizes: list[tuple[int, int]] = []
    for scale in SCALES:
        width, height = scale * min(1.0, ratio), scale * min(1.0, 1.0 / ratio)
        size = (round(height * COARSE), round(width * COARSE))
        if min(size) >= 10 and size not in sizes:
            sizes.append(size)
    if not sizes:
        return WHOLE, 0.0
    templates = np.zeros((len(sizes), COARSE, COARSE), np.float32)
    for number, (height, width) in enumerate(sizes):
        rows, columns = samples(0, 1, height, GRID), samples(0, 1, width, GRID)
        templates[number, :height, :width] = unit(np.asarray(rows @ part @ columns.T, np.float32))
    products = np.fft.irfft2(spectrum * np.conj(np.fft.rfft2(templates)), s=(COARSE, COARSE))
    best, found = -1.0, WHOLE
    for number, (height, width) in enumerate(sizes):
        valid = products[number, : COARSE - height + 1, : COARSE - width + 1]
        area = height * width
        total = _window_sums(table, height, width)
        energy = _window_sums(squares, height, width) - total**2 / area
        value = valid / np.sqrt(np.maximum(energy, 4.0 * area))  # under 2 levels of contrast there is nothing to see
        at = int(np.argmax(value))
        if value.flat[at] > best:
            top, left = divmod(at, value.shape[1])
            best, found = float(value.flat[at]), Window(left / COARSE, top / COARSE, width / COARSE, height / COARSE)
    return found, best


def _window_sums(table: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    return table[height:, width:] - table[:-height, width:] - table[height:, :-width] + table[:-height, :-width]


def refine(whole: Array, part: Array, window: Window, rounds: int = 8) -> Window:
    """The window moved and stretched until it shows `part` best: Gauss-Newton on the correlation, at SAMPLED points a side.

    Source: Evangelidis and Psarakis 2008, "Parametric image alignment using enhanced correlation coefficient maximization".
    """
    target = unit(view(part, inner(WHOLE), SAMPLED)).ravel()
    position = MARGIN + (1 - 2 * MARGIN) * (np.arange(SAMPLED, dtype=np.float32) + 0.5) / SAMPLED
    best, best_value, now = window, -2.0, window
    for _ in range(rounds):
        seen = view(whole, inner(now), SAMPLED)
        value = float((unit(seen).ravel() * target).sum())
        if value > best_value + 1e-5:
            best, best_value = now, value
        elif value < best_value - 0.02:
            break
        down, across = np.gradient(seen)
        down, across = down * SAMPLED / (1 - 2 * MARGIN), across * SAMPLED / (1 - 2 * MARGIN)  # per window side
        columns = np.stack([across, down, across * position[None, :], down * position[:, None]], axis=-1).reshape(-1, 4)
        columns = columns - columns.mean(axis=0)
        centred = (seen - seen.mean()).ravel()
        norm2 = float((centred * centred).sum())
        if norm2 < 1.0:
            break
        gram = columns.T @ columns
        gram[np.diag_indices(4)] += 1e-3 * np.trace(gram) / 4
        projected = columns @ np.linalg.solve(gram, columns.T @ centred)
        top = norm2 - float(centred @ projected)
        bottom = float(target @ centred) - float(target @ projected)
        if bottom <= 1e-6 * np.sqrt(norm2):
            break
        error = (top / bottom) * target - centred
        step = np.clip(np.linalg.solve(gram, columns.T @ error), -0.08, 0.08)
        moved = Window(
            now.left + float(step[0]) * now.width, now.top + float(step[1]) * now.height,
            now.width * (1 + float(step[2])), now.height * (1 + float(step[3])),
        )  # fmt: skip
        if moved.width < 0.3 or moved.height < 0.3 or moved.width > 1.3 or moved.height > 1.3:
            break
        now = moved
        if np.abs(step).max() < 2e-4:
            break
    return best


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
RIDGE = np.diag(np.array([120, 120, 2, 2, 2, 2, 2], np.float32))  # a level of 255 of the tone curve counts like that much noise
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
    best = np.inf
    for start in (np.zeros_like(luma_a), luma_b - luma_a):  # all blocks; those that are equal as they are, so that a caption counts little
        residual = start[..., None]
        for _ in range(2):
            residual, gamma, solution = _fit(luma_a[..., None], luma_b[..., None], _calm(residual[..., 0]), GAMMAS)
        cost = float(np.minimum(_blocks(residual[..., 0] ** 2, BLOCK), FLOOR).sum())
        if cost < best - 1e-3:
            best, chosen = cost, (residual, gamma, solution)
    residual, gamma, solution = chosen
    weights = _calm(residual[..., 0])
    if not in_luma:
        residual, gamma, solution = _fit(a, b, weights, GAMMAS)  # of colours: gamma of luma is not luma of gamma
    squares = (residual**2).mean(axis=2)
    energy, seen = _blocks(squares, BLOCK), np.maximum(_variance(a, BLOCK), _variance(b, BLOCK))
    is_bad = energy > np.maximum(FLOOR, 0.15 * seen)
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


CAPTION_HEIGHT, CAPTION_ASPECT, CAPTION_RICH = 0.2, 1.25, 0.1  # at most so high, wider than high, so much to see around it
CAPTION_STROKES = 2.4  # planted captions have 2.5 and more, but for 1 in 20; the hands of a clock and a mouth mostly have fewer


@dataclass(frozen=True, slots=True)
class Alignment:
    """The best way found to lay picture b on picture a.

    turn: index in TURNS, of b. window: where the part lies in the whole, in the whole's unit square. direction: "whole" when both
    show the same, "part" when b is a part of a, "frame" when a is a part of b. strokes: see `strokes`, 0 where nothing is like a line.
    surround: standard deviation of luma beside the window, in levels of 255; 0 where there is nothing beside it.
    """

    direction: str
    turn: int
    window: Window
    agreement: Agreement
    strokes: float = 0.0
    surround: float = 0.0

    @property
    def is_captioned(self) -> bool:
        """Whether all that differs is a line of words: low, wide, of many strokes, in a picture that otherwise shows enough."""
        return self.strokes >= CAPTION_STROKES and self.agreement.is_line and self.agreement.around < self.plain_difference

    @property
    def plain_difference(self) -> float:
        """What is not explained anywhere. A block of 64 that differs counts like 4.7 % of the detail."""
        return max(self.agreement.detail, 3 * self.agreement.bad)

    @property
    def difference(self) -> float:
        """What is not explained, smaller is nearer, 0 is equal; of a captioned pair what lies around the words."""
        return self.agreement.around if self.is_captioned else self.plain_difference

def align(a: Array, b: Array, ratio_a: float, ratio_b: float) -> Alignment | None:
    """Lay b on a in the ways in which copies are made; None when nothing is alike at all.

    a, b: (64, 64, 3) float32 RGB of 255. ratio: width over height of the real pictures. Tried: b turned in eight ways on the whole of a;
    b as a part of a; a as a part of b.
    """
    luma_a, luma_b = a @ LUMA, b @ LUMA
    found: list[Alignment] = []
    turn, value = best_turn(view(luma_a, WHOLE, 16), view(luma_b, WHOLE, 16))
    for way in dict.fromkeys((turn, 0)):
        if value > LEAST_WHOLE and (not found or found[0].difference > SURE):
            laid = turned(b, way)
            agreed = _laid(a, laid, WHOLE)
            found.append(Alignment("whole", way, WHOLE, agreed, strokes(luma_a, laid @ LUMA) if agreed.is_line else 0.0))
    if not found or found[0].difference > SURE:
        for direction, whole, part, luma_whole, luma_part, ratio in (
            ("part", a, b, luma_a, luma_b, ratio_b / ratio_a), ("frame", b, a, luma_b, luma_a, ratio_a / ratio_b),
        ):  # fmt: skip
            window, value = find_window(luma_whole, luma_part, ratio)
            if value > LEAST_PART:
                window = refine(luma_whole, luma_part, window)
                found.append(Alignment(direction, 0, window, _laid(whole, part, window), 0.0, _surround(luma_whole, window)))
    return min(found, key=lambda one: one.difference, default=None)  # of equals the first


LEAST_WHOLE, LEAST_PART = 0.4, 0.8  # correlations under which planted copies never were
SURE = 0.02


def _laid(whole: Array, part: Array, window: Window) -> Agreement:
    return agreement(view(whole, inner(window), SAMPLED), view(part, inner(WHOLE), SAMPLED))


def strokes(a: Array, b: Array) -> float:
    """How often, along the four rows where they do so most, two (64, 64) lumas begin to differ: letters do many times, an object seldom."""
    differs = b - a
    differs = differs - np.median(differs)
    sign = np.where(np.abs(differs) > 18.0, np.sign(differs), 0.0)
    changes = 1 + np.count_nonzero(np.diff(sign, axis=1), axis=1)
    return float(np.sort(changes // 2)[-4:].mean())


def _surround(whole: Array, window: Window) -> float:
    """Standard deviation of luma outside of a window and a margin around it."""
    place = (np.arange(GRID) + 0.5) / GRID
    rows = (place < window.top - MARGIN) | (place > window.top + window.height + MARGIN)
    columns = (place < window.left - MARGIN) | (place > window.left + window.width + MARGIN)
    beside = whole[rows[:, None] | columns[None, :]]
    return float(beside.std()) if beside.size else 0.0


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


def _fit(x: Array, y: Array, weights: Array, gammas: Array) -> tuple[Array, float, Array]:
    """The residual of y after the best tone curve, blur and sub-pixel shift of x; (32, 32, c) both."""
    down, across = np.gradient(x, axis=(0, 1))
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)), mode="edge")
    laplacian = padded[2:, 1:-1] + padded[:-2, 1:-1] + padded[1:-1, 2:] + padded[1:-1, :-2] - 4 * x
    motion = [laplacian, across, down, across * PLACE[None, :, None], down * PLACE[:, None, None]]
    fixed = np.stack([np.full_like(x, 255.0), *motion], axis=-1).reshape(-1, 6)
    tones = 255 * np.clip(x.reshape(-1) / 255, 0, 1)[None, :] ** gammas[:, None]
    weight = np.repeat(weights.reshape(-1), x.shape[2])
    total = float(weight.sum())
    columns = np.concatenate([np.broadcast_to(fixed[None, :, :1], (len(gammas), len(weight), 1)), tones[:, :, None], np.broadcast_to(fixed[None, :, 1:], (len(gammas), len(weight), 5))], axis=2)
    goal = y.reshape(-1)[None, :] - tones
    weighted = columns.transpose(0, 2, 1) * weight
    solution = np.linalg.solve(weighted @ columns + total * RIDGE, weighted @ goal[:, :, None])[:, :, 0]
    solution[:, 1] = np.maximum(solution[:, 1], -0.6)
    residual = goal - (columns @ solution[:, :, None])[:, :, 0]
    cost = (weight * residual**2).sum(axis=1) + total * 120 * (solution[:, 0] ** 2 + solution[:, 1] ** 2)
    best = int(np.argmin(cost))
    return residual[best].reshape(x.shape), float(gammas[best]), solution[best]


def _energy(luma: Array) -> float:
    return float(sum((part**2).sum() for part in np.gradient(luma)))


def _blocks(values: Array, size: int) -> Array:
    count = values.shape[0] // size
    return np.asarray(values.reshape(count, size, count, size).mean(axis=(1, 3)))


def _variance(picture: Array, size: int) -> Array:
    return np.asarray(
        np.mean([_blocks(picture[..., c] ** 2, size) - _blocks(picture[..., c], size) ** 2 for c in range(picture.shape[2])], axis=0)
    )
