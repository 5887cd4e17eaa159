"""What selecting brings: a linear probe trained on N pictures chosen by each selector against N random ones, and what the chosen cover.

Pictures of the public corpora with their labels; features are the default encoder's, frozen. Each resample cuts a task's pictures anew into a pool (.6) and a test part, by our own
grouped split, stratified: copies and one emoji by several vendors never cross. `planted` tasks keep of a third of the categories, drawn anew each time, no more than 1 % of the pool.
The candidates are the pool without near-duplicates, as a collection has them by default (`raw`: with them, for the default selector and random).

    accuracy, macro   of a multinomial logistic regression on the test part, all pictures and mean over categories; its C of 1, 10, 100 by three folds of the chosen ones
    categories        share of the pool's categories with a chosen picture;  rare: of the planted ones, else of the quarter with fewest pictures (ties by name)
    distance, radius  cosine distance from a picture of the pool to the nearest chosen one, mean and largest

Each line has the mean and, paired by resample, the difference from random with a 95 % interval (t over resamples; pictures are the same in all of them, so the
interval is of the draw of pool and test, not of another corpus). At the end the same by selector and budget over all tasks, where each task counts alike, and the bars: the
default selector ahead of random in distance and rare, with intervals that do not overlap; nowhere behind in accuracy.

    bash get_corpora.sh /tmp/corpora && discovery run /tmp/corpora/manifest.csv --root STORE --no-curate
    python -m benchmarks.curation_gain --prepare STORE --pictures pictures.npz        vectors, labels and groups of copies of the store, 21 MB
    python -m benchmarks.curation_gain --cosine 0.97 --pictures pictures.npz          the same without a store: groups of copies by cosine alone
    OPENBLAS_NUM_THREADS=1 python -m benchmarks.curation_gain --pictures pictures.npz --workers 2          needs numpy, scipy and scikit-learn alone
"""

from __future__ import annotations

import argparse
import csv
import time
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from discovery.core.knn import normalise
from discovery.core.quotas import Limits
from discovery.core.selection import Candidates, Options, select
from discovery.core.splits import grouped_splits, merge_groups

DEFAULT = "facility_location"
ALL = 10**9  # a budget that stands for all of them
METHODS = ("random", DEFAULT, "k_center", "cluster_balanced", "typical")
BUDGETS = (25, 50, 100, 200, 400)
POOL, LEAST, PLANTED, RARE = 0.6, 8, 0.01, 0.25  # share of the pool, pictures of a category, of a planted one, and of categories that are rare
CS, FOLDS = (1.0, 10.0, 100.0), 3
FIGURES = ("accuracy", "macro", "categories", "rare", "distance", "radius")
BETTER = {"accuracy": 1, "macro": 1, "categories": 1, "rare": 1, "distance": -1, "radius": -1}


@dataclass(frozen=True)
class Task:
    """n pictures: ids, vectors, labels, group of copies, and group of what may not cross."""

    name: str
    ids: list[str]
    vectors: NDArray[np.float32]
    labels: NDArray[np.str_]
    copies: NDArray[np.int64]
    together: NDArray[np.int64]


def prepare(root: str, corpora: Path, out: Path) -> None:
    """Write what the store knows of the corpora's pictures."""
    import hashlib

    from discovery.config import Config
    from discovery.stages.history import members_of
    from discovery.stages.shards import load_vectors
    from discovery.types import DuplicateReport, EmbeddingSet
    from discovery.workspace import open_workspace

    with open_workspace(Config(root=root), map_shards=map) as ws:
        embedded = ws.catalog.records(EmbeddingSet.stage)[0]
        assert isinstance(embedded, EmbeddingSet)
        ids, vectors = load_vectors([embedded], ws)
        assert len(ids) == len(members_of([embedded], ws))
        table = ws.store.read_table(ws.catalog.records(DuplicateReport.stage)[0], columns=["asset_id", "component_id"])
        component = dict(zip(table["asset_id"].to_pylist(), table["component_id"].to_pylist(), strict=True))
    names = [one.decode() if isinstance(one, bytes) else str(one) for one in ids]
    told: dict[str, dict[str, str]] = {}
    for row in csv.DictReader((corpora / "manifest.csv").open()):
        told.setdefault(hashlib.sha256((corpora / row["path"]).read_bytes()).hexdigest(), row)
    kept = [place for place, name in enumerate(names) if name in told]
    rows = [told[names[place]] for place in kept]
    columns = {key: np.array([row[key] for row in rows]) for key in ("label", "fine_label", "source")}
    np.savez(
        out, ids=np.array([names[place] for place in kept]), vectors=vectors[kept].astype(np.float16), encoder=embedded.encoder_id,
        copies=np.array([component.get(names[place]) or names[place] for place in kept]), **columns,
    )  # fmt: skip
    print(f"{len(kept):,} pictures, {len({component.get(names[place]) or names[place] for place in kept}):,} groups of copies, encoder {embedded.encoder_id}")


def prepare_without_store(corpora: Path, cache: Path, cosine: float, out: Path) -> None:
    """The same by the encoder alone: groups of copies are what is connected by cosines of at least so much."""
    from benchmarks.novelty_quality import read
    from discovery.core.duplicates import cosine_pairs

    rows, vectors, ids = read(corpora, cache)
    names = np.char.decode(ids, "ascii")
    pairs = cosine_pairs(vectors, cosine)[0]
    copies = np.array(_joined(pairs, len(names)))
    columns = {key: np.array([row[key] for row in rows]) for key in ("label", "fine_label", "source")}
    np.savez(out, ids=names, vectors=vectors.astype(np.float16), encoder=f"copies by cosine of {cosine}", copies=copies, **columns)
    print(f"{len(names):,} pictures, {len(set(copies.tolist())):,} groups by cosines of at least {cosine}")


def _joined(pairs: NDArray[np.int64], n: int) -> list[int]:
    """The group of each row that pairs connect."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    return connected_components(coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n)), directed=False)[1].tolist()


def tasks_of(file: Path) -> list[Task]:
    """The labelled sets; of the emoji, one vendor's and all."""
    data = np.load(file)
    order = np.argsort(data["ids"])
    ids, label, fine, source, named = (data[name][order] for name in ("ids", "label", "fine_label", "source", "copies"))
    vectors = normalise(data["vectors"][order].astype(np.float32))
    kind = np.array([one.split(":")[0] for one in source])
    copies = np.unique(named, return_inverse=True)[1]
    folder = np.array(["/".join(one.split("/")[:2]) for one in fine])
    everything = np.array([f"{one}: {other}" for one, other in zip(kind, label, strict=True)])
    tasks = []
    for name, mask, labels in (
        ("stamps", kind == "tuxpaint", label), ("stamps, folders", kind == "tuxpaint", folder), ("photos", kind == "gcompris", label),
        ("furniture", kind == "furniture", label), ("emoji", source == "emoji:google", label), ("everything", np.ones(len(ids), bool), everything),
    ):  # fmt: skip
        counts = Counter(labels[mask].tolist())
        rows = np.flatnonzero(mask & np.array([counts[one] >= LEAST for one in labels]))
        same = [f"emoji {fine[row]}" if kind[row] == "emoji" else str(ids[row]) for row in rows]
        together = np.array(merge_groups(copies[rows].tolist(), same))
        tasks.append(Task(name, ids[rows].tolist(), vectors[rows], labels[rows], copies[rows], together))
    return tasks


def probe(vectors: NDArray[np.float32], labels: NDArray[np.str_], asked: NDArray[np.float32], truth: NDArray[np.str_], seed: int) -> tuple[float, float]:
    """(accuracy, mean over categories) of a logistic regression; C by folds of what it is trained on."""
    from sklearn.linear_model import LogisticRegression

    if len(set(labels)) < 2:
        found = np.full(len(truth), labels[0])
    else:
        mean = vectors.mean(axis=0)
        basis = np.linalg.qr((vectors - mean).T)[0]  # the span of what it is trained on: the same regression, in fewer dimensions
        mine, theirs = (vectors - mean) @ basis, (asked - mean) @ basis
        fold = np.random.default_rng(seed).permutation(len(labels)) % FOLDS
        right = {c: 0 for c in CS}
        for one in range(FOLDS):
            if len(set(labels[fold != one])) > 1:
                for c in CS:
                    model = LogisticRegression(C=c, max_iter=300).fit(mine[fold != one], labels[fold != one])
                    right[c] += int((model.predict(mine[fold == one]) == labels[fold == one]).sum())
        found = LogisticRegression(C=max(CS, key=lambda c: (right[c], -c)), max_iter=300).fit(mine, labels).predict(theirs)
    return float((found == truth).mean()), float(np.mean([(found[truth == name] == name).mean() for name in np.unique(truth)]))


def cut(task: Task, is_planted: bool, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str]]:
    """Rows of the pool and of the test part, and the planted categories."""
    split = np.array(grouped_splits(task.ids, task.together.tolist(), {"pool": POOL, "test": 1 - POOL}, f"gain-{seed}", strata=task.labels.tolist()))
    pool, test = np.flatnonzero(split == "pool"), np.flatnonzero(split == "test")
    names = sorted(set(task.labels.tolist()))
    if not is_planted:
        return pool, test, []
    rng = np.random.default_rng(seed)
    planted = rng.permutation(names)[: max(1, len(names) // 3)].tolist()
    dropped = [rng.permutation(pool[task.labels[pool] == name])[max(2, round(PLANTED * len(pool))) :] for name in planted]
    return np.setdiff1d(pool, np.concatenate(dropped)), test, planted


def resample(task: Task, is_planted: bool, seed: int, budgets: list[int], methods: tuple[str, ...] = METHODS) -> dict[tuple[int, str], tuple[float, ...]]:
    """Figures by budget and selector of one cut."""
    warnings.simplefilter("ignore")  # of regressions that have not converged after 300 rounds
    pool, test, rare = cut(task, is_planted, seed)
    sizes = Counter(task.labels[pool].tolist())
    rare = [name for name in rare if name in sizes] or sorted(sizes, key=lambda name: (sizes[name], name))[: max(1, int(RARE * len(sizes)))]
    first = np.sort(pool[np.unique(task.copies[pool], return_index=True)[1]])
    found = {}
    for kind, rows in (("", first), (" raw", pool)):
        n = len(rows)
        candidates = Candidates([task.ids[row] for row in rows], task.vectors[rows], np.full(n, np.nan), np.zeros(n, bool))
        for budget in budgets:
            if budget > n // 2:
                continue
            for method in methods if not kind else ("random", DEFAULT):
                picks = rows[select(method, candidates, Limits(budget), (), Options(seed=seed)).indices]
                have = set(task.labels[picks].tolist())
                far = 1.0 - (task.vectors[pool] @ task.vectors[picks].T).max(axis=1)
                right = probe(task.vectors[picks], task.labels[picks], task.vectors[test], task.labels[test], seed)
                covered = (len(have) / len(sizes), float(np.mean([name in have for name in rare])))
                found[budget, method + kind] = (*right, *covered, float(far.mean()), float(far.max()))
    return found


def _resample(arguments: tuple[Task, bool, int, list[int], tuple[str, ...]]) -> dict[tuple[int, str], tuple[float, ...]]:
    return resample(*arguments)


def interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval by Student's t."""
    from scipy.stats import t

    n = len(differences)
    return float(differences.mean()), float(t.ppf(0.975, n - 1) * differences.std(ddof=1) / np.sqrt(n))


def main() -> None:
    """Prepare, or measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", default="", metavar="STORE")
    parser.add_argument("--cosine", type=float, default=0.0, help="prepare without a store, with groups of copies by this cosine")
    parser.add_argument("--cache", type=Path, default=Path("/tmp/novelty-cache"))
    parser.add_argument("--corpora", type=Path, default=Path("/tmp/corpora"))
    parser.add_argument("--pictures", type=Path, default=Path("pictures.npz"))
    parser.add_argument("--resamples", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1000, help="of the first resample")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=[], help="tasks")
    parser.add_argument("--methods", nargs="+", default=[], choices=METHODS, help="beside random and the default selector; all when not given")
    parser.add_argument("--budgets", nargs="+", type=int, default=list(BUDGETS))
    options = parser.parse_args()
    if options.cosine:
        prepare_without_store(options.corpora, options.cache, options.cosine, options.pictures)
        return
    if options.prepare:
        prepare(options.prepare, options.corpora, options.pictures)
        return
    methods = tuple(one for one in METHODS if not options.methods or one in ("random", DEFAULT, *options.methods))
    verdicts: Counter[tuple[str, str]] = Counter()
    pooled: dict[tuple[int, str], list[NDArray[np.float64]]] = {}
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as workers:
        for task in tasks_of(options.pictures):
            if options.only and task.name not in options.only:
                continue
            print(f"\n{task.name}: {len(task.ids):,} pictures, {len(set(task.copies.tolist())):,} groups of copies, {len(set(task.labels.tolist()))} categories", flush=True)
            for is_planted in (False, True):
                started = time.perf_counter()
                seeds = range(options.seed, options.seed + options.resamples)
                results = list(workers.map(_resample, [(task, is_planted, seed, options.budgets, methods) for seed in seeds]))
                for budget, method in results[0]:
                    rows = [one for one in results if (budget, method) in one]
                    if len(rows) < 3:
                        continue
                    values = np.array([one[budget, method] for one in rows])
                    base = np.array([one[budget, "random raw" if method.endswith(" raw") else "random"] for one in rows])
                    if len(rows) == len(results):
                        for one in (budget, ALL):
                            pooled.setdefault((one, method), []).append(values)
                    line = [f"{task.name:15} {'planted' if is_planted else '       '} {budget:4} {method:21}"]
                    for column, name in enumerate(FIGURES):
                        mean, wide = interval(values[:, column] - base[:, column])
                        line.append(f"{name} {values[:, column].mean():.3f}" + ("" if method.startswith("random") else f" ({mean:+.3f} ±{wide:.3f})"))
                        if method == DEFAULT:
                            gain = mean * BETTER[name]
                            verdicts[name, "ahead" if gain > wide else "behind" if gain < -wide else "level"] += 1
                            verdicts[name, "apart"] += gain > interval(values[:, column])[1] + interval(base[:, column])[1]
                            if gain < -wide:
                                line.append("BEHIND")
                    print("  ".join(line), flush=True)
                print(f"{'':15} {options.resamples} resamples in {time.perf_counter() - started:.0f} s", flush=True)
    print("\nmean over the lines above of a budget, and of all: each counts alike; intervals over resamples; * apart: the intervals of it and of random do not overlap")
    for budget, method in sorted(pooled, key=lambda one: (one[0], one[1].endswith(" raw"), METHODS.index(one[1].removesuffix(" raw")))):
        values, base = (np.mean(pooled[budget, one], axis=0) for one in (method, "random raw" if method.endswith(" raw") else "random"))
        line = [f"{len(pooled[budget, method]):2} lines {'all' if budget == ALL else budget:>4} {method:21}"]
        for column, name in enumerate(FIGURES):
            (mean, wide), (other, breadth) = interval(values[:, column]), interval(base[:, column])
            gain, width = interval(values[:, column] - base[:, column])
            apart = "*" if abs(mean - other) > wide + breadth else " "
            line.append(f"{name} {mean:.3f} ±{wide:.3f}" + ("" if method.startswith("random") else f" ({gain:+.3f} ±{width:.3f}){apart}"))
        print("  ".join(line))
    print(f"\n{DEFAULT} against random, without near-duplicates; lines of a task, planting and budget whose 95 % interval of the paired difference is above 0, spans it, or is below it:")
    for name in FIGURES:
        print(f"  {name:10} ahead {verdicts[name, 'ahead']:2}  level {verdicts[name, 'level']:2}  behind {verdicts[name, 'behind']:2};  of those ahead, with intervals of both that do not overlap {verdicts[name, 'apart']:2}")


if __name__ == "__main__":
    main()
