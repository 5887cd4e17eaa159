"""Measures of one picture: plain numbers with a unit, from its pixels at a fixed scale. Adding one is a function and a line."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # (h, w, 3) sRGB; the caller fixes the scale, since sharpness depends on it
LUMA_WEIGHTS = np.array([0.2126, 0.7152, 0.0722])  # ITU-R BT.709, on gamma-encoded values
DARK, BRIGHT = 2, 253  # of 255; beyond, a sensor or an encoder has clipped


def luma(rgb: Pixels) -> NDArray[np.float64]:
    """(h, w) luma in [0, 1].

    >>> float(luma(np.full((1, 1, 3), 255, np.uint8))[0, 0])
    1.0
    """
    return np.asarray(np.clip(rgb.astype(np.float64) @ LUMA_WEIGHTS / 255.0, 0.0, 1.0))


def brightness(rgb: Pixels) -> float:
    """Mean luma in [0, 1]; 0 is black.

    >>> brightness(np.zeros((2, 2, 3), np.uint8))
    0.0
    """
    return float(luma(rgb).mean())


def contrast(rgb: Pixels) -> float:
    """Standard deviation of luma, in [0, 0.5]; 0 is one flat tone.

    >>> round(contrast(np.array([[[0] * 3, [255] * 3]], np.uint8)), 6)
    0.5
    """
    return float(luma(rgb).std())


def sharpness(rgb: Pixels) -> float:
    """Variance of the Laplacian of luma (in squared luma units of 255); small is blurred. 0 under 3 px.

    Source: Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy".

    >>> sharpness(np.full((8, 8, 3), 90, np.uint8))
    0.0
    """
    y = luma(rgb) * 255.0
    if min(y.shape) < 3:
        return 0.0
    laplacian = y[:-2, 1:-1] + y[2:, 1:-1] + y[1:-1, :-2] + y[1:-1, 2:] - 4 * y[1:-1, 1:-1]
    return float(np.round(laplacian, 9).var())


def entropy(rgb: Pixels) -> float:
    """Shannon entropy of the 256-bin luma histogram, in bits, in [0, 8].

    >>> entropy(np.array([[[0] * 3, [255] * 3]], np.uint8))
    1.0
    """
    counts = np.bincount(np.round(luma(rgb) * 255).astype(np.int64).ravel(), minlength=256)
    share = counts[counts > 0] / counts.sum()
    return float(abs((share * np.log2(share)).sum()))


def saturation(rgb: Pixels) -> float:
    """Mean of (max - min) / max over the channels, in [0, 1]; 0 is grey.

    >>> saturation(np.array([[[255, 0, 0]]], np.uint8))
    1.0
    """
    high, low = rgb.max(axis=2).astype(np.float64), rgb.min(axis=2).astype(np.float64)
    return float(((high - low) / np.maximum(high, 1.0)).mean())


def clipped_fraction(rgb: Pixels) -> float:
    """Share of pixels whose luma is at the very end of the scale, in [0, 1].

    >>> clipped_fraction(np.array([[[0] * 3, [128] * 3]], np.uint8))
    0.5
    """
    y = luma(rgb) * 255
    return float(((y <= DARK) | (y >= BRIGHT)).mean())


MEASURES: dict[str, Callable[[Pixels], float]] = {
    "brightness": brightness,
    "clipped_fraction": clipped_fraction,
    "contrast": contrast,
    "entropy": entropy,
    "saturation": saturation,
    "sharpness": sharpness,
}


def measure_image(rgb: Pixels) -> dict[str, float]:
    """Every measure of one picture, by name."""
    return {name: measure(rgb) for name, measure in MEASURES.items()}


PICTURE_GRID, LUMA_GRID = 64, 16
LUMA_601 = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, which is what programs make grey pictures with


def small_picture(rgb: Pixels) -> NDArray[np.uint8]:
    """(12288,) uint8: RGB on a square grid of 64 x 64 equal areas, whatever the picture's shape, row by row.

    Smaller pictures are interpolated. These 12 KB are what two pictures are compared by when they may be copies; with colours at half the
    scale they would be 6, and crops of coloured edges would differ.

    >>> small_picture(np.full((5, 7, 3), 255, np.uint8))[[0, 12287]].tolist()
    [255, 255]
    """
    pixels = rgb.astype(np.float64)
    rows, columns = _triangles(rgb.shape[0], PICTURE_GRID), _triangles(rgb.shape[1], PICTURE_GRID)
    grid = np.stack([rows @ pixels[..., channel] @ columns.T for channel in range(3)], axis=-1)
    return np.clip(np.round(grid), 0, 255).astype(np.uint8).ravel()


def small_rgb(stored: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(64, 64, 3) float32 RGB of 255 from what `small_picture` made."""
    return stored.reshape(PICTURE_GRID, PICTURE_GRID, 3).astype(np.float32)


def small_luma(stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(256,) uint8: the luma of what `small_picture` made as 16 x 16 means, row by row."""
    step = PICTURE_GRID // LUMA_GRID
    grid = (stored.reshape(PICTURE_GRID, PICTURE_GRID, 3) @ LUMA_601).reshape(LUMA_GRID, step, LUMA_GRID, step)
    return np.asarray(np.round(grid.mean(axis=(1, 3))), np.uint8).ravel()


def _triangles(length: int, size: int) -> NDArray[np.float64]:
    """(size, length): weights of each input cell in each output cell, rows summing to 1: means of areas, or interpolation between cells."""
    scale = length / size
    centre = (np.arange(size) + 0.5) * scale - 0.5
    weights = np.clip(1.0 - np.abs(centre[:, None] - np.arange(length)) / max(1.0, scale), 0.0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
