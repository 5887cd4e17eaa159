"""Likely mislabels of real pictures: how many of the planted ones are found, and how many of those that are told are planted.

    python -m benchmarks.label_errors STORE [--column label] [--peer-python VENV/bin/python]

STORE: a root whose newest index or embedding set holds labelled pictures (`discovery run list.csv --no-curate`, a list with a column of labels). A share of
the labels is replaced, each by another label drawn by how common it is; the vectors stay. Copies vote once. Compared, on the same rows:

  ours          core.labels: a ridge regression without the row, told from the margin on that 70 % of swapped labels reach (what check_collection does)
  neighbours    the label with most of the distance-weighted votes of 10 neighbours is another one: what a plain k-NN check tells
  cleanlab kNN  cleanlab's find_label_issues (prune_by_noise_rate, its default) on the same votes
  cleanlab LR   the same on out-of-sample probabilities of a logistic regression (5 folds, grouped; of the first seed alone), its usual recipe

The figure is precision and recall of what is told, and average precision of the ranking: by ours' margin, by the votes for the given label, by cleanlab's label quality. "Planted" is the truth here: the pictures' own mislabels and
ambiguous ones count as false, so precision is a lower bound.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

NEIGHBOURS, SEEDS, SHARES, SMALLEST = 10, 3, (0.0, 0.02, 0.05, 0.1), 10
PEER = """
import json, sys, warnings
import numpy as np
warnings.simplefilter("ignore")
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
found = np.load(sys.argv[1])
answers = {}
for name in [n for n in found.files if n.startswith("given")]:
    given, votes = found[name], found[name.replace("given", "votes")]
    votes = (votes + 1e-6) / (votes + 1e-6).sum(axis=1, keepdims=True)
    pairs = [("kNN", votes)]
    if name.endswith("-0"):
        model = LogisticRegression(C=1.0, max_iter=100)
        pairs.append(("LR", cross_val_predict(model, found["vectors"], given, groups=found["groups"], cv=GroupKFold(5), method="predict_proba")))
    for kind, probabilities in pairs:
        told = find_label_issues(given, probabilities, n_jobs=1)
        quality = get_label_quality_scores(given, probabilities)
        answers[f"{kind} {name}"] = {"told": np.flatnonzero(told).tolist(), "score": (1 - quality).tolist()}
json.dump(answers, open(sys.argv[2], "w"))
"""


def labelled(root: str, column: str) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray]:
    """(n, d) vectors, (n,) codes, the labels' names, and (n,) groups of copies, of all pictures of a store with a label of at least ten pictures."""
    from discovery.config import Config
    from discovery.stages.batch_table import batch_table
    from discovery.stages.history import members_of
    from discovery.stages.shards import load_vectors
    from discovery.types import DuplicateReport, EmbeddingSet, Manifest
    from discovery.workspace import open_workspace

    with open_workspace(Config(root=root), map_shards=map) as ws:
        embedded = ws.catalog.records(EmbeddingSet.stage)[0]
        assert isinstance(embedded, EmbeddingSet)
        manifest = ws.store.load_record(Manifest, embedded.manifest_id)
        assert manifest is not None
        ids = sorted(members_of([embedded], ws))
        labels = batch_table(manifest, ids, None, ws)[column].to_pylist()
        _, vectors = load_vectors([embedded], ws)
        component = dict.fromkeys(ids)
        for report in ws.catalog.records(DuplicateReport.stage)[:1]:
            table = ws.store.read_table(report, columns=["asset_id", "component_id"])
            component |= dict(zip(table["asset_id"].to_pylist(), table["component_id"].to_pylist(), strict=True))
    names, counts = np.unique([str(label) for label in labels], return_counts=True)
    kept = sorted(str(name) for name, count in zip(names, counts, strict=True) if count >= SMALLEST)
    rows = [row for row, label in enumerate(labels) if str(label) in kept]
    codes = np.array([kept.index(str(labels[row])) for row in rows])
    _, groups = np.unique([component[ids[row]] or ids[row] for row in rows], return_inverse=True)
    return vectors[rows], codes, kept, groups


def votes_of(vectors: np.ndarray, codes: np.ndarray, groups: np.ndarray, classes: int) -> np.ndarray:
    """(n, classes) votes of the neighbours, of each group one."""
    from discovery.core.knn import exact_knn
    from discovery.core.labels import label_votes

    speakers = np.unique(groups, return_index=True)[1]
    names = [str(group) for group in groups]
    rows, distances = exact_knn(vectors, vectors[speakers], NEIGHBOURS, query_ids=names, reference_ids=[names[row] for row in speakers])
    return label_votes(codes[speakers][rows], distances, classes)


def planted(codes: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Labels with a share of them replaced by another one."""
    given = codes.copy()
    for row in rng.choice(len(codes), round(share * len(codes)), replace=False):
        other = codes[rng.permutation(len(codes))]
        given[row] = other[other != codes[row]][0]
    return given


def average_precision(score: np.ndarray, truth: np.ndarray) -> float:
    """Of the ranking by score, ties in the order of rows."""
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(truth[order])
    return float((hits / np.arange(1, len(order) + 1))[truth[order]].mean())


def main() -> None:
    """Print a row for each share and method: means over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--column", default="label")
    parser.add_argument("--peer-python", default="")
    options = parser.parse_args()
    from discovery.core.labels import doubtful_labels

    vectors, codes, names, groups = labelled(options.store, options.column)
    print(f"{len(codes)} pictures, {len(names)} labels, {len(np.unique(groups))} groups; k {NEIGHBOURS}, {SEEDS} seeds")
    arrays: dict[str, np.ndarray] = {"vectors": vectors, "groups": groups}
    told: dict[tuple[float, str], list[tuple[float, float, float, int]]] = {}
    truths: dict[str, tuple[float, np.ndarray]] = {}

    def enter(share: float, method: str, rows: np.ndarray, score: np.ndarray, truth: np.ndarray) -> None:
        hits = float(truth[rows].sum())
        ranking = average_precision(score, truth) if truth.any() else 0.0
        told.setdefault((share, method), []).append((hits / max(len(rows), 1), hits / max(truth.sum(), 1), ranking, len(rows)))

    for share in SHARES:
        for seed in range(SEEDS):
            given = planted(codes, share, np.random.default_rng(seed))
            truth = given != codes
            votes = votes_of(vectors, given, groups, len(names))
            support = votes[np.arange(len(given)), given]
            found = doubtful_labels(vectors, given, groups, np.random.default_rng(seed))
            enter(share, "ours", found.rows, found.of_all, truth)
            enter(share, "neighbours", np.flatnonzero(votes.argmax(axis=1) != given), 1 - support, truth)
            key = f"given{share}-{seed}"
            arrays |= {key: given, key.replace("given", "votes"): votes}
            truths[key] = (share, truth)
    if options.peer_python:
        with tempfile.TemporaryDirectory() as folder:
            np.savez(Path(folder, "in.npz"), **arrays)
            subprocess.run([options.peer_python, "-c", PEER, str(Path(folder, "in.npz")), str(Path(folder, "out.json"))], check=True, stderr=sys.stderr)
            for key, answer in json.loads(Path(folder, "out.json").read_text()).items():
                kind, _, name = key.partition(" ")
                share, truth = truths[name]
                enter(share, f"cleanlab {kind}", np.array(answer["told"], int), np.array(answer["score"]), truth)
    print(f"{'planted':>8}  {'method':<13} {'told':>6} {'precision':>10} {'recall':>7} {'AP':>6}")
    for (share, method), rows in sorted(told.items()):
        precision, recall, ranking, count = np.mean(rows, axis=0)
        print(f"{share:8.0%}  {method:<13} {count:6.0f} {precision:10.3f} {recall:7.3f} {ranking:6.3f}")


if __name__ == "__main__":
    main()
