"""Pictures as grids of equal areas: turns, windows, and what a window shows.

A stored picture has 64 x 64 cells, whatever its shape, so that a crop or a frame is a rectangle of the other's grid, and one of eight turns takes either
onto the other.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
GRID = 64  # cells a side of a stored picture
SAMPLED = 32  # points a side where aligned pictures are compared
BLOCK = 4  # points a side of a block whose difference is looked at alone
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
