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
TURNS = ("same", "mirror", "turn_180", "flip", "transpose", "turn_right", "transverse", "turn_left")


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


class Small:
    """A small picture, and what is computed once for all that it is laid on."""

    def __init__(self, rgb: Array, ratio: float, pdq: NDArray[np.uint8]) -> None:
        """rgb: (64, 64, 3) float32 RGB of 255, on a square grid. ratio: width over height of the real picture. pdq: (32,) its PDQ hash, 256 bits."""
        self.rgb = rgb
        self.ratio = ratio
        self.pdq = pdq
        self.luma: Array = rgb @ LUMA
        sixteenth = view(self.luma, WHOLE, 16)
        self.turns: Array = np.stack([unit(turned(sixteenth, turn)).ravel() for turn in range(8)])
        self._coarse = view(self.luma, WHOLE, COARSE)
        self._as_whole: dict[Sizes, tuple[NDArray[np.complexfloating], Array]] = {}
        self._as_part: dict[Sizes, NDArray[np.complexfloating]] = {}

    def as_whole(self, sizes: Sizes) -> tuple[NDArray[np.complexfloating], Array]:
        """The spectrum, and (s, 32, 32): for each size and place of a window one over its standard deviation, 0 where it does not fit."""
        if sizes not in self._as_whole:
            centred = (self._coarse - self._coarse.mean()).astype(np.float64)
            sums, squares = (np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0))) for values in (centred, centred**2))
            scale = np.zeros((len(sizes), COARSE, COARSE), np.float32)
            for number, (height, width) in enumerate(sizes):
                area = height * width
                energy = _window_sums(squares, height, width) - _window_sums(sums, height, width) ** 2 / area
                least = 4.0 * area  # under 2 levels of contrast there is nothing to see
                scale[number, : COARSE - height + 1, : COARSE - width + 1] = 1 / np.sqrt(np.maximum(energy, least))
            self._as_whole[sizes] = np.fft.rfft2(centred.astype(np.float32)), scale
        return self._as_whole[sizes]

    def as_part(self, sizes: Sizes) -> NDArray[np.complexfloating]:
        """(s, 32, 17): conjugate spectra of the picture at each size, of zero mean and length 1."""
        if sizes not in self._as_part:
            templates = np.zeros((len(sizes), COARSE, COARSE), np.float32)
            for number, (height, width) in enumerate(sizes):
                rows, columns = samples(0, 1, height, GRID), samples(0, 1, width, GRID)
                templates[number, :height, :width] = unit(np.asarray(rows @ self.luma @ columns.T, np.float32))
            self._as_part[sizes] = np.conj(np.fft.rfft2(templates))
        return self._as_part[sizes]


Sizes = tuple[tuple[int, int], ...]


def best_turn(a: Small, b: Small) -> tuple[int, float]:
    """Which turn of b is most like a, by 16 x 16 luma, and its correlation."""
    values = np.round(b.turns @ a.turns[0], 6)
    best = int(np.argmax(values))
    return best, float(values[best])


@functools.lru_cache(maxsize=4096)
def window_sizes(ratio: float) -> Sizes:
    """(height, width) on the coarse grid of a part under SCALES. ratio: its width over height, over that of the whole."""
    sizes = []
    for scale in SCALES.tolist():
        size = (round(scale * min(1.0, 1.0 / ratio) * COARSE), round(scale * min(1.0, ratio) * COARSE))
        if min(size) >= 10 and size not in sizes:
            sizes.append(size)
    return tuple(sizes)


def find_window(whole: Small, part: Small) -> tuple[Window, float]:
    """Where in `whole` the picture `part` lies, on the coarse grid, and the correlation there."""
    sizes = window_sizes(part.ratio / whole.ratio)
    if not sizes:
        return WHOLE, 0.0
    spectrum, scale = whole.as_whole(sizes)
    values = np.fft.irfft2(spectrum * part.as_part(sizes), s=(COARSE, COARSE)) * scale
    number, top, left = (int(at) for at in np.unravel_index(int(np.argmax(values)), values.shape))
    height, width = sizes[number]
    return Window(left / COARSE, top / COARSE, width / COARSE, height / COARSE), float(values[number, top, left])


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


CAPTION_HEIGHT, CAPTION_ASPECT, CAPTION_RICH = 0.25, 1.25, 0.06  # at most so high, wider than high, so much to see around it
CAPTIONS = ((1.2, 0.25, 0.04), (2.4, 0.6, 0.01), (3.5, 1.0, 0.001))  # least strokes, most one-sided, most that differs around: any of these
BY_CHANCE = 110  # of 256 bits of PDQ; those of unrelated pictures differ by 128, with a deviation of 8, and words change few
LEAST_GAIN = 0.6  # contrast that a tone curve may leave
LEAST_CORRELATION, LEAST_CORRELATION_OF_PART = 0.93, 0.98  # of luma; 99 % of planted copies are over .968, and of crops and borders over .993


@dataclass(frozen=True, slots=True)
class Alignment:
    """The best way found to lay picture b on picture a.

    turn: index in TURNS, of b. window: where the part lies in the whole, in the whole's unit square. direction: "whole" when both
    show the same, "part" when b is a part of a, "frame" when a is a part of b. strokes, one_sided: see the functions of these names; 0 and
    1 where nothing is like a line, or the two differ as much as unrelated pictures do. surround: standard deviation of luma beside the window, in levels of 255; 0 where there is nothing beside it.
    """

    direction: str
    turn: int
    window: Window
    agreement: Agreement
    strokes: float = 0.0
    one_sided: float = 1.0
    surround: float = 0.0

    @property
    def is_captioned(self) -> bool:
        """Whether all that differs is a line of words on one of both: low, wide, of many strokes, on what otherwise shows enough.

        Words are on one side, so that the other goes on undisturbed beneath; or they are many letters on what is equal around them.
        """
        around = self.agreement.around
        if not self.agreement.is_line or self.turn or self.is_far_fetched or around >= self.plain_difference:
            return False
        return any(self.strokes >= least and self.one_sided <= most and around <= equal for least, most, equal in CAPTIONS)

    @property
    def is_far_fetched(self) -> bool:
        """Whether the tone curve is one that nobody makes: the most bent ones, little contrast left, or, of a grey picture, not the luma of the other."""
        agreed = self.agreement
        is_bent = not GAMMAS[0] < agreed.gamma < GAMMAS[-1] or agreed.gain < LEAST_GAIN
        return is_bent or (agreed.is_grey and (abs(agreed.gamma - 1) > 0.1 or abs(agreed.gain - 1) > 0.1 or abs(agreed.offset) > 12))

    @property
    def plain_difference(self) -> float:
        """What is not explained anywhere. A block of 64 that differs counts like 4.7 % of the detail; 1 where the explanation is far-fetched.

        So it is when hardly any structure is shared, or `is_far_fetched`.
        """
        agreed = self.agreement
        if self.is_far_fetched or agreed.correlation < (LEAST_CORRELATION if self.direction == "whole" else LEAST_CORRELATION_OF_PART):
            return 1.0
        return max(agreed.detail, 3 * agreed.bad)

    @property
    def difference(self) -> float:
        """What is not explained, smaller is nearer, 0 is equal; of a captioned pair what lies around the words."""
        return self.agreement.around if self.is_captioned else self.plain_difference


def align(a: Small, b: Small) -> Alignment | None:
    """Lay b on a in the ways in which copies are made; None when nothing is alike at all.

    Tried: b turned in eight ways on the whole of a; b as a part of a; a as a part of b.
    """
    found: list[Alignment] = []
    turn, value = best_turn(a, b)
    for way in dict.fromkeys((turn, 0)):
        if value > LEAST_WHOLE and (not found or found[0].difference > SURE):
            laid = turned(b.rgb, way)
            agreed = _laid(a.rgb, laid, WHOLE)
            may_have_words = agreed.is_line and not way and np.bitwise_count(a.pdq ^ b.pdq).sum() <= BY_CHANCE
            words = (strokes(a.luma, b.luma), one_sided(a.luma, b.luma)) if may_have_words else (0.0, 1.0)
            found.append(Alignment("whole", way, WHOLE, agreed, *words))
    if not found or found[0].difference > SURE:
        for direction, whole, part in (("part", a, b), ("frame", b, a)):
            window, value = find_window(whole, part)
            if value > LEAST_PART:
                window = refine(whole.luma, part.luma, window)
                beside = _surround(whole.luma, window)
                found.append(Alignment(direction, 0, window, _laid(whole.rgb, part.rgb, window), surround=beside))
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


def one_sided(a: Array, b: Array) -> float:
    """In [0, 1]: how well what differs can be guessed from beside it in one of two (64, 64) lumas, over how badly in the other.

    Small where one goes on undisturbed and the other has something on it; near 1 where both show an object, each another.
    """
    differs = b - a
    core = np.abs(differs - np.median(differs)) > 18.0
    wide = core.copy()
    wide[1:] |= core[:-1]
    wide[:-1] |= core[1:]
    wide[:, 1:] |= core[:, :-1]
    wide[:, :-1] |= core[:, 1:]
    weight = SMOOTH @ (~wide).astype(np.float32) @ SMOOTH.T
    reached = core & (weight > 0.05)
    if not reached.any():
        return 1.0
    errors = [float(np.abs(x - SMOOTH @ (x * ~wide) @ SMOOTH.T / np.maximum(weight, 1e-6))[reached].mean()) for x in (a, b)]
    return min(errors) / max(max(errors), 1e-6)


SMOOTH = np.exp(-0.5 * ((np.arange(GRID)[:, None] - np.arange(GRID)) / 2.5) ** 2).astype(np.float32)


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
