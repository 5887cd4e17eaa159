"""Projections of vectors: principal axes of a reference, in part or wholly whitened, so that vectors are shorter and compare better."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from discovery.errors import InvalidInput

MIN_VARIANCE = 1e-6  # of the largest axis: below it, whitening would only blow up rounding noise
ROWS_AT_ONCE = 65_536


@dataclass(frozen=True, slots=True)
class Projection:
    """`unit((x - mean) @ axes)`. mean: (d,) float32. axes: (d, k) float32, whitened. variances: (k,) float64, descending, of the reference
    along each axis before whitening; explained: their share of all variance, in [0, 1].
    """

    mean: NDArray[np.float32]
    axes: NDArray[np.float32]
    variances: NDArray[np.float64]
    explained: float

    def __call__(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, k) float32 unit vectors of (n, d). A vector at the mean has no direction: it gets that of the first axis."""
        projected = (vectors - self.mean) @ self.axes
        lengths = np.linalg.norm(projected, axis=1, keepdims=True)
        projected[lengths[:, 0] < 1e-12, 0] = 1.0
        return np.ascontiguousarray(projected / np.where(lengths < 1e-12, 1.0, lengths), dtype=np.float32)


def fit_projection(vectors: NDArray[np.float32], dim: int, whitening: float) -> Projection:
    """The `dim` axes of largest variance of (n, d) unit vectors, each scaled by variance ** (-whitening / 2).

    whitening: 0 keeps the lengths (PCA), 1 gives all axes the same variance, between them is between; which is best depends on the
    encoder and is measured on held-out pairs (full whitening can hurt). Signs are fixed, so that equal vectors give equal axes. Memory:
    O(d² + rows at once). Raises InvalidInput: dim over d, or fewer rows than dim + 1, or less variance than dim axes need.

    >>> cross = np.array([[1, 0], [-1, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)  # variance 4/6 and 2/6
    >>> fitted = fit_projection(cross, 1, 0.0)
    >>> fitted.axes.ravel().tolist(), round(fitted.explained, 3)
    ([1.0, 0.0], 0.667)

    Source: Jégou and Chum 2012, "Negative evidences and co-occurences in image retrieval: the benefit of PCA and whitening".
    """
    n, d = vectors.shape
    if not 1 <= dim <= d or n <= dim:
        raise InvalidInput(f"A projection to {dim} dimensions needs 1 to {d} of them and more than {dim} vectors; there are {n}.")
    mean = vectors.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((d, d))
    for start in range(0, n, ROWS_AT_ONCE):
        centred = vectors[start : start + ROWS_AT_ONCE] - mean
        covariance += centred.T @ centred
    variances, axes = np.linalg.eigh(covariance / n)
    variances, axes = variances[::-1], axes[:, ::-1]
    if not variances[dim - 1] > MIN_VARIANCE * variances[0]:
        usable = int((variances > MIN_VARIANCE * variances[0]).sum()) if variances[0] > 0 else 0
        raise InvalidInput(f"The reference varies along {usable} axes only; a projection to {dim} dimensions has no more to show. Use fewer.")
    kept = axes[:, :dim]
    kept = kept * np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(dim)])
    scaled = kept * variances[:dim] ** (-whitening / 2)
    explained = float(variances[:dim].sum() / variances.sum())
    return Projection(mean.astype(np.float32), scaled.astype(np.float32), variances[:dim].copy(), explained)
