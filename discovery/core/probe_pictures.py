"""Ten pictures made from numbers, the same on every machine: what a faster arithmetic and a newer version are compared on.

They stand for what libraries hold and for what arithmetic of few bits handles worst: night skies, flat and nearly flat pictures.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PROBES = ("dark room", "cloud", "gradient", "snow", "night sky", "checker", "stripes", "noise", "disks", "page")  # hardest first


def probe_pictures(px: int) -> NDArray[np.uint8]:
    """(10, px, px, 3) uint8, in the order of PROBES."""
    rng = np.random.Generator(np.random.PCG64(20261124))
    y, x = np.mgrid[0:px, 0:px] / px
    cloud = _cloud(rng, px)
    stars = np.zeros((px, px))
    stars[rng.integers(0, px, px), rng.integers(0, px, px)] = rng.random(px)
    disks = np.full((px, px, 3), 0.9)
    for centre_x, centre_y, radius, *colour in rng.random((12, 6)):
        disks[(x - centre_x) ** 2 + (y - centre_y) ** 2 < (0.05 + 0.1 * radius) ** 2] = colour
    lines = ((y * 24) % 1 < 0.45) & ((x * 9 + np.floor(y * 24) * 0.37) % 1 < 0.8) & (x > 0.1) & (x < 0.9)
    pictures = [
        np.stack([0.04 + 0.02 * cloud, 0.03 + 0.02 * cloud, 0.02 + 0.02 * cloud], axis=-1),
        np.stack([0.3 + 0.5 * cloud, 0.5 + 0.4 * cloud, 0.9 - 0.2 * cloud], axis=-1),
        np.stack([x, y, 1 - x], axis=-1),
        _grey(0.94 + 0.05 * cloud),
        _grey(0.02 + stars),
        _grey((np.floor(x * 8) + np.floor(y * 8)) % 2),
        _grey(0.5 + 0.5 * np.sin(2 * np.pi * 20 * (x + 0.3 * y))),
        rng.random((px, px, 3)),
        disks,
        _grey(np.where(lines, 0.1, 0.97)),
    ]
    return np.stack([np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8) for picture in pictures])


def _grey(luma: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.repeat(luma[..., np.newaxis], 3, axis=-1)


def _cloud(rng: np.random.Generator, px: int) -> NDArray[np.float64]:
    """(px, px) in [0, 1]: sums of waves of random direction, the longer the stronger, as in photographs."""
    y, x = np.mgrid[0:px, 0:px] / px
    total = np.zeros((px, px))
    for cycles in (1, 2, 4, 8, 16, 32):
        angle, phase = 2 * np.pi * rng.random(2)
        total += np.sin(2 * np.pi * cycles * (x * np.cos(angle) + y * np.sin(angle)) + phase) / cycles
    low, high = float(total.min()), float(total.max())
    return np.asarray((total - low) / (high - low))
