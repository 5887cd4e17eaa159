"""Labels looked at with the pictures: which contradict their neighbours, how classes are balanced, and what gives a label away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from discovery.core.binomial import share_lower_bound
from discovery.errors import InvalidInput

BINS = 16  # of a column of numbers, of equal counts
FOLDS = 5


@dataclass(frozen=True, slots=True)
class LabelDoubt:
    """Rows that are likely mislabelled, the surest first.

    rows: (m,) their places. margins: (m,) by how much more another label is expected of the picture than its own, of one-hot labels: 0 is undecided,
    1 as clear as can be. proposed: (m,) code of that label. threshold: margins of this and more are told. recall: share of labels that were swapped on purpose, one in
    twenty, that is told at it; it is over recall_lower_bound with a confidence of 95 %. of_all: (n,) the margin of every row.
    """

    rows: NDArray[np.int64]
    margins: NDArray[np.float64]
    proposed: NDArray[np.int64]
    threshold: float
    planted: int
    recall: float
    recall_lower_bound: float
    of_all: NDArray[np.float64]


class LabelModel:
    """What label the vectors expect, of each row by a ridge regression of one-hot labels on the vectors of all others.

    vectors: (n, d). groups: (n,) rows that share one (copies, a burst) count as one, by its first, and are left out together. In closed form
    (Allen 1974, PRESS): one eigendecomposition serves every row that is left out, every penalty, and every other labelling of the same pictures.
    """

    def __init__(self, vectors: NDArray[np.float32], groups: NDArray[np.int64]) -> None:
        self.speakers, self.group = np.unique(groups, return_index=True, return_inverse=True)[1:]
        rows = vectors.astype(np.float64) - vectors[self.speakers].astype(np.float64).mean(axis=0)
        spoken = rows[self.speakers]
        if len(spoken) <= spoken.shape[1]:
            power, axes = np.linalg.eigh(spoken @ spoken.T)
            kept = power > 1e-9 * max(float(power.max(initial=0.0)), 1e-12)
            axes = (spoken.T @ axes[:, kept]) / np.sqrt(power[kept])
        else:
            power, axes = np.linalg.eigh(spoken.T @ spoken)
            kept = power > 1e-9 * max(float(power.max(initial=0.0)), 1e-12)
            axes = axes[:, kept]
        self.power = power[kept]
        self.places = rows @ axes  # (n, r)

    def expected(self, codes: NDArray[np.int64], classes: int, penalty: float) -> NDArray[np.float64]:
        """(n, classes) how much each label is expected of a row, by all rows but those of its group; about 0 to 1, rows sum to about 1."""
        one_hot = np.eye(classes)[codes[self.speakers]]
        mean = one_hot.mean(axis=0)
        shrunk = self.places / (self.power + penalty)
        fitted = self.places @ (shrunk[self.speakers].T @ (one_hot - mean))
        own = self.speakers[self.group]
        shared = np.einsum("nr,nr->n", shrunk, self.places[own])  # how much the group's speaker says on the row
        lever = np.minimum(np.einsum("nr,nr->n", shrunk[self.speakers], self.places[self.speakers]), 1.0 - 1e-6)
        residual = (one_hot - mean - fitted[self.speakers]) / (1.0 - lever)[:, None]
        return np.asarray(fitted - shared[:, None] * residual[self.group] + mean)


PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0)
PLANTED_SHARE, ENOUGH_PLANTED, MOST_ROUNDS = 0.05, 200, 20
RECALL = 0.7  # of the swapped labels are told


def doubtful_labels(
    vectors: NDArray[np.float32], codes: NDArray[np.int64], groups: NDArray[np.int64], rng: np.random.Generator
) -> LabelDoubt:
    """Rows that are likely mislabelled: of which the pictures that are not copies of them expect another label, clearly.

    vectors: (n, d) finite. codes: (n,) labels, 0 to c - 1. groups: as of `LabelModel`. The penalty is the one by which most labels are told right. How clearly is
    calibrated on the same pictures: one label in twenty is swapped for another (as common as labels are), in as many rounds as make 200 swaps, at most 20; the
    threshold is the margin that 70 % of the swaps reach. So where classes are told apart well little is told beside what is wrong, and where they are
    not, much is: the ranking is what counts then. Needs 20 rows and two labels, else nothing is told.

    Source of the idea that a model that has not seen a row judges its label: Northcutt, Jiang and Chuang 2021, "Confident learning". By votes of neighbours, and by their
    thresholds, less is found: benchmarks/label_errors.py compares.
    """
    n, classes = len(codes), int(codes.max(initial=-1)) + 1
    if len(vectors) != n or len(groups) != n:
        raise InvalidInput(f"Expected a vector, a label and a group for each row, found {len(vectors)}, {n}, {len(groups)}.")
    none = np.zeros(0, np.int64)
    if n < 20 or classes < 2:
        return LabelDoubt(none, np.zeros(0), none, np.inf, 0, 0.0, 0.0, np.zeros(n))
    model = LabelModel(vectors, groups)
    right = [float((model.expected(codes, classes, penalty).argmax(axis=1) == codes).mean()) for penalty in PENALTIES]
    penalty = PENALTIES[int(np.argmax(right))]

    swaps = max(1, round(PLANTED_SHARE * n))
    margins, is_swapped = [], []
    for _ in range(min(MOST_ROUNDS, -(-ENOUGH_PLANTED // swaps))):
        given = codes.copy()
        for row in rng.choice(n, swaps, replace=False):
            others = codes[codes != codes[row]]
            given[row] = others[rng.integers(len(others))]
        margins.append(_margins(model.expected(given, classes, penalty), given)[0])
        is_swapped.append(given != codes)
    found, truth = np.concatenate(margins), np.concatenate(is_swapped)
    threshold = max(float(np.quantile(found[truth], 1.0 - RECALL, method="lower")), 0.0)
    planted, hits = int(truth.sum()), int((found[truth] >= threshold).sum())

    margin, proposed = _margins(model.expected(codes, classes, penalty), codes)
    rows = np.flatnonzero((margin >= threshold) & (margin > 0))
    rows = rows[np.lexsort((rows, -margin[rows]))].astype(np.int64)
    return LabelDoubt(rows, margin[rows], proposed[rows], threshold, planted, hits / planted, share_lower_bound(hits, planted), margin)


def _margins(expected: NDArray[np.float64], codes: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(n,) the most that another label is expected, minus what the row's own is, and the code of the other."""
    each = np.arange(len(codes))
    others = expected.copy()
    others[each, codes] = -np.inf
    proposed = others.argmax(axis=1)
    return others[each, proposed] - expected[each, codes], proposed.astype(np.int64)


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
