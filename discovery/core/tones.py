"""What a picture looks like under other tones, slightly blurred and moved: the model that explains one of two copies by the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from discovery.core.grid import LUMA, SAMPLED, Array, Window, view

GAMMAS = np.exp(np.linspace(np.log(0.5), np.log(2.0), 11)).astype(np.float32)
PLACE = ((np.arange(SAMPLED, dtype=np.float32) + 0.5) / SAMPLED) - 0.5
FINER_STILL = 1.0  # what the means from pixels to 64 cells change in tones, over what those from there to 32 points change
RIDGE = np.diag(np.array([120, 120, 2, 2, 2, 2, 2], np.float64))  # a level of 255 of the tone curve counts like that much noise
ORDER = [0, 6, 1, 2, 3, 4, 5]  # of the columns: offset, tones, blur, motion


def tones_of(picture: Array) -> Array:
    """(…, 11): a picture of levels of 255 under each of the GAMMAS."""
    return np.asarray(255 * np.clip(picture[..., None] / 255, 0, 1) ** GAMMAS)


@dataclass(frozen=True, slots=True)
class Laid:
    """A picture of (64, 64, 3) RGB of 255, and the window of it that is compared with another one."""

    picture: Array
    window: Window

    def seen(self) -> Array:
        """(32, 32, 3): the means that are compared."""
        return view(self.picture, self.window, SAMPLED)

    def toned(self, *, in_luma: bool = False) -> Array:
        """(32, 32, 3 or 1, 11): what would be seen, had the GAMMAS been applied to the pixels before their means were taken.

        The mean of tones is not the tone of the mean. What that makes from 64 cells to 32 points is known, and taken once more for what it made from the pixels to 64
        cells: pictures have about as much variance from one halving of the scale to the next.
        """
        picture = (self.picture @ LUMA)[..., None] if in_luma else self.picture
        channels = picture.shape[2]
        finer = view(tones_of(picture).reshape(*picture.shape[:2], -1), self.window, SAMPLED).reshape(SAMPLED, SAMPLED, channels, len(GAMMAS))
        return finer + FINER_STILL * (finer - tones_of(view(picture, self.window, SAMPLED)))


class Model:
    """What a picture looks like under a tone curve, a blur and a sub-pixel motion, all small: linear in seven numbers for each gamma."""

    def __init__(self, x: Array, toned: Array | None = None) -> None:
        """x: (32, 32, c). toned: (32, 32, c, 11) x under each of the GAMMAS; of x itself when it is left out."""
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
        tones = tones_of(x).reshape(-1, len(GAMMAS)) if toned is None else toned.reshape(-1, len(GAMMAS))
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
