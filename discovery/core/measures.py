"""Measures of one picture: plain numbers with a unit, from its pixels at a fixed scale. Adding one is a function and a line."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from discovery.core.picture import Picture, Pixels, Tiles, cut_tiles, whole_picture  # noqa: F401 (whole_picture: examples)
from discovery.core.structure import blockiness, blur, border, colour_noise, detail, drawn_edges, edge_step, flatness, noise

DARK, BRIGHT = 2, 253  # of 255; beyond, a sensor or an encoder has clipped

Measure = Callable[[Picture], float]


def brightness(picture: Picture) -> float:
    """Mean luma in [0, 1]; 0 is black.

    >>> brightness(whole_picture(np.zeros((2, 2, 3), np.uint8)))
    0.0
    """
    return float(picture.luma.mean(dtype=np.float64)) / 255.0


def bright_tone(picture: Picture) -> float:
    """The luma that 99 % of the pixels do not exceed, in [0, 1]; small is dark all over.

    >>> bright_tone(whole_picture(np.full((2, 2, 3), 51, np.uint8)))
    0.2
    """
    return picture.tone_at(0.99)


def lit_tone(picture: Picture) -> float:
    """The luma that 95 % of the pixels do not exceed, in [0, 1]: as `bright_tone`, but a lamp or the moon does not reach it.

    >>> lit_tone(whole_picture(np.full((2, 2, 3), 51, np.uint8)))
    0.2
    """
    return picture.tone_at(0.95)


def contrast(picture: Picture) -> float:
    """Standard deviation of luma, in [0, 0.5]; 0 is one flat tone.

    >>> round(contrast(whole_picture(np.array([[[0] * 3, [255] * 3]], np.uint8))), 6)
    0.5
    """
    return float(picture.luma.std(dtype=np.float64)) / 255.0


def entropy(picture: Picture) -> float:
    """Shannon entropy of the 256-bin luma histogram, in bits, in [0, 8].

    >>> entropy(whole_picture(np.array([[[0] * 3, [255] * 3]], np.uint8)))
    1.0
    """
    share = picture.tones[picture.tones > 0]
    return float(abs((share * np.log2(share)).sum()))


def saturation(picture: Picture) -> float:
    """Mean of (max - min) / max over the channels, in [0, 1]; 0 is grey.

    >>> saturation(whole_picture(np.array([[[255, 0, 0]]], np.uint8)))
    1.0
    """
    high, low = picture.channel_range
    return float(((high - low) / np.maximum(high, np.float32(1.0))).mean(dtype=np.float64))


def chroma(picture: Picture) -> float:
    """Mean of max - min over the channels, in [0, 1]; 0 is grey. Unlike saturation it does not take the noise of dark pixels for colour.

    >>> chroma(whole_picture(np.array([[[51, 0, 0]]], np.uint8)))
    0.2
    """
    high, low = picture.channel_range
    return float((high - low).mean(dtype=np.float64)) / 255.0


def clipped_fraction(picture: Picture) -> float:
    """Share of pixels whose luma is at the very end of the scale, in [0, 1].

    >>> clipped_fraction(whole_picture(np.array([[[0] * 3, [128] * 3]], np.uint8)))
    0.5
    """
    return float(((picture.luma <= DARK) | (picture.luma >= BRIGHT)).mean())


def crushed_fraction(picture: Picture) -> float:
    """Share of pixels with every channel at the dark end, in [0, 1]: shadows without any detail.

    >>> crushed_fraction(whole_picture(np.array([[[0] * 3, [0, 0, 99]]], np.uint8)))
    0.5
    """
    return float((picture.channel_range[0] <= DARK).mean())


def blown_fraction(picture: Picture) -> float:
    """Share of pixels with any channel at the bright end, in [0, 1]: highlights that have lost detail or changed their hue.

    >>> blown_fraction(whole_picture(np.array([[[255, 200, 99], [128] * 3]], np.uint8)))
    0.5
    """
    return float((picture.channel_range[0] >= BRIGHT).mean())


def white_fraction(picture: Picture) -> float:
    """Share of pixels with every channel at the bright end, in [0, 1]: paper, snow, or highlights that are blown altogether.

    >>> white_fraction(whole_picture(np.array([[[255, 255, 254], [255, 200, 99]]], np.uint8)))
    0.5
    """
    return float((picture.channel_range[1] >= BRIGHT).mean())


def sharpness(picture: Picture) -> float:
    """Variance of the Laplacian of luma (in squared luma units of 255); small is blurred. 0 under 3 px. Grows with contrast: see `blur`.

    Source: Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy".

    >>> sharpness(whole_picture(np.full((8, 8, 3), 90, np.uint8)))
    0.0
    """
    y = picture.luma
    if min(y.shape) < 3:
        return 0.0
    laplacian = y[:-2, 1:-1] + y[2:, 1:-1] + y[1:-1, :-2] + y[1:-1, 2:] - 4 * y[1:-1, 1:-1]
    return float(np.round(laplacian.var(dtype=np.float64), 9))


MEASURES: dict[str, Measure] = {
    "blockiness": blockiness,
    "blown_fraction": blown_fraction,
    "blur": blur,
    "border": border,
    "bright_tone": bright_tone,
    "brightness": brightness,
    "chroma": chroma,
    "clipped_fraction": clipped_fraction,
    "colour_noise": colour_noise,
    "contrast": contrast,
    "crushed_fraction": crushed_fraction,
    "detail": detail,
    "drawn_edges": drawn_edges,
    "edge_step": edge_step,
    "entropy": entropy,
    "flatness": flatness,
    "lit_tone": lit_tone,
    "noise": noise,
    "saturation": saturation,
    "sharpness": sharpness,
    "white_fraction": white_fraction,
}


def measure_image(rgb: Pixels, tiles: Tiles | None = None) -> dict[str, float]:
    """Every measure of one picture, by name. tiles: of its original pixels (picture.cut_tiles), when `rgb` was shrunk."""
    picture = Picture(rgb, cut_tiles(rgb) if tiles is None else tiles)
    return {name: measure(picture) for name, measure in MEASURES.items()}


PICTURE_GRID, LUMA_GRID = 64, 16
LUMA_601 = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, which is what programs make grey pictures with


def small_picture(rgb: Pixels) -> NDArray[np.uint8]:
    """(12288,) uint8: RGB on a square grid of 64 x 64 equal areas, whatever the picture's shape, row by row.

    Smaller pictures are interpolated. These 12 KB are what two pictures are compared by when they may be copies; with colours at half the
    scale they would be 6, and crops of coloured edges would differ.

    >>> small_picture(np.full((5, 7, 3), 255, np.uint8))[[0, 12287]].tolist()
    [255, 255]
    """
    high, wide, _ = rgb.shape
    lines = (_triangles(high, PICTURE_GRID) @ rgb.reshape(high, wide * 3).astype(np.float64)).reshape(PICTURE_GRID, wide, 3)
    by_column = _triangles(wide, PICTURE_GRID) @ lines.transpose(1, 0, 2).reshape(wide, PICTURE_GRID * 3)
    grid = by_column.reshape(PICTURE_GRID, PICTURE_GRID, 3).transpose(1, 0, 2)
    return np.asarray(np.clip(np.round(grid), 0, 255), np.uint8).ravel()


def small_rgb(stored: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(64, 64, 3) float32 RGB of 255 from what `small_picture` made."""
    return stored.reshape(PICTURE_GRID, PICTURE_GRID, 3).astype(np.float32)


def small_luma(stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(256,) uint8: the luma of what `small_picture` made as 16 x 16 means, row by row."""
    step = PICTURE_GRID // LUMA_GRID
    grid = (stored.reshape(PICTURE_GRID, PICTURE_GRID, 3) @ LUMA_601).reshape(LUMA_GRID, step, LUMA_GRID, step)
    return np.asarray(np.round(grid.mean(axis=(1, 3))), np.uint8).ravel()


@functools.lru_cache(maxsize=64)
def _triangles(length: int, size: int) -> Any:
    """(size, length) sparse: weights of each input cell in each output cell, rows summing to 1: means of areas, or interpolation between cells."""
    from scipy.sparse import csr_array  # four of five weights are 0: a third of the time of full matrices, and the same sums

    scale = length / size
    centre = (np.arange(size) + 0.5) * scale - 0.5
    weights = np.clip(1.0 - np.abs(centre[:, None] - np.arange(length)) / max(1.0, scale), 0.0, None)
    return csr_array(weights / weights.sum(axis=1, keepdims=True))
