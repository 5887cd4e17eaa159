"""The order in which vectors are added: hnswlib's levels are foreseen, lonely vectors get the upper ones, and are found for it."""

from __future__ import annotations

from pathlib import Path

import hnswlib
import numpy as np
import pytest

from discovery.adapters.graph_file import HEADER, _upper_levels
from discovery.adapters.hnsw import HnswSegment
from discovery.adapters.insertion import drawn_levels, insertion_order
from discovery.config import IndexConfig
from discovery.core.knn import exact_knn, normalise
from discovery.core.rarity import neighbour_counts


@pytest.mark.parametrize(("m", "seed"), [(4, 7), (32, 7), (16, 0), (8, 2**40 + 3)])
def test_the_levels_that_hnswlib_draws_are_foreseen(m: int, seed: int, tmp_path: Path) -> None:
    n, dim = 2000, 4
    index = hnswlib.Index(space="ip", dim=dim)
    index.init_index(max_elements=n, M=m, ef_construction=10, random_seed=seed)
    index.add_items(np.random.default_rng(1).normal(size=(n, dim)).astype(np.float32), num_threads=1)
    index.save_index(str(tmp_path / "graph.bin"))
    data = np.fromfile(tmp_path / "graph.bin", np.uint8)
    levels, _ = _upper_levels(data[HEADER.itemsize + n * (4 * dim + 8 * m + 12) :], n, m, AssertionError)
    assert (levels == drawn_levels(n, m, seed)).all() and levels.any()


def clusters(n: int, dim: int, seed: int) -> np.ndarray:
    """Clusters whose sizes fall like 1 / rank, far from each other."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, n // 15 + 1)
    kinds = rng.choice(len(share), n, p=share / share.sum())
    centres = normalise(rng.normal(size=(len(share), dim)).astype(np.float32))
    return normalise(centres[kinds] + (0.35 / np.sqrt(dim)) * rng.normal(size=(n, dim)).astype(np.float32))


def test_lonely_vectors_have_the_upper_levels() -> None:
    vectors, m = clusters(4000, 32, 3), 8
    order = insertion_order(vectors, m, 7)
    assert sorted(order.tolist()) == list(range(4000)) and (order == insertion_order(vectors, m, 7)).all()
    counts = neighbour_counts(vectors, np.arange(0, 4000, 2))
    raised = drawn_levels(4000, m, 7) > 0
    lonely = counts <= np.quantile(counts, 0.25)
    assert lonely[order[raised]].mean() > 1.6 * lonely.mean()
    assert abs(np.corrcoef(order[~raised], np.arange((~raised).sum()))[0, 1]) < 0.05  # the others come by chance


@pytest.mark.parametrize("vectors", [np.eye(6, dtype=np.float32), np.repeat(np.eye(1, 8, dtype=np.float32), 900, axis=0)])
def test_few_and_equal_vectors_have_an_order_too(vectors: np.ndarray) -> None:
    assert sorted(insertion_order(vectors, 4, 7).tolist()) == list(range(len(vectors)))


def test_counts_are_of_others_and_exact_whatever_adds_them() -> None:
    vectors = clusters(600, 48, 5)
    rows = np.arange(0, 600, 3)
    found = neighbour_counts(vectors, rows)
    whole = np.rint(vectors * 4000).astype(np.int64)
    between = whole @ whole[rows].T
    inner = between[rows].astype(np.float64)
    np.fill_diagonal(inner, -np.inf)
    least = np.median(np.sort(inner, axis=1)[:, -5])
    expected = (between >= least).sum(axis=1)
    expected[rows] -= 1
    assert (found == expected).all()
    assert (neighbour_counts(vectors, rows[:5]) == 0).all()


def test_fewer_queries_miss_all_their_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clusters(6500, 64, 11)
    queries, vectors = vectors[:500], np.ascontiguousarray(vectors[500:])
    _, truth = exact_knn(queries, vectors, 5)
    config = IndexConfig(m=8, ef_construction=40)

    def lost() -> int:
        _, found = HnswSegment.build(vectors, config).query(queries, 5, 12)
        return int((found.min(axis=1) > truth[:, -1] + 1e-5).sum())

    ours = lost()
    monkeypatch.setattr("discovery.adapters.hnsw.insertion_order", lambda vectors, m, seed: np.random.default_rng(seed).permutation(len(vectors)))
    by_chance = lost()
    assert ours < 0.5 * by_chance, (ours, by_chance)
