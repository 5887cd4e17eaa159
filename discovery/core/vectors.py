"""What may be stored as a vector: finite, of length 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from discovery.errors import InvalidInput

MAX_NORM_ERROR = 1e-4  # float32 rounding over thousands of dimensions stays under 1e-5


def require_unit_vectors(vectors: NDArray[np.float32], asset_ids: Sequence[str], producer: str) -> None:
    """Raise InvalidInput, naming the first asset, when a row of (n, d) float32 is not finite or not of length 1, or rows are missing."""
    if vectors.dtype != np.float32 or vectors.ndim != 2 or len(vectors) != len(asset_ids):
        raise InvalidInput(f"Encoder {producer} gave {vectors.dtype} {vectors.shape} for {len(asset_ids)} pictures.")
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    wrong = np.flatnonzero(~(np.abs(norms - 1.0) <= MAX_NORM_ERROR))  # NaN compares false
    if len(wrong):
        raise InvalidInput(
            f"Encoder {producer} gave vectors that are not finite or not of length 1 for {len(wrong)} of {len(vectors)} pictures, "
            f"first {asset_ids[wrong[0]][:12]}… with length {norms[wrong[0]]:.4g}. Nothing of this shard is kept: check its weights."
        )
