"""What selecting costs at scale, and how it compares with apricot and submodlib on the same graph in the same run.

Vectors are synthetic, of 384 dimensions: clusters of sizes by Zipf's law (exponent .8), one for 25 rows, each with parts of about thirty rows (cosine .86 within a part, .57
within a cluster, 0 else); 20 % of the rows are near-duplicates of others (cosine .97), 3 % are junk, each alone. They are summed element by element,
so that every machine has the same ones, and the digest of the picks can be compared.

    sizes    ROWS:BUDGET, each in a process of its own: seconds to make the graph of the 32 nearest, to make it symmetric, to pick by facility_location; peak memory above
             Python's own; share of the true neighbours that the graph has; the bound on objective / optimum; a digest of the picks
    threads  the smallest size again with other numbers of threads: the digest must be the same
    table    the smallest size: share of clusters with a pick, of the rarest fifth of the clusters, and share of picks that are junk, by selector (ALGORITHMS section 6);
             deduplicated: of rows that are near-duplicates by cosine, only the first of each group is a candidate
    peers    the smallest size: apricot (lazy greedy) and submodlib (LazyGreedy, sparse) on our graph with our weights. f(S) of each one's picks is computed by the same function;
             then the same rows in another order: share of the picks that differ

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.selection_scale --sizes 50000:2000 200000:10000 --threads 2 --peers /tmp/venv-sub/bin/python
    OPENBLAS_NUM_THREADS=1 python -m benchmarks.selection_scale --sizes 1000000:50000 --threads 16 --only sizes        needs numpy and scipy alone
    python -m venv /tmp/venv-sub && /tmp/venv-sub/bin/pip install -r benchmarks/requirements-selection.txt

With OPENBLAS_NUM_THREADS=1 each of our threads multiplies by itself, which is faster than letting each one spread its product.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from discovery.core.knn import normalise
from discovery.core.lattice import WHOLE
from discovery.core.neighbour_graph import Covering, Neighbours
from discovery.core.quotas import Limits
from discovery.core.selection import UNIT, Candidates, select, weights

DIM, ROWS_A_CLUSTER, ROWS_A_PART = 384, 25, 30
COPIES, JUNK, SAME = 0.20, 0.03, 0.93  # cosine above which rows are near-duplicates: parts have .86, copies .97
PEER_S = 600  # after which a peer is given up
METHODS = ("random", "cluster_balanced", "typical", "k_center", "facility_location")


def make_vectors(rows: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(n, 384) unit vectors and (n,) cluster of each, -1 for junk."""
    rng = np.random.default_rng(seed)

    def noise(count: int) -> NDArray[np.float32]:
        return rng.standard_normal((count, DIM), np.float32)

    clusters = max(2, rows // ROWS_A_CLUSTER)
    share = 1.0 / np.arange(1, clusters + 1) ** 0.8
    junk, copies = int(JUNK * rows), int(COPIES * rows)
    kind = np.concatenate([np.arange(clusters), rng.choice(clusters, rows - junk - copies - clusters, p=share / share.sum())])  # each has a row
    parts = np.bincount(kind) // ROWS_A_PART + 1
    part = (np.cumsum(parts) - parts)[kind] + rng.integers(0, parts[kind])
    centres, middles = noise(clusters), noise(int(parts.sum()))
    found = np.empty((rows, DIM), np.float32)
    for start in range(0, len(kind), 65536):
        some = slice(start, min(start + 65536, len(kind)))
        found[some] = normalise(centres[kind[some]] + np.float32(0.7) * middles[part[some]] + np.float32(0.5) * noise(some.stop - start))
    of = rng.choice(len(kind), copies)
    for start in range(0, copies, 65536):
        some = slice(start, min(start + 65536, copies))
        found[len(kind) + start : len(kind) + some.stop] = normalise(found[of[some]] + np.float32(0.25 / DIM**0.5) * noise(some.stop - start))
    found[rows - junk :] = normalise(noise(junk))
    order = rng.permutation(rows)
    cluster = np.concatenate([kind, kind[of], np.full(junk, -1)])
    for start in range(0, DIM, 32):  # by columns, so that there are never two copies
        found[:, start : start + 32] = found[order, start : start + 32]
    return found, cluster[order]


def candidates_of(vectors: NDArray[np.float32], threads: int, names: list[str] | None = None) -> Candidates:
    """All rows, by names that are in their order."""
    n = len(vectors)
    return Candidates(names or [f"{row:08}" for row in range(n)], vectors, np.full(n, np.nan), np.zeros(n, bool), threads=threads)


def objective(graph: Covering, weight: NDArray[np.int64], picks: NDArray[np.int64]) -> int:
    """Sum over rows of weight times the largest similarity to a pick, in whole numbers."""
    covered = np.zeros(len(graph.starts) - 1, np.int64)
    for row in picks.tolist():
        part = slice(graph.starts[row], graph.starts[row + 1])
        covered[graph.columns[part]] = np.maximum(covered[graph.columns[part]], graph.similarity[part])
    return int((covered * weight).sum())


def digest(picks: NDArray[np.int64]) -> str:
    """Of the picks in their order."""
    return hashlib.sha256(picks.astype("<i8").tobytes()).hexdigest()[:12]


def peak_gib() -> float:
    """Peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(rows: int, budget: int, threads: int, seed: int) -> None:
    """Print what one size takes."""
    own = peak_gib()
    started = time.perf_counter()
    vectors, _ = make_vectors(rows, seed)
    made_s = time.perf_counter() - started
    held = peak_gib()
    candidates = candidates_of(vectors, threads)
    started = time.perf_counter()
    neighbours = candidates.neighbours_for(budget)
    graph_s = time.perf_counter() - started
    graph_gib = peak_gib()
    started = time.perf_counter()
    entries = len(neighbours.covering.columns)
    symmetric_s = time.perf_counter() - started
    started = time.perf_counter()
    found = select("facility_location", candidates, Limits(budget))
    greedy_s = time.perf_counter() - started
    print(
        f"{rows:,} -> {budget:,}, {threads} threads: graph {graph_s:.1f} s, symmetric {symmetric_s:.1f} s ({entries / rows:.1f} entries a row), greedy {greedy_s:.2f} s; "
        f"recall of the graph {neighbours.recall:.3f}, objective {found.objective / rows:.4f} a row, at least {found.optimality_bound:.3f} of the optimum; "
        f"peak {peak_gib() - own:.2f} GiB above Python's own, of which vectors {rows * DIM * 4 / 2**30:.2f} (before the graph {held - own:.2f}, after it "
        f"{graph_gib - own:.2f}); picks {digest(found.indices)}; vectors made in {made_s:.0f} s", flush=True
    )  # fmt: skip


def same_for_threads(rows: int, budget: int, counts: list[int], seed: int) -> None:
    """Print the digest by number of threads."""
    vectors, _ = make_vectors(rows, seed)
    found = {count: digest(select("facility_location", candidates_of(vectors, count), Limits(budget)).indices) for count in counts}
    print(f"threads: {found} {'the same' if len(set(found.values())) == 1 else 'NOT THE SAME'}", flush=True)


def first_of_groups(neighbours: Neighbours) -> NDArray[np.int64]:
    """The first row of each group of rows that are near-duplicates of one another, directly or through others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    row, place = np.nonzero(neighbours.similarity > SAME * WHOLE)
    pairs = coo_array((np.ones(len(row), bool), (row, neighbours.rows[row, place])), shape=(len(neighbours.rows),) * 2)
    return np.unique(connected_components(pairs, directed=False)[1], return_index=True)[1]


def table(rows: int, budget: int, threads: int, seed: int) -> None:
    """Print the table of ALGORITHMS section 6 with our selectors."""
    vectors, cluster = make_vectors(rows, seed)
    sizes = np.bincount(cluster[cluster >= 0])
    rare = np.argsort(sizes, kind="stable")[: len(sizes) // 5]
    everything = candidates_of(vectors, threads)
    kept = np.sort(first_of_groups(everything.neighbours))
    print(f"table: {rows:,} rows, {budget:,} picks, {len(sizes):,} clusters, the rarest fifth of {sizes[rare].min()} to {sizes[rare].max()} rows; {len(kept):,} rows without near-duplicates")
    for name, candidates, of in (("all rows", everything, np.arange(rows)), ("deduplicated", everything.take(kept), kept)):
        for method in METHODS:
            started = time.perf_counter()
            picks = of[select(method, candidates, Limits(budget)).indices]
            spent = time.perf_counter() - started
            hit = np.isin(np.arange(len(sizes)), cluster[picks])
            print(f"{name:13} {method:18} clusters {hit.mean():.3f}  rare clusters {hit[rare].mean():.3f}  junk {np.mean(cluster[picks] < 0):.3f}  {spent:.1f} s", flush=True)


def peers(rows: int, budget: int, threads: int, seed: int, python: str) -> None:
    """Print objective, time, memory and what another order changes, of ours and theirs."""
    vectors, _ = make_vectors(rows, seed)
    candidates = candidates_of(vectors, threads)
    neighbours = candidates.neighbours_for(budget)
    graph, weight = neighbours.covering, weights(neighbours)
    order = np.random.default_rng(seed + 1).permutation(rows)
    moved = candidates_of(vectors[order], threads, [f"{row:08}" for row in order])
    started = time.perf_counter()
    ours = select("facility_location", candidates, Limits(budget)).indices
    spent = time.perf_counter() - started
    again = order[select("facility_location", moved, Limits(budget)).indices]
    best = objective(graph, weight, ours)
    print(f"peers: {rows:,} -> {budget:,}, one graph of {len(graph.columns) / rows:.1f} entries a row; seconds are of picking alone, theirs in a second call, so without compilation")
    print(f"{'ours':10} f(S) {best / (WHOLE * UNIT):.2f}, 1; {spent:.2f} s; in another order {1 - len(np.intersect1d(ours, again)) / budget:.3f} of the picks differ", flush=True)
    place = np.argsort(order)  # of a row in the other order
    counts = np.diff(graph.starts)[order]
    starts = np.concatenate([[0], np.cumsum(counts)])
    source = np.arange(starts[-1]) + np.repeat(graph.starts[:-1][order] - starts[:-1], counts)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/first.npz", starts=graph.starts, columns=graph.columns, values=graph.similarity * weight[graph.columns], budget=budget)
        np.savez(f"{folder}/second.npz", starts=starts, columns=place[graph.columns[source]], values=(graph.similarity * weight[graph.columns])[source], budget=budget)
        for peer in ("apricot", "submodlib"):
            answers = []
            for name in ("first", "second"):
                command = [python, str(Path(__file__).with_name("selection_peer.py")), peer, f"{folder}/{name}.npz"]
                try:
                    done = subprocess.run(command, capture_output=True, text=True, timeout=PEER_S)
                except subprocess.TimeoutExpired:
                    print(f"{peer:10} not done after {PEER_S} s", flush=True)
                    break
                if done.returncode:
                    print(f"{peer:10} failed: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}", flush=True)
                    break
                answers.append(json.loads(done.stdout.strip().splitlines()[-1]))
            else:
                picks, other = np.array(answers[0]["picks"]), order[np.array(answers[1]["picks"])]
                print(
                    f"{peer:10} f(S) {objective(graph, weight, picks) / (WHOLE * UNIT):.2f}, {objective(graph, weight, picks) / best:.6f} of ours; {answers[0]['seconds']:.2f} s; peak {answers[0]['peak_gib']:.2f} GiB; "
                    f"in another order {1 - len(np.intersect1d(picks, other)) / budget:.3f} of the picks differ; of ours {1 - len(np.intersect1d(picks, ours)) / budget:.3f}", flush=True
                )  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["50000:2000"], help="ROWS:BUDGET, the smallest first")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--peers", default="", help="python that has apricot-select and submodlib-py")
    parser.add_argument("--only", nargs="+", choices=("sizes", "threads", "table", "peers"), default=["sizes", "threads", "table", "peers"])
    options = parser.parse_args()
    sizes = [tuple(map(int, size.split(":"))) for size in options.sizes]
    jobs = [(measure, (*size, options.threads, options.seed)) for size in sizes] if "sizes" in options.only else []
    rows, budget = sizes[0]
    if "threads" in options.only:
        jobs.append((same_for_threads, (rows, budget, sorted({1, options.threads, options.threads + 3}), options.seed)))
    if "table" in options.only:
        jobs.append((table, (rows, budget, options.threads, options.seed)))
    if "peers" in options.only and options.peers:
        jobs.append((peers, (rows, budget, options.threads, options.seed, options.peers)))
    context = multiprocessing.get_context("spawn")
    for job, arguments in jobs:  # one process each, so that its memory is its own
        process = context.Process(target=job, args=arguments)
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"{job.__name__}{arguments} ended with {process.exitcode}")


if __name__ == "__main__":
    main()
