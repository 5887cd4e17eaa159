"""The order in which vectors are added to a graph, so that a search comes to the lonely ones too.

A search walks down from the upper levels of the graph. hnswlib draws 1 of m vectors for these by chance, so that most small clusters have none there; a
search for what is in one of them may end in another cluster, and then misses all its neighbours at once, however near to each other they are. Which of the
added vectors are raised depends on the seed and on their turn alone. So it is known before, and these turns are given to vectors with few others
about them. Figures, also for vectors without clusters and with outliers: docs/decisions/0018-levels-for-the-lonely.md.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from discovery.core.rarity import neighbour_counts

REFERENCES = 2048  # rows that tell how lonely the others are
MODULUS = 2**31 - 1  # of minstd_rand0
MULTIPLIER = 16807


def drawn_levels(n: int, m: int, seed: int) -> NDArray[np.int64]:
    """(n,) the level of the first, second, … vector that is added to an hnswlib index of that m and random_seed.

    Source: hnswlib 0.8.0 `getRandomLevel` with libstdc++'s `default_random_engine` (minstd_rand0) and `uniform_real_distribution`, which takes two of its
    numbers for a double. Another C++ library would draw others; the order would then be one by chance, as good as hnswlib's own.
    """
    span = float(MODULUS - 1)
    state = seed % MODULUS or 1
    drawn = np.empty(n, np.float64)
    for turn in range(n):
        low = state = MULTIPLIER * state % MODULUS
        state = MULTIPLIER * state % MODULUS
        drawn[turn] = (low - 1) + (state - 1) * span
    return np.asarray(-np.log(np.maximum(drawn / span**2, 1e-300)) / math.log(m), np.int64)


def insertion_order(vectors: NDArray[np.float32], m: int, seed: int) -> NDArray[np.int64]:
    """(n,) the rows in the order to add them: by chance, but the turns that hnswlib raises above the ground fall to lonely vectors.

    vectors: (n, d) float32 unit rows. A row is raised with odds of 1 to (1 + the references within the usual distance of it). m and seed are those of the
    hnswlib index. The same vectors and seed give the same order.
    """
    rng = np.random.default_rng(seed)
    n = len(vectors)
    is_raised = drawn_levels(n, m, seed) > 0
    counts = neighbour_counts(vectors, np.sort(rng.permutation(n)[:REFERENCES]))
    lonely_first = np.argsort(rng.exponential(size=n) * (1 + counts), kind="stable")
    chosen, others = lonely_first[: is_raised.sum()], lonely_first[is_raised.sum() :]
    order = np.empty(n, np.int64)
    order[is_raised] = rng.permutation(chosen)
    order[~is_raised] = rng.permutation(others)
    return order
