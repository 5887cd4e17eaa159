"""One picture as measures see it: all of it at a fixed scale, and tiles of its own pixels, which no shrinking has smoothed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # (h, w, 3) sRGB
Tiles = NDArray[np.uint8]  # (t, th, tw, 3) sRGB

LUMA_WEIGHTS = (0.2126, 0.7152, 0.0722)  # ITU-R BT.709, on gamma-encoded values
TILE_PX, TILES_A_SIDE = 128, 4  # 512 x 512 px at most: what a measure costs does not grow with the picture
GRID_PX = 8  # of JPEG's blocks; tiles begin on it


@dataclass(frozen=True)
class Picture:
    """`pixels` is the whole picture at the scale that is the same for all; `tiles` are parts of the original, spread evenly."""

    pixels: Pixels
    tiles: Tiles

    @cached_property
    def luma(self) -> NDArray[np.float32]:
        """(h, w) float32 luma of `pixels`, in [0, 255]."""
        return luma_255(self.pixels)

    @cached_property
    def tile_luma(self) -> NDArray[np.float32]:
        """(t, th, tw) float32 luma of `tiles`, in [0, 255]."""
        return luma_255(self.tiles)

    @cached_property
    def tones(self) -> NDArray[np.float64]:
        """(256,) share of `pixels` at each whole value of luma; sums to 1."""
        counts = np.bincount(np.rint(self.luma).astype(np.uint8).ravel(), minlength=256)
        return np.asarray(counts / counts.sum())

    @cached_property
    def channel_range(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """(h, w) uint8 each: the largest and the smallest of the three channels of `pixels`."""
        red, green, blue = self.pixels[..., 0], self.pixels[..., 1], self.pixels[..., 2]
        return np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)

    def tone_at(self, share: float) -> float:
        """The luma in [0, 1] that this share of the pixels does not exceed."""
        return float(np.searchsorted(np.cumsum(self.tones), share - 1e-9)) / 255.0


def whole_picture(rgb: Pixels) -> Picture:
    """A picture that is at its original scale."""
    return Picture(rgb, cut_tiles(rgb))


def luma_255(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(…) float32 luma in [0, 255] of (…, 3) uint8.

    >>> luma_255(np.array([[255, 255, 255], [0, 0, 0]], np.uint8)).tolist()
    [255.0, 0.0]
    """
    red, green, blue = (np.float32(weight) for weight in LUMA_WEIGHTS)
    return np.asarray(np.minimum(rgb[..., 0] * red + rgb[..., 1] * green + rgb[..., 2] * blue, 255.0), np.float32)


def cut_tiles(rgb: Pixels) -> Tiles:
    """(t, th, tw, 3) uint8: up to 4 x 4 squares of 128 px, evenly spread, each beginning on the grid of 8 px; a smaller picture is one tile or a row of them.

    >>> cut_tiles(np.zeros((3000, 4000, 3), np.uint8)).shape, cut_tiles(np.zeros((100, 300, 3), np.uint8)).shape
    ((16, 128, 128, 3), (2, 100, 128, 3))
    """
    rows, columns = _starts(rgb.shape[0]), _starts(rgb.shape[1])
    high, wide = min(TILE_PX, rgb.shape[0]), min(TILE_PX, rgb.shape[1])
    return np.stack([rgb[row : row + high, column : column + wide] for row in rows for column in columns])


def _starts(length: int) -> list[int]:
    tiles = min(TILES_A_SIDE, max(1, length // TILE_PX))
    last = max(0, length - TILE_PX)
    between = [last // 2] if tiles == 1 else [round(last * number / (tiles - 1)) for number in range(tiles)]
    return [start // GRID_PX * GRID_PX for start in between]
