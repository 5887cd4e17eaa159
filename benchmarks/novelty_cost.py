"""What novelty costs beyond the bare queries of the index: a million candidates against a million references.

Vectors as in `index_recall`, 384 dimensions; candidates are of the same kind as references. *Bare* is hnswlib's own knn_query on our graph, k = 5, at the
same ef, with 2 threads, in blocks of 8,192, as its Python user would ask it: distances as it gives them, in the order in which candidates come. *Ours* is
the whole of scoring: the search with held-out rows set apart, distances from the stored vectors, ties by id, the mean, p-values, q-values, the test of the bulk and the guard
against contamination. Candidates are cut into slices and both take each slice in turn, now one first, now the other; the figure is the ratio of the sums.
Building the graph is not part of it. Reading vectors from the store is not part of either.

    python -m benchmarks.novelty_cost --rows 1000000 --ef 48 --keep /tmp/graphs       the graph is built (an hour) and kept, or read
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import time
from pathlib import Path

import numpy as np

from benchmarks.index_recall import DIM, make_vectors
from discovery.adapters.hnsw import HnswSegment
from discovery.config import IndexConfig, NoveltyConfig
from discovery.core.conformal import benjamini_hochberg, calibration_size, conformal_p_values, contamination, shift_test
from discovery.core.draws import draw
from discovery.stages.novelty_views import ROWS_AT_ONCE, NoveltyViews
from discovery.stages.open_index import MemorySegment, OpenIndex

K, SLICES, THREADS = 5, 10, 2


class Built(MemorySegment):
    """A segment in memory that has a graph."""

    has_graph = is_loaded = True

    def __init__(self, ids: np.ndarray, vectors: np.ndarray, graph: HnswSegment) -> None:
        super().__init__(ids, vectors)
        self._graph = graph

    @property
    def graph(self) -> HnswSegment:
        """The graph of the vectors in the order of ids."""
        return self._graph


def names(rows: int) -> np.ndarray:
    """(rows,) S64 ids, ascending."""
    return np.sort(np.array([hashlib.sha256(str(row).encode()).hexdigest() for row in range(rows)], "S64"))


def the_graph(references: np.ndarray, keep: Path | None) -> HnswSegment:
    """Built, or read where it was kept."""
    file = keep / f"novelty-{len(references)}.hnsw" if keep else None
    if file and file.exists():
        return HnswSegment.load(file, len(references), DIM, IndexConfig().m, is_checked=True)
    started = time.perf_counter()
    graph = HnswSegment.build(references, IndexConfig())
    print(f"built in {time.perf_counter() - started:,.0f} s", flush=True)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        graph.save(file.with_suffix(".part"))
        file.with_suffix(".part").rename(file)
    return graph


def bare(graph: HnswSegment, candidates: np.ndarray, ef: int) -> np.ndarray:
    """(n, K) distances of hnswlib itself."""
    graph._ef = -1  # set behind its back
    graph._index.set_ef(ef)
    return np.concatenate(
        [graph._index.knn_query(candidates[i : i + ROWS_AT_ONCE], k=K, num_threads=THREADS)[1] for i in range(0, len(candidates), ROWS_AT_ONCE)]
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--ef", type=int, default=48)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--build", action="store_true", help="only build the graph, into --keep")
    options = parser.parse_args()
    vectors = make_vectors(2 * options.rows, 11)[: 2 * options.rows]
    references, candidates = vectors[: options.rows], vectors[options.rows :]
    graph = the_graph(references, options.keep)
    if options.build:
        return
    ids = names(options.rows)
    index = OpenIndex([Built(ids, references, graph)], ids[:0], DIM, options.ef, IndexConfig())
    index.threads = THREADS
    rows = np.arange(options.rows)
    held_out = np.sort(rows[draw(ids, calibration_size(len(rows), NoveltyConfig().calibration_rows), "benchmark")])
    spent = {"bare": 0.0, "knn": 0.0, "knn and rare": 0.0}
    views = {name: NoveltyViews(index, rows, held_out, NoveltyConfig(k=K), exact=False) for name in ("knn", "knn and rare")}
    novelty = []
    usual = None
    for number, part in enumerate(np.array_split(np.arange(len(candidates)), SLICES)):
        mine = candidates[part]
        order = list(spent) if number % 2 == 0 else list(spent)[::-1]
        for name in order:
            started = time.perf_counter()
            if name == "bare":
                bare(graph, mine, options.ef)
            else:
                if number == 0:
                    usual = views[name].look_at_rows(held_out, density=name != "knn")
                looked = [views[name].look(mine[i : i + ROWS_AT_ONCE], density=name != "knn") for i in range(0, len(mine), ROWS_AT_ONCE)]
                if name == "knn":
                    novelty.extend(one.novelty for one in looked)
            spent[name] += time.perf_counter() - started
        print("  ".join(f"{name} {value:,.1f} s" for name, value in spent.items()), flush=True)
    started = time.perf_counter()
    scores = np.concatenate(novelty)
    assert usual is not None
    q = benjamini_hochberg(conformal_p_values(usual.novelty, scores))
    shift, doubt = shift_test(usual.novelty, scores), contamination(usual.novelty, scores, 0.1)
    tests = time.perf_counter() - started
    spent["knn"] += tests
    spent["knn and rare"] += tests
    print(f"{len(scores):,} candidates, {len(rows):,} references, {len(held_out):,} held out, ef {options.ef}, {THREADS} threads")
    print(f"called {int((q <= 0.1).sum())}, shifted {shift.is_shifted}, far out {len(doubt.rows)}; p-values and tests took {tests:.2f} s")
    for name in ("knn", "knn and rare"):
        print(f"{name}: {spent[name] / spent['bare']:.3f} times the bare queries")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB, of which vectors {vectors.nbytes / 2**30:.1f}")


if __name__ == "__main__":
    main()
