"""Labels looked at with the pictures: which contradict their neighbours, how classes are balanced, and what gives a label away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from discovery.errors import InvalidInput

BINS = 16  # of a column of numbers, of equal counts
FOLDS = 5


@dataclass(frozen=True, slots=True)
class LabelDoubt:
    """Rows whose neighbours speak for another label, the least supported first.

    rows: (m,) their places. support: (m,) share of the neighbours' votes for the given label. proposed: (m,) code of the label that the neighbours
    have most; share: (m,) of their votes.
    """

    rows: NDArray[np.int64]
    support: NDArray[np.float64]
    proposed: NDArray[np.int64]
    share: NDArray[np.float64]


def label_votes(
    neighbour_codes: NDArray[np.int64], distances: NDArray[np.float32], classes: int
) -> NDArray[np.float64]:
    """(n, classes) share of the votes that each label gets from the neighbours of a row; rows sum to 1, or to 0 where there are no neighbours.

    neighbour_codes: (n, k) labels of the neighbours as 0 to classes - 1, -1 where there is none (or none with a label). distances: (n, k)
    cosine distances, ascending. The nearest counts 1, one at twice its distance a half: w = nearest / distance, after Dudani 1976 ("The
    distance-weighted k-nearest-neighbor rule") in that nearer ones count more, without his zero weight for the k-th.

    >>> label_votes(np.array([[0, 1, 1]]), np.array([[0.1, 0.2, 0.2]], np.float32), 2).tolist()
    [[0.5, 0.5]]
    """
    weights = np.where(neighbour_codes >= 0, 1.0, 0.0)
    near = np.maximum(np.where(neighbour_codes >= 0, distances, np.inf).astype(np.float64), 1e-6)
    nearest = near.min(axis=1, keepdims=True) if near.shape[1] else near
    weights *= np.where(np.isfinite(near), np.where(np.isfinite(nearest), nearest, 0.0) / np.where(np.isfinite(near), near, 1.0), 0.0)
    votes = np.zeros((len(neighbour_codes), classes))
    each = np.repeat(np.arange(len(neighbour_codes)), neighbour_codes.shape[1])
    known = neighbour_codes.ravel() >= 0
    np.add.at(votes, (each[known], neighbour_codes.ravel()[known]), weights.ravel()[known])
    total = votes.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(votes, total, out=np.zeros_like(votes), where=total > 0))


def doubtful_labels(codes: NDArray[np.int64], votes: NDArray[np.float64]) -> LabelDoubt:
    """Rows that are likely mislabelled, by confident learning on the neighbours' votes.

    codes: (n,) given labels, 0 to c - 1; -1 for none, which is never in doubt. votes: (n, c) of `label_votes`, in which a row has no say on itself.
    A class has the threshold that its own rows reach on average; a row is in doubt when it reaches that of another class, does so
    by the largest vote among those it reaches, and its own label has fewer votes. So a class that its pictures
    support poorly, because it is hard, puts no others in doubt by a single neighbour. Source: Northcutt, Jiang and Chuang 2021, "Confident learning:
    estimating uncertainty in dataset labels"; theirs takes a classifier's probabilities, out of sample as these are.

    >>> votes = np.array([[1.0, 0.0], [0.9, 0.1], [0.1, 0.9], [0.2, 0.8]])
    >>> doubtful_labels(np.array([0, 0, 0, 1]), votes).rows.tolist()
    [2]
    """
    n, classes = votes.shape
    if len(codes) != n or (n and codes.max(initial=-1) >= classes):
        raise InvalidInput(f"Expected a code under {classes} for each of {n} rows, found {len(codes)} with {codes.max(initial=-1)}.")
    has_label = (codes >= 0) & (votes.sum(axis=1) > 0)
    own = np.where(has_label, votes[np.arange(n), np.maximum(codes, 0)], 0.0)
    members = np.bincount(codes[has_label], minlength=classes)
    sums = np.bincount(codes[has_label], weights=own[has_label], minlength=classes)
    threshold = np.where(members > 0, sums / np.maximum(members, 1), np.inf)
    reached = np.where((votes >= np.maximum(threshold, 1e-9)), votes, -1.0)
    reached[np.arange(n), np.maximum(codes, 0)] = -1.0
    proposed = reached.argmax(axis=1) if classes else np.zeros(n, np.int64)
    share = reached.max(axis=1, initial=-1.0)
    rows = np.flatnonzero(has_label & (share > own))
    order = np.lexsort((rows, -share[rows], own[rows]))
    rows = rows[order]
    return LabelDoubt(rows.astype(np.int64), own[rows], proposed[rows].astype(np.int64), share[rows])


@dataclass(frozen=True, slots=True)
class ClassBalance:
    """counts: members of each class. imbalance: largest over smallest. effective: exp of the entropy, the number of equal classes as diverse."""

    counts: dict[str, int]
    imbalance: float
    effective: float


def class_balance(labels: Sequence[str]) -> ClassBalance:
    """How many members each class has.

    >>> class_balance(["a", "a", "b", "b"]).effective, class_balance(["a", "a", "a", "b"]).imbalance
    (2.0, 3.0)
    """
    names, found = np.unique(np.asarray(labels, object).astype(str), return_counts=True) if len(labels) else (np.array([]), np.array([], int))
    counts = {str(name): int(count) for name, count in zip(names, found, strict=True)}
    if not counts:
        return ClassBalance({}, 1.0, 0.0)
    share = found / found.sum()
    return ClassBalance(counts, float(found.max() / found.min()), float(np.round(np.exp(-(share * np.log(share)).sum()), 9)))


def contradictions(groups: Sequence[str], labels: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Groups of copies that carry more than one label, with their labels.

    >>> contradictions(["g", "g", "h"], ["cat", "dog", "cat"])
    {'g': ('cat', 'dog')}
    """
    found: dict[str, set[str]] = {}
    for group, label in zip(groups, labels, strict=True):
        found.setdefault(group, set()).add(label)
    return {group: tuple(sorted(names)) for group, names in sorted(found.items()) if len(names) > 1}


@dataclass(frozen=True, slots=True)
class Leak:
    """How well one column tells the label. skill: 0 as good as always saying the most common label, 1 always right."""

    column: str
    accuracy: float
    skill: float
    p_value: float


def label_leaks(
    codes: NDArray[np.int64], columns: Mapping[str, NDArray[np.float64]], groups: NDArray[np.int64], rng: np.random.Generator,
    rounds: int = 199,
) -> list[Leak]:  # fmt: skip
    """How well each column alone tells the label of rows that it was not learnt from, the best first.

    codes: (n,) labels, 0 to c - 1. columns: each (n,) numbers, NaN for none, which is a value like another; categories as codes. groups: (n,) rows that
    share one (copies, a burst, a video) are in the same fold. A column is cut into at most 16 bins of equal counts, each of which says the label that is most common
    in it in the other four fifths: an accuracy out of sample. skill = (accuracy - most common) / (1 - most common), so that a rare class that is given away counts
    in a collection that is unbalanced. p_value: of the skill under shuffled labels, against the best column of each shuffle
    (Westfall and Young 1993, max T), so it is corrected for the number of columns; at least 1 / (rounds + 1). Labels are shuffled by group. What two
    columns tell only together is not seen.

    >>> codes = np.arange(200) % 2
    >>> leaks = label_leaks(codes, {"format": codes.astype(float), "size": np.arange(200) // 2 + 0.0}, np.arange(200), np.random.default_rng(0))
    >>> leaks[0].column, leaks[0].skill, leaks[0].p_value, leaks[1].p_value > 0.05
    ('format', 1.0, 0.005, True)
    """
    n = len(codes)
    classes = int(codes.max(initial=-1)) + 1
    if classes < 2 or not columns or len(np.unique(groups)) < 2 * FOLDS:
        return []
    _, group = np.unique(groups, return_inverse=True)
    fold = rng.permutation(int(group.max()) + 1)[group] % FOLDS
    names = list(columns)
    cells = [_cells(np.asarray(columns[name], np.float64)) for name in names]
    most_common = np.bincount(codes, minlength=classes).max() / n

    def accuracies(labels: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.array([_accuracy(cell, labels, fold, classes) for cell in cells])

    found = accuracies(codes)
    first = np.unique(group, return_index=True)[1]
    best = np.empty(rounds)
    for turn in range(rounds):
        best[turn] = accuracies(codes[first][rng.permutation(len(first))][group]).max()
    leaks = [
        Leak(
            name, float(accuracy), float((accuracy - most_common) / max(1.0 - most_common, 1e-12)),
            float((1 + (best >= accuracy - 1e-12).sum()) / (rounds + 1)),
        )
        for name, accuracy in zip(names, found, strict=True)
    ]  # fmt: skip
    return sorted(leaks, key=lambda leak: (-leak.skill, leak.column))


def _cells(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of each value: each distinct one when they are few, else bins of equal counts; NaN has its own."""
    known = np.isfinite(values)
    distinct = np.unique(values[known])
    if len(distinct) > BINS:
        distinct = np.unique(np.quantile(values[known], np.arange(1, BINS) / BINS))
        return np.where(known, np.searchsorted(distinct, values, side="right"), BINS).astype(np.int64)
    return np.where(known, np.searchsorted(distinct, values), BINS).astype(np.int64)


def _accuracy(cells: NDArray[np.int64], codes: NDArray[np.int64], fold: NDArray[np.int64], classes: int) -> float:
    """Share of rows that the most common label of their bin in the other folds tells; an empty bin says the most common label of all there."""
    table = np.bincount((fold * (BINS + 1) + cells) * classes + codes, minlength=FOLDS * (BINS + 1) * classes).reshape(FOLDS, BINS + 1, classes)
    others = table.sum(axis=0)[None] - table
    said = np.where(others.sum(axis=2) > 0, others.argmax(axis=2), others.sum(axis=1).argmax(axis=1)[:, None])
    return float((said[fold, cells] == codes).mean())
