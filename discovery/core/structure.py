"""Measures of what is drawn in a picture, not of its tones: blur, noise, blocks of compression, borders, flat areas, detail."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from discovery.core.picture import GRID_PX, Picture

REBLUR_PX = 7  # of a second blur; Crete et al. have 9, at the original scale (docs/decisions/0019 has what was tried)
BLOCK_PX = 16  # noise and detail are told of squares of this side
FLATTEST = 0.05  # share of the squares in which noise is looked for; texture raises it in the others
CLIPPED = 10, 245  # luma; nearer to an end of the scale noise is cut off
TEXTURED = 3.0  # standard deviation of luma of 255; a square under it shows next to nothing to the eye
EDGE_PX, EDGE_RANGE = 32, 20.0  # squares in which an edge is looked for, and the range of luma of 255 that one has at least
BORDER_TONES, BORDER_STEP = 6.0, 10.0  # luma of 255: within a border, and at its inner edge


def blur(picture: Picture) -> float:
    """How little of its edges a second blur takes away, in [0, 1]; larger is more blurred. A picture without any edge has 1.

    Along rows and columns each, the larger of the two, so that a camera shaken in one direction shows. Each step from pixel to pixel counts by its
    height, where the source counts all alike: else the steps of one level that rounding leaves in smooth areas are taken for sharp edges.
    Source: Crete et al. 2007, "The blur effect: perception and estimation with a new no-reference perceptual blur metric".
    """
    from scipy.ndimage import uniform_filter1d

    blurred = []
    for axis in (0, 1):
        again = uniform_filter1d(picture.luma, REBLUR_PX, axis=axis, mode="nearest")
        steps = np.abs(np.diff(picture.luma, axis=axis)).ravel()
        left = np.minimum(steps, np.abs(np.diff(again, axis=axis)).ravel())
        total = float(np.dot(steps, steps))
        blurred.append(float(np.dot(steps, left)) / total if total > 0 else 1.0)
    return min(1.0, max(blurred))


def detail(picture: Picture) -> float:
    """Share of the squares of 16 px in which there is something to see, in [0, 1]; a blank page has 0.

    >>> from discovery.core.picture import whole_picture
    >>> detail(whole_picture(np.full((64, 64, 3), 90, np.uint8)))
    0.0
    """
    squares = _squares(picture.luma[None], BLOCK_PX)
    return float((squares.std(axis=(1, 2)) >= TEXTURED).mean())


def border(picture: Picture) -> float:
    """Share of the picture that is a frame or bars in one tone, in [0, 1]: whole rows and columns, up to a straight edge.

    The edge tells bars from a thing photographed before a plain wall: behind it more than half of the row differs from them at once.
    """
    inner = 1.0
    for luma in (picture.luma, picture.luma.T):
        inner *= 1.0 - _bar(luma) - _bar(luma[::-1])
    return 1.0 - inner


def noise(picture: Picture) -> float:
    """Standard deviation of noise in luma of 255, at the original scale, in the flattest twentieth of the picture. 0 under 3 px.

    Of pure noise it shows 10 to 15 % less, because the flattest squares are also those with the least noise by chance.
    Source: Immerkaer 1996, "Fast noise variance estimation", whose mask sees no plane and little of an edge; in squares, as Olsen 1993, "Estimation
    of noise in images: an evaluation", because texture is no noise. Squares near black and white are left out: noise is cut off there.
    """
    y = picture.tile_luma
    if min(y.shape[1:]) < 3:
        return 0.0
    tone = _squares(y[:, 1:-1, 1:-1], BLOCK_PX).mean(axis=(1, 2))
    sigma = _noise_of_squares(y, BLOCK_PX)[(tone > CLIPPED[0]) & (tone < CLIPPED[1])]
    return float(np.round(np.quantile(sigma, FLATTEST), 6)) if len(sigma) else 0.0


def colour_noise(picture: Picture) -> float:
    """As `noise`, of the differences red - green and blue - green, the smaller of the two, in means of 2 x 2 px, which JPEG mostly keeps.

    What is drawn or photographed differs from pixel to pixel in luma and hardly in colour, a sensor's noise in both.
    """
    tiles = picture.tiles[:, : picture.tiles.shape[1] // 2 * 2, : picture.tiles.shape[2] // 2 * 2].astype(np.int16)
    lines = tiles[:, ::2] + tiles[:, 1::2]
    four = lines[:, :, ::2] + lines[:, :, 1::2]
    if min(four.shape[1:3]) < 3:
        return 0.0
    found = [_noise_of_squares(np.asarray((four[..., channel] - four[..., 1]) / np.float32(4), np.float32), BLOCK_PX // 2) for channel in (0, 2)]
    return float(np.round(min(np.quantile(sigma, FLATTEST) for sigma in found), 6))


def blockiness(picture: Picture) -> float:
    """How much larger steps are on the grid of 8 px than anywhere beside it, at the original scale, as a share; 0 without blocks, .1 disturbs.

    Of the square roots of steps, so that few strong edges do not count as much as many weak ones; the mean along rows and columns, wherever the
    grid begins, since pictures are cut. Source, for the idea: Wang, Sheikh and Bovik 2002, "No-reference perceptual quality assessment of JPEG
    compressed images".
    """
    return max(0.0, float(np.round(np.mean([_grid_step(picture.tile_luma, axis) for axis in (1, 2)]), 6)))


def edge_step(picture: Picture) -> float:
    """Share of an edge's height that is crossed in one pixel, in [0, 1], the median over squares of 32 px with an edge; 0 without any.

    Lenses and shrinking spread an edge over several pixels; what a program draws has the full step.
    """
    y = picture.luma
    if min(y.shape) <= EDGE_PX:
        return 0.0
    across, down = np.abs(y[:-1, 1:] - y[:-1, :-1]), np.abs(y[1:, :-1] - y[:-1, :-1])
    squares = _squares(y[None, :-1, :-1], EDGE_PX).reshape(-1, EDGE_PX**2)
    height = squares.max(axis=1) - squares.min(axis=1)
    has_edge = height > EDGE_RANGE
    if not has_edge.any():
        return 0.0
    steps = _squares(np.maximum(across, down)[None], EDGE_PX).reshape(-1, EDGE_PX**2)[has_edge]
    tenth = np.partition(steps, -10, axis=1)[:, -10]  # of 1,024 steps: not the one of a lone pixel
    return float(np.median(tenth / (height[has_edge] + 8.0)))


def drawn_edges(picture: Picture) -> float:
    """Share of strong steps that have pixels of exactly equal luma on both sides, in [0, 1], the smaller of rows and columns, at the original scale.

    Lines and letters on flat ground, as programs draw them; in photographs noise makes them next to impossible.
    """
    shares = []
    for axis in (1, 2):
        steps = np.moveaxis(np.abs(np.diff(picture.tile_luma, axis=axis)), axis, 0)
        if len(steps) < 3:
            return 0.0
        strong = steps > EDGE_RANGE
        drawn = strong[1:-1] & (steps[:-2] == 0) & (steps[2:] == 0)
        shares.append(float(drawn.sum()) / max(20.0, float(strong.sum())))
    return min(shares)


def flatness(picture: Picture) -> float:
    """Share of neighbouring pixels that are equal to the last bit, in [0, 1], at the original scale; photographs have next to none, drawings most.

    >>> from discovery.core.picture import whole_picture
    >>> flatness(whole_picture(np.full((64, 64, 3), 90, np.uint8)))
    1.0
    """
    tiles = picture.tiles
    if min(tiles.shape[1:3]) < 2:
        return 0.0
    colour = (tiles[..., 0].astype(np.int32) << 16) | (tiles[..., 1].astype(np.int32) << 8) | tiles[..., 2]
    here = colour[:, :-1, :-1]
    right, below = colour[:, :-1, 1:] == here, colour[:, 1:, :-1] == here
    return float((right & below).mean())


def _squares(values: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """(n, s, s) squares of (t, h, w), s = side or less when there is no more; what is left over at the right and below is dropped."""
    side = min(side, *values.shape[1:])
    rows, columns = values.shape[1] // side, values.shape[2] // side
    cut = values[:, : rows * side, : columns * side].reshape(-1, rows, side, columns, side)
    return cut.swapaxes(2, 3).reshape(-1, side, side)


def _bar(luma: NDArray[np.float32]) -> float:
    """Share of the rows, from the first on, that are one tone and end at a straight edge."""
    tone = np.median(luma[0])
    if (np.abs(luma[0] - tone) <= BORDER_TONES).mean() < 0.98:
        return 0.0  # most pictures end here
    off = np.abs(luma - tone)
    is_plain = (off <= BORDER_TONES).mean(axis=1) >= 0.98
    rows = len(luma) if is_plain.all() else int(np.argmin(is_plain))
    if rows == 0 or rows == len(luma):
        return 0.0
    behind = off[rows : rows + 3].max(axis=0)  # three rows: shrinking has mixed the edge itself
    return rows / len(luma) if (behind > BORDER_STEP).mean() >= 0.5 else 0.0


def _grid_step(luma: NDArray[np.float32], axis: int) -> float:
    steps = np.moveaxis(np.sqrt(np.abs(np.diff(luma, axis=axis))), axis, 0)
    if len(steps) < 2 * GRID_PX:
        return 0.0
    profile = steps.mean(axis=(1, 2), dtype=np.float64)
    phases = np.sort([profile[phase::GRID_PX].mean() for phase in range(GRID_PX)])
    return float(phases[-1] / (phases[-2] + 0.3) - 1.0)  # 0.3: a tenth of a level, under which nothing is seen


def _noise_of_squares(values: NDArray[np.float32], side: int) -> NDArray[np.float64]:
    """(n,) noise of each square of (t, h, w), by the mask 1 -2 1, -2 4 -2, 1 -2 1."""
    across = values[:, :, :-2] + values[:, :, 2:] - 2 * values[:, :, 1:-1]
    response = np.abs(across[:, :-2] + across[:, 2:] - 2 * across[:, 1:-1])
    return np.asarray(_squares(response, side).mean(axis=(1, 2), dtype=np.float64) * np.sqrt(np.pi / 2) / 6)
