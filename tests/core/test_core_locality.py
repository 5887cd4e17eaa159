"""The order of many queries: alike ones follow one another, and none is lost."""

import numpy as np

from discovery.core.knn import normalise
from discovery.core.locality import chain, order_alike


def test_alike_queries_follow_one_another_and_none_is_lost() -> None:
    rng = np.random.default_rng(4)
    centres = normalise(rng.normal(size=(20, 16)).astype(np.float32))
    kind = rng.integers(20, size=600)
    queries = normalise(centres[kind] + 0.05 * rng.normal(size=(600, 16)).astype(np.float32))
    order = order_alike(queries, centres[chain(centres)])
    assert sorted(order.tolist()) == list(range(600))
    changes = (np.diff(kind[order]) != 0).sum()
    assert changes == 19 < (np.diff(kind) != 0).sum()


def test_a_chain_goes_to_the_nearest_that_is_left() -> None:
    angle = np.radians([0, 90, 10, 50, 21])
    landmarks = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    assert chain(landmarks).tolist() == [0, 2, 4, 3, 1]
    assert chain(landmarks[:1]).tolist() == [0]
