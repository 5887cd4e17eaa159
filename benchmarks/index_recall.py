"""The index against bare hnswlib, faiss, usearch and exact search, in one run: build, queries a second at certified recall, memory.

Vectors are synthetic, since the ratios between indexes are what is asked: clusters of Zipf-distributed sizes, each a blob of 24 intrinsic dimensions in
384. Queries are held out. For each index an ef is found by the same procedure (`core.recall.choose_ef`: 2,000 queries, betting bound at .05, targets .95
and .99), and the queries a second are taken at that ef, in turn, medians of the rounds: one at a time and in a batch, with 1 and 2 threads.

    python -m benchmarks.index_recall --rows 200000            hnswlib alone as a peer
    pip install --target /tmp/peers --no-deps -r benchmarks/requirements-index.txt
    python -m benchmarks.index_recall --rows 200000 --peers /tmp/peers --keep /tmp/graphs

With --keep the peers' indexes are written there as they are built, with the time that took, and read by later runs: a run at 1,000,000 rows can so be cut in pieces,
also by --build, which builds one of them and stops.
Ours is built in every run. Who reaches a target at no ef of the grid is timed at the largest one, and marked with a star.

Also measured: what our wrapper costs over the same graph queried bare, a filter at 1 % selectivity against hnswlib's filter in Python, 1 % of new rows against
a full build, and how long a new process takes to its first answer.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np

from discovery.adapters.graph_file import reorder_graph_file
from discovery.config import Config
from discovery.core.draws import id_array
from discovery.core.knn import exact_knn, normalise
from discovery.core.locality import chain, order_alike
from discovery.core.recall import Stratum, choose_ef, recall_at_k
from discovery.stages.audit import EF_GRID
from discovery.stages.history import current_snapshot
from discovery.stages.index import Content, commit_snapshot, content_of, grown, opened
from discovery.stages.open_index import LANDMARKS, open_index
from discovery.types import IndexSnapshot
from discovery.workspace import Workspace, open_workspace

DIM, K, QUERIES, INTRINSIC = 384, 10, 2000, 24
ENCODER = "benchmark/encoder"
SINGLE = 400  # queries of a round that are asked one at a time
TARGETS = (0.95, 0.99)
GRID = EF_GRID


def make_vectors(rows: int, seed: int) -> np.ndarray:
    """(rows + QUERIES, DIM) float32 unit vectors in random order."""
    rng = np.random.default_rng(seed)
    clusters = max(20, rows // 200)
    share = 1.0 / np.arange(1, clusters + 1)
    centres = rng.normal(size=(clusters, DIM)).astype(np.float32)
    bases = [np.linalg.qr(rng.normal(size=(DIM, INTRINSIC)))[0].T.astype(np.float32) for _ in range(64)]
    found = np.empty((rows + QUERIES, DIM), np.float32)
    for start in range(0, len(found), 50_000):
        part = slice(start, min(start + 50_000, len(found)))
        kind = rng.choice(clusters, part.stop - start, p=share / share.sum())
        noise = rng.normal(size=(len(kind), INTRINSIC)).astype(np.float32) * 3.2
        spread = np.empty((len(kind), DIM), np.float32)
        for base in range(64):
            mine = kind % 64 == base
            spread[mine] = noise[mine] @ bases[base]
        found[part] = normalise(centres[kind] + spread + 0.15 * rng.normal(size=(len(kind), DIM)).astype(np.float32))
    return found


def peak_mib() -> float:
    """Memory of this process that is resident and its own, now."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(fields["RssAnon"].split()[0]) / 1024


class Contender:
    """One index: `build` from vectors, `query(queries, k, ef, threads)` to (labels, distances)."""

    def __init__(
        self, name: str, build: Callable[[np.ndarray], Any], query: Callable[..., Any], save: Callable[[Any, str], Any] | None = None,
        load: Callable[[str, int], Any] | None = None,
    ) -> None:  # fmt: skip
        self.name, self.build, self.query, self.save, self.load = name, build, query, save, load
        self.index: Any = None
        self.build_s = self.build_cpu_s = self.memory_mib = 0.0
        self.ef: dict[float, int | None] = {}

    def prepare(self, vectors: np.ndarray, keep: str | None) -> bool:
        """Build the index, or read the one that an earlier run kept. Returns whether it was read."""
        kept = Path(keep, f"{self.name.replace(' ', '-')}-{len(vectors)}") if keep and self.save else None
        times = kept.with_suffix(".json") if kept else None
        gc.collect()
        before = peak_mib()
        is_read = bool(times and times.exists())
        if is_read and self.load:
            self.index = self.load(str(kept), len(vectors))
            self.build_s, self.build_cpu_s = json.loads(times.read_text())  # type: ignore[union-attr]
        else:
            spent = time.process_time()
            self.build_s = seconds(lambda: setattr(self, "index", self.build(vectors)))
            self.build_cpu_s = time.process_time() - spent
        gc.collect()
        self.memory_mib = peak_mib() - before
        if times and kept and self.save and not is_read:
            kept.parent.mkdir(parents=True, exist_ok=True)
            self.save(self.index, str(kept))
            times.write_text(json.dumps([self.build_s, self.build_cpu_s]))
        return is_read


def bare_hnswlib(m: int) -> Contender:
    """hnswlib as one uses it: one index, one build thread, no checks."""

    def build(vectors: np.ndarray) -> Any:
        index = hnswlib.Index(space="ip", dim=DIM)
        index.init_index(max_elements=len(vectors), M=m, ef_construction=200, random_seed=7)
        index.add_items(vectors, np.arange(len(vectors)), num_threads=1)
        return index

    def query(index: Any, queries: np.ndarray, k: int, ef: int, threads: int) -> Any:
        index.set_ef(max(ef, k))
        return index.knn_query(queries, k=k, num_threads=threads)

    def load(path: str, rows: int) -> Any:
        index = hnswlib.Index(space="ip", dim=DIM)
        index.load_index(path, max_elements=rows)
        return index

    return Contender(f"hnswlib M{m}", build, query, lambda index, path: index.save_index(path), load)


def faiss_hnsw() -> Contender:
    """faiss' IndexHNSWFlat, inner product."""
    import faiss

    def build(vectors: np.ndarray) -> Any:
        faiss.omp_set_num_threads(1)
        index = faiss.IndexHNSWFlat(DIM, 16, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 200
        index.add(vectors)
        return index

    def query(index: Any, queries: np.ndarray, k: int, ef: int, threads: int) -> Any:
        faiss.omp_set_num_threads(threads)
        index.hnsw.efSearch = max(ef, k)
        similarity, labels = index.search(queries, k)
        return labels, 1 - similarity

    return Contender("faiss HNSW M16", build, query, faiss.write_index, lambda path, rows: faiss.read_index(path))


def usearch_bf16() -> Contender:
    """usearch with bfloat16 storage."""
    from usearch.index import Index

    def build(vectors: np.ndarray) -> Any:
        index = Index(ndim=DIM, metric="ip", dtype="bf16", connectivity=16, expansion_add=200)
        index.add(np.arange(len(vectors)), vectors, threads=1)
        return index

    def query(index: Any, queries: np.ndarray, k: int, ef: int, threads: int) -> Any:
        index.expansion_search = max(ef, k)
        found = index.search(queries, k, threads=threads)
        return np.asarray(found.keys).reshape(len(queries), -1), np.asarray(found.distances).reshape(len(queries), -1)

    return Contender("usearch bf16", build, query, lambda index, path: index.save(path), lambda path, rows: Index.restore(path))


def ours(ws: Workspace, ids: np.ndarray) -> Contender:
    """A snapshot: segments, recall audit, commit."""

    def build(vectors: np.ndarray) -> Any:
        content = grown(Content(ENCODER, DIM, (), ids[:0]), ids, lambda part: vectors[np.searchsorted(ids, part)], ws)
        snapshot = commit(content, None, ws)
        index = open_index(snapshot, ws)
        for segment in index.segments:
            if segment.has_graph:
                assert segment.graph.elements
        return index

    def query(index: Any, queries: np.ndarray, k: int, ef: int, threads: int) -> Any:
        index.threads = threads
        return index.search(queries, k, ef=ef, exact=False)

    return Contender("ours", build, query)


def commit(content: Content, parent: IndexSnapshot | None, ws: Workspace) -> IndexSnapshot:
    """Commit a snapshot and make it current."""
    key = f"{int(time.time() * 1e9):064x}"
    made = commit_snapshot(key, content, parent, manifests=("0" * 64,), embeddings=("1" * 64,), duplicates_id="2" * 64, ws=ws)
    assert ws.catalog.swap_head(ENCODER, made.id, parent.id if parent else "")
    return made


def true_distances(vectors: np.ndarray, queries: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Distances of what was found, from the vectors themselves: some indexes store less."""
    found = np.full(labels.shape, np.inf, np.float32)
    for row in range(len(queries)):
        good = (labels[row] >= 0) & (labels[row] < len(vectors))
        found[row, good] = 1 - vectors[labels[row][good]] @ queries[row]
    return found


def seconds(work: Callable[[], Any]) -> float:
    """That the work took."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def paired(first: Callable[[], Any], second: Callable[[], Any], rounds: int) -> float:
    """Median of the ratios second / first of their times, in turn."""
    ratios = []
    for number in range(rounds):
        one, two = (seconds(first), seconds(second)) if number % 2 else (seconds(second), seconds(first))[::-1]
        ratios.append(two / one)
    return statistics.median(ratios)


def cold_open(root: Path, queries: Path, mode: str) -> dict[str, float]:
    """In a process of its own: seconds to an open index, and to its first answer."""
    out = subprocess.run(
        [sys.executable, "-m", "benchmarks.index_recall", "--cold", str(root), "--queries", str(queries), "--mode", mode], check=True,
        capture_output=True, text=True,
    ).stdout  # fmt: skip
    found: dict[str, float] = json.loads(out.splitlines()[-1])
    return found


def cold(root: str, queries: str, mode: str) -> None:
    """What `cold_open` runs."""
    query = np.load(queries)[:1]
    with open_workspace(Config(root=root)) as ws:
        started = time.perf_counter()
        index = open_index(current_snapshot(ws), ws)
        opened_s = time.perf_counter() - started
        index.search(query, K, exact=mode == "exact")
        first_s = time.perf_counter() - started
        again = statistics.median(seconds(lambda: index.search(query, K, exact=mode == "exact")) for _ in range(5))
    print(json.dumps({"open_s": opened_s, "first_answer_s": first_s, "next_answer_s": again, "own_memory_mib": peak_mib()}))


def run(options: argparse.Namespace, folder: Path) -> None:
    """Everything, in order."""
    made = make_vectors(options.rows, options.seed)
    vectors, queries = made[: options.rows], made[options.rows :].copy()
    ids = np.sort(id_array([hashlib.sha256(str(number).encode()).hexdigest() for number in range(options.rows)]))
    np.save(folder / "queries.npy", queries)
    started = time.perf_counter()
    _, truth = exact_knn(queries, vectors, K)
    exact_s = time.perf_counter() - started
    print(f"exact: {len(queries) / exact_s:,.0f} queries a second, all cores", flush=True)

    config = Config(root=str(folder / "store")).replace(dask={"scheduler": "inline"})
    with open_workspace(config) as ws:
        contenders = [bare_hnswlib(16), ours(ws, ids)]
        if not options.few:
            contenders.append(bare_hnswlib(32))
        if options.peers:
            contenders += [faiss_hnsw(), usearch_bf16()]
        for one in contenders:
            is_read = one.prepare(vectors, options.keep)
            print(
                f"{one.name}: built in {one.build_s:,.1f} s ({one.build_cpu_s:,.1f} s of cores){', by an earlier run' * is_read}, {one.memory_mib:,.0f} MiB", flush=True
            )
            for target in TARGETS:
                shown = choose_ef(
                    GRID,
                    lambda ef, one=one: recall_at_k(true_distances(vectors, queries, labels_of(one, queries, ef)), truth),  # type: ignore[misc]
                    [Stratum("all", 1.0, np.arange(len(queries)))], target, 0.05,
                )  # fmt: skip
                one.ef[target] = shown.ef if shown.certified else None
                print(f"  certified {target}: ef {one.ef[target]}, recall {shown.recall:.4f}, at least {shown.lower_bound:.4f}", flush=True)
        snapshot = current_snapshot(ws)
        print(f"ours, its own audit at .99: ef {snapshot.ef_search}, {len(snapshot.segments)} segments, certified: {snapshot.is_certified}")
        for stratum in snapshot.strata:
            print(f"  {stratum.name}: {stratum.smallest} to {stratum.largest} alike, recall {stratum.recall:.4f}, at least {stratum.lower_bound:.4f}")
        speeds(contenders, queries, options.rounds)
        wrapper(contenders, queries, options.rounds)
        if not options.few:
            orders(contenders[2].index, vectors, queries, contenders[1].ef[0.99] or 128, options.rounds, folder)
        filtered(contenders, queries, options.rounds)
        increment(contenders, ids, vectors, snapshot, ws)
    for mode in ("exact", "graph"):
        for state in ("hashed for the first time", "known to be unchanged"):
            if state.startswith("hashed"):
                for stamp in (folder / "store" / "cache" / "checked").glob("*.json"):
                    stamp.unlink()
            found = cold_open(folder / "store", folder / "queries.npy", mode)
            print(f"new process, by {mode}, files {state}: " + ", ".join(f"{name} {value:,.3f}" for name, value in found.items()), flush=True)


def labels_of(one: Contender, queries: np.ndarray, ef: int) -> np.ndarray:
    """Labels that an index finds with all threads."""
    labels = np.asarray(one.query(one.index, queries, K, ef, 2)[0]).astype(np.int64)
    return labels


def rate(one: Contender, queries: np.ndarray, ef: int, threads: int, batch: bool) -> float:
    """Queries a second, in a batch or one at a time."""
    if batch:
        return len(queries) / seconds(lambda: one.query(one.index, queries, K, ef, threads))
    return SINGLE / seconds(lambda: [one.query(one.index, queries[row : row + 1], K, ef, threads) for row in range(SINGLE)])


def speeds(contenders: list[Contender], queries: np.ndarray, rounds: int) -> None:
    """Queries a second of all, in turn."""
    for target in TARGETS:
        for threads, batch in ((1, True), (2, True), (1, False)):
            taken: dict[str, list[float]] = {one.name: [] for one in contenders}
            for _ in range(rounds):
                for one in contenders:
                    taken[one.name].append(rate(one, queries, one.ef[target] or GRID[0], threads, batch))
            base = statistics.median(taken["hnswlib M16"])
            ratios = {name: statistics.median(a / b for a, b in zip(values, taken["hnswlib M16"], strict=True)) for name, values in taken.items()}
            kind = f"{'batch' if batch else 'single'}, {threads} thread{'s' * (threads > 1)}"
            line = "   ".join(f"{one.name} {ratios[one.name]:.2f}{'*' * (one.ef[target] is None)}" for one in contenders)
            print(f"queries a second / hnswlib M16 at {target}, {kind}: {line}   ({base:,.0f})", flush=True)


def wrapper(contenders: list[Contender], queries: np.ndarray, rounds: int) -> None:
    """Our search against hnswlib's own on the very same graphs, merged with numpy."""
    index = contenders[1].index
    ef = contenders[1].ef[0.99] or 128
    graphs = [segment.graph for segment in index.segments]

    def bare() -> Any:
        found = []
        for graph in graphs:
            graph._index.set_ef(ef)
            found.append(graph._index.knn_query(queries, k=K, num_threads=1))
        return np.sort(np.concatenate([distances for _, distances in found], axis=1), axis=1)[:, :K]

    index.threads = 1
    for graph in graphs:
        graph._ef = -1  # set behind its back
    ratio = paired(bare, lambda: index.search(queries, K, ef=ef, exact=False), 2 * rounds)
    print(f"ours / hnswlib on the same graphs, batch of {len(queries)}, ef {ef}, 1 thread: time {ratio:.3f}", flush=True)


def orders(built: Any, vectors: np.ndarray, queries: np.ndarray, ef: int, rounds: int, folder: Path) -> None:
    """What it gives that linked nodes are near in memory, and that alike queries follow one another; by bare hnswlib, M 32, 1 thread."""
    n = len(vectors)
    built.save_index(str(folder / "built.bin"))
    spent = seconds(lambda: reorder_graph_file(folder / "built.bin", folder / "ordered.bin", n, DIM, 32))
    ordered = hnswlib.Index(space="ip", dim=DIM)
    ordered.load_index(str(folder / "ordered.bin"), max_elements=n)
    landmarks = vectors[:: n // LANDMARKS][:LANDMARKS]
    landmarks = landmarks[chain(landmarks)]
    taken: dict[str, list[float]] = {}
    for _ in range(2 * rounds):
        for name, index, is_sorted in (("as built", built, False), ("nodes", ordered, False), ("queries", built, True), ("both", ordered, True)):
            index.set_ef(ef)
            started = time.perf_counter()
            index.knn_query(queries[order_alike(queries, landmarks)] if is_sorted else queries, k=K, num_threads=1)
            taken.setdefault(name, []).append(time.perf_counter() - started)
    ratios = {name: statistics.median(a / b for a, b in zip(taken["as built"], values, strict=True)) for name, values in taken.items()}
    print(f"queries a second / those of the graph as built, by what was put in order ({spent:.1f} s): " + "   ".join(f"{a} {b:.2f}" for a, b in ratios.items()), flush=True)


def filtered(contenders: list[Contender], queries: np.ndarray, rounds: int) -> None:
    """A strict filter: ours against hnswlib's in Python."""
    index, bare = contenders[1].index, contenders[0]
    some = queries[:50]
    allowed = np.random.default_rng(2).random(index.rows) < 0.01
    permitted = allowed.tolist()
    bare.index.set_ef(bare.ef[0.99] or 128)
    index.threads = 1

    def in_python() -> None:
        bare.index.knn_query(some, k=K, num_threads=1, filter=lambda label: permitted[label])

    ratio = paired(lambda: index.search(some, K, allowed=allowed, exact=False), in_python, rounds)
    print(f"filter of 1 %: hnswlib with a Python filter / ours: time {ratio:.1f} (ours is exact there)", flush=True)


def increment(contenders: list[Contender], ids: np.ndarray, vectors: np.ndarray, snapshot: IndexSnapshot, ws: Workspace) -> None:
    """One per cent of new rows: from their vectors to a current, certified snapshot."""
    fresh = max(1, len(ids) // 100)
    extra = make_vectors(fresh, 99)[:fresh]
    named = np.sort(id_array([hashlib.sha256(f"fresh {number}".encode()).hexdigest() for number in range(fresh)]))
    wanted = np.sort(np.concatenate([ids, named]))
    started = time.perf_counter()
    content = content_of(snapshot, ENCODER, DIM, ws)
    content = grown(content, wanted, lambda part: extra[np.searchsorted(named, part)], ws)
    made = commit(content, snapshot, ws)
    spent = time.perf_counter() - started
    print(
        f"1 % new rows ({fresh:,}): {spent:.2f} s / full build {contenders[1].build_s:.1f} s = {100 * spent / contenders[1].build_s:.2f} %, recall at least "
        f"{made.recall_lower_bound:.4f}, certified: {made.is_certified}", flush=True,
    )  # fmt: skip
    assert opened(content, ws).elements == len(wanted)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--few", action="store_true", help="without bare hnswlib at M 32, which takes as long as ours to build")
    parser.add_argument("--peers", help="folder with faiss and usearch")
    parser.add_argument("--keep", help="folder for the peers' indexes, written there once built and read by later runs")
    parser.add_argument("--build", choices=("hnswlib M16", "hnswlib M32", "faiss HNSW M16", "usearch bf16"), help="only build this peer, into --keep")
    parser.add_argument("--cold", help=argparse.SUPPRESS)
    parser.add_argument("--queries", help=argparse.SUPPRESS)
    parser.add_argument("--mode", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cold:
        cold(options.cold, options.queries, options.mode)
        return
    if options.peers:
        sys.path.append(options.peers)
    if options.build:
        made = {"hnswlib M16": lambda: bare_hnswlib(16), "hnswlib M32": lambda: bare_hnswlib(32), "faiss HNSW M16": faiss_hnsw, "usearch bf16": usearch_bf16}
        made[options.build]().prepare(make_vectors(options.rows, options.seed)[: options.rows], options.keep)
        return
    print(f"{options.rows:,} x {DIM}, seed {options.seed}, {platform.machine()}, {len(os.sched_getaffinity(0))} cores", flush=True)
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_FOLDER")) as folder:
        run(options, Path(folder))


if __name__ == "__main__":
    main()
