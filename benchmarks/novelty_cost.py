"""What novelty costs beyond the bare queries of the index: a million candidates against a million references.

Vectors as in `index_recall`, 384 dimensions; candidates are of the same kind as references. *Bare* is hnswlib's own knn_query on our graph, k = 5, at the
same ef, with as many threads, a slice in one call: distances as it gives them, in the order in which candidates come. *Ours* is
the whole of scoring: the search with held-out rows set apart, distances from the stored vectors, ties by id, the mean, p-values, q-values, the test of the bulk and the guard
against contamination. Candidates are cut into slices and both take each slice in turn, now one first, now the other; the figure is the ratio of the sums.
Building the graph is not part of it. Reading vectors from the store is not part of either.

    python -m benchmarks.novelty_cost --rows 1000000 --ef 48 --threads 2 --keep /tmp/graphs       the graph is built (an hour) and kept, or read

With --build-threads above 1 the graph is built by as many threads, so that its links are not the same each time; the search does not care.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import time
from pathlib import Path

import hnswlib
import numpy as np

from benchmarks.index_recall import DIM, make_vectors
from discovery.adapters.hnsw import HnswSegment
from discovery.adapters.insertion import insertion_order
from discovery.config import IndexConfig, NoveltyConfig
from discovery.core.conformal import benjamini_hochberg, calibration_size, conformal_p_values, contamination, shift_test
from discovery.core.draws import draw
from discovery.stages.novelty_views import ROWS_AT_ONCE, NoveltyViews
from discovery.stages.open_index import MemorySegment, OpenIndex

K, SLICES = 5, 10


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


def built_by(references: np.ndarray, threads: int) -> HnswSegment:
    """As HnswSegment.build, by several threads."""
    config = IndexConfig()
    order = insertion_order(references, config.m, config.seed)
    graph = hnswlib.Index(space="ip", dim=DIM)
    graph.init_index(max_elements=len(references), M=config.m, ef_construction=config.ef_construction, random_seed=config.seed)
    started = time.perf_counter()
    for start in range(0, len(order), 50_000):
        rows = order[start : start + 50_000]
        graph.add_items(references[rows], ids=rows.astype(np.int64), num_threads=threads)
        print(f"{start + len(rows):,} linked after {time.perf_counter() - started:,.0f} s", flush=True)
    return HnswSegment(graph, len(references), DIM)


def the_graph(references: np.ndarray, keep: Path | None, threads: int) -> HnswSegment:
    """Built, or read where it was kept."""
    file = keep / f"novelty-{len(references)}.hnsw" if keep else None
    if file and file.exists():
        return HnswSegment.load(file, len(references), DIM, IndexConfig().m, is_checked=True)
    started = time.perf_counter()
    graph = HnswSegment.build(references, IndexConfig()) if threads == 1 else built_by(references, threads)
    print(f"built in {time.perf_counter() - started:,.0f} s", flush=True)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        graph.save(file.with_suffix(".part"))
        file.with_suffix(".part").rename(file)
    return graph


def bare(graph: HnswSegment, candidates: np.ndarray, ef: int, threads: int) -> np.ndarray:
    """(n, K) distances of hnswlib itself."""
    graph._ef = -1  # set behind its back
    graph._index.set_ef(ef)
    return np.asarray(graph._index.knn_query(candidates, k=K, num_threads=threads)[1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--ef", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--build-threads", type=int, default=1)
    parser.add_argument("--arms", nargs="+", default=["bare", "knn", "knn and rare"], help="what is timed, bare and knn at least")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--build", action="store_true", help="only build the graph, into --keep")
    options = parser.parse_args()
    vectors = make_vectors(2 * options.rows, 11)[: 2 * options.rows]
    references, candidates = vectors[: options.rows], vectors[options.rows :]
    graph = the_graph(references, options.keep, options.build_threads)
    if options.build:
        return
    ids = names(options.rows)
    index = OpenIndex([Built(ids, references, graph)], ids[:0], DIM, options.ef, IndexConfig())
    index.threads = options.threads
    rows = np.arange(options.rows)
    held_out = np.sort(rows[draw(ids, calibration_size(len(rows), NoveltyConfig().calibration_rows), "benchmark")])
    import scipy.stats  # noqa: F401 - read before the clock runs

    spent = dict.fromkeys(options.arms, 0.0)
    views = {name: NoveltyViews(index, rows, held_out, NoveltyConfig(k=K), exact=False) for name in options.arms if name != "bare"}
    novelty = []
    usual = None
    for number, part in enumerate(np.array_split(np.arange(len(candidates)), SLICES)):
        mine = candidates[part]
        order = list(spent) if number % 2 == 0 else list(spent)[::-1]
        for name in order:
            started = time.perf_counter()
            if name == "bare":
                bare(graph, mine, options.ef, options.threads)
            else:
                if number == 0:
                    usual = views[name].look_at_rows(held_out, density=name != "knn")  # of either, novelty is the same
                blocks = ((np.arange(i, min(i + ROWS_AT_ONCE, len(mine))), mine[i : i + ROWS_AT_ONCE]) for i in range(0, len(mine), ROWS_AT_ONCE))
                looked = [found for _, found in views[name].look_at_blocks(blocks, density=name != "knn")]
                if name == "knn":
                    novelty.extend(one.novelty for one in looked)
            spent[name] += time.perf_counter() - started
        print(f"{number + 1} of {SLICES}: " + "  ".join(f"{name} {value:,.1f} s ({value / spent['bare']:.3f})" for name, value in spent.items()), flush=True)
    started = time.perf_counter()
    scores = np.concatenate(novelty)
    assert usual is not None
    q = benjamini_hochberg(conformal_p_values(usual.novelty, scores))
    shift, doubt = shift_test(usual.novelty, scores), contamination(usual.novelty, scores, 0.1)
    tests = time.perf_counter() - started
    for name in views:
        spent[name] += tests
    print(f"{len(scores):,} candidates, {len(rows):,} references, {len(held_out):,} held out, ef {options.ef}, {options.threads} threads")
    print(f"called {int((q <= 0.1).sum())}, shifted {shift.is_shifted}, far out {len(doubt.rows)}; p-values and tests took {tests:.2f} s")
    for name in views:
        print(f"{name}: {spent[name] / spent['bare']:.3f} times the bare queries")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB, of which vectors {vectors.nbytes / 2**30:.1f}")


if __name__ == "__main__":
    main()
