"""How one small picture lies in another: turned, mirrored, cropped or framed, with words on it or without.

All functions are of one pair: what is found does not depend on any third picture.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from discovery.core.agreement import Agreement, agreement
from discovery.core.grid import GRID, LUMA, MARGIN, SAMPLED, WHOLE, Array, Window, inner, samples, turned, unit, view
from discovery.core.tones import GAMMAS, Laid

COARSE = 32  # cells a side where rectangles are searched
SCALES = np.exp(np.linspace(np.log(0.5), np.log(0.96), 14))  # of a crop's longer side; 4 % is 0.6 cells of half a coarse grid


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


CAPTIONS = ((1.2, 0.25, 0.04), (2.4, 0.6, 0.01), (3.5, 1.0, 0.001))  # least strokes, most one-sided, most that differs around: any of these
BY_CHANCE = 110  # of 256 bits of PDQ; those of unrelated pictures differ by 128, with a deviation of 8, and words change few
STREAK_LEVELS = 56.0  # a streak of 2.2 levels is too much at the usual max_difference of .04; 99.9 % of planted copies are under it
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
        """What is not explained anywhere. A block of 64 that differs counts like 4.7 % of the detail, a streak of 2.2 levels like 4 %; 1 where the explanation is far-fetched.

        So it is when hardly any structure is shared, or `is_far_fetched`.
        """
        agreed = self.agreement
        if self.is_far_fetched or agreed.correlation < (LEAST_CORRELATION if self.direction == "whole" else LEAST_CORRELATION_OF_PART):
            return 1.0
        return max(agreed.detail, 3 * agreed.bad, agreed.streak / STREAK_LEVELS)

    @property
    def difference(self) -> float:
        """What is not explained, smaller is nearer, 0 is equal; of a captioned pair what lies around the words."""
        if self.is_captioned:
            return max(self.agreement.around, self.agreement.streak_outside / STREAK_LEVELS)
        return self.plain_difference


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
    return agreement(Laid(whole, inner(window)), Laid(part, inner(WHOLE)))


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


