"""Whether two sets of vectors are of one distribution, by permutation, and how well a classifier tells them apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from discovery.errors import InvalidInput

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # times the median distance; what is right depends on what differs (Schrab et al. 2023)
FOLDS = 5
ROUNDING = 1e-12  # spread of a statistic whose values are equal
LEAST_ROWS = 10  # of each set: two in every fold
RIDGE = 0.003  # of the total variance; see `classifier_test`
MEDIAN_ROWS = 1000  # of both sets together, of whose distances the median is taken
COLUMNS_AT_ONCE = 256  # permutations that are computed together
Vectors = NDArray[np.float32]
Signs = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class KernelTest:
    """p_value: of the two sets being of one distribution. bandwidth: at which they differ most, in the units of the distances."""

    p_value: float
    bandwidth: float


@dataclass(frozen=True, slots=True)
class ClassifierTest:
    """auc: how often a classifier tells which is which, shown one of each set that it has not seen; .5 is guessing, 1 is always.

    low, high: its interval at 95 %. p_value: of guessing. towards_b: (n + m,) float64, for the rows of a and then of b how much each
    looks like one of b to a classifier that has not seen it; in standard deviations of all, larger is more like b.
    """

    auc: float
    low: float
    high: float
    p_value: float
    towards_b: NDArray[np.float64]


def two_sample_p(kernel: KernelTest, classifier: ClassifierTest) -> float:
    """The p-value of both tests together: twice the smaller one (Bonferroni), so a difference that either sees is seen."""
    return min(1.0, 2 * min(kernel.p_value, classifier.p_value))


def kernel_test(a: Vectors, b: Vectors, permutations: int, rng: np.random.Generator) -> KernelTest:
    """Maximum mean discrepancy with Gaussian kernels of five bandwidths, by permutation of the rows.

    a: (n, d), b: (m, d). The statistic of each bandwidth is standardised by its own permutations, the largest of the five is compared
    with the largest of each permutation: p = (1 + #{as large}) / (1 + permutations), so that P(p <= t) <= t for exchangeable rows. It
    sees differences of any kind: place, spread, modes. Memory: two float32 matrices of (n + m)². Raises InvalidInput for less than two
    rows, no permutation, or different widths. Sources: Gretton et al. 2012, "A kernel two-sample test"; Schrab et al. 2023, "MMD
    aggregated two-sample test", who take the largest over calibrated bandwidths.
    """
    _check(a, b, permutations, least=2)
    both = np.concatenate([a, b])
    squared = _squared_distances(both)
    some = rng.permutation(len(both))[:MEDIAN_ROWS]
    median = float(np.sqrt(np.median(squared[np.ix_(some, some)][np.triu_indices(len(some), 1)]))) or 1.0
    drawn = list(_labels(len(a), len(b), permutations, rng))
    highest, observed = np.full(1 + permutations, -np.inf), []
    for factor in BANDWIDTHS:
        kernel = np.exp(squared * np.float32(-0.5 / (factor * median) ** 2))
        kernel -= kernel.mean()  # signs add up to 0, so this changes nothing but rounding
        values = np.concatenate([np.einsum("ij,ij->j", signs, kernel @ signs, dtype=np.float64) for signs in drawn])
        spread = float(values.std())
        standard = (values - values.mean()) / spread if spread > ROUNDING else np.zeros(len(values))
        observed.append(float(standard[0]))
        highest = np.maximum(highest, standard)
    return KernelTest(_permutation_p(highest), BANDWIDTHS[int(np.argmax(observed))] * median)


def classifier_test(a: Vectors, b: Vectors, permutations: int, rng: np.random.Generator) -> ClassifierTest:
    """How well a linear classifier tells the sets apart, on rows that it was not fitted on (five folds).

    a: (n, d), b: (m, d), ten rows of each or more. The classifier is ridge regression on which set a row is of, which has the direction
    of a shrunk linear discriminant and, since the design does not depend on the labels, costs one product of matrices a permutation. Its
    ridge halves the weight of a direction with .3 % of the variance; of .0001 to .1, values around it had the highest AUC on real pictures.
    auc is the mean over the folds. Its interval is Newcombe's for the Mann-Whitney statistic (2006, method 5), which does not vanish at 1,
    widened by what permuted labels spread more than independent scores would: rows of other folds that a classifier was fitted on pull its
    errors to one side (of 200 pairs of equal sets of 50 and 70 pictures it held .5 in .82 without, see tests). p-value: labels permuted within the folds. Raises InvalidInput. Source: Lopez-Paz and Oquab 2017,
    "Revisiting classifier two-sample tests"; AUC instead of accuracy, so that sets of unequal size need no care.
    """
    _check(a, b, permutations, least=LEAST_ROWS)
    n, m = len(a), len(b)
    both = np.concatenate([a, b]).astype(np.float64)
    is_b = np.arange(n + m) >= n
    fold = np.empty(n + m, np.int64)
    fold[rng.permutation(n)], fold[n + rng.permutation(m)] = np.arange(n) % FOLDS, np.arange(m) % FOLDS
    labels = _labels_within(is_b, fold, permutations, rng)
    total, score = np.zeros(1 + permutations), np.empty(n + m)
    for number in range(FOLDS):
        held, rest = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        scores = _ridge_scores(both[rest], both[held], labels[rest])
        total += _auc(scores, labels[held])
        score[held] = (scores[:, 0] - scores[:, 0].mean()) / (float(scores[:, 0].std()) or 1.0)
    auc = total / FOLDS
    alone = np.sqrt((n + m + 1) / (12 * n * m))  # standard error of an AUC of .5 whose scores are independent
    low, high = auc_interval(float(auc[0]), n, m, 1.96 * max(1.0, float(auc.std() / alone)))
    return ClassifierTest(float(auc[0]), low, high, _permutation_p(auc), score)


def auc_interval(auc: float, n: int, m: int, z: float = 1.96) -> tuple[float, float]:
    """Both ends of the interval of an AUC of n against m rows: the values whose own standard error reaches to it.

    Source: Newcombe 2006, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic", part 2, method 5; the
    variance is Hanley and McNeil's with (n + m)/2 for both sizes.

    >>> [round(end, 3) for end in auc_interval(0.5, 100, 100)], [round(end, 3) for end in auc_interval(1.0, 20, 20)]
    ([0.421, 0.579], [0.899, 1.0])
    """
    size = (n + m) / 2

    def is_within(value: float) -> bool:
        spread = value * (1 - value) * (1 + (size - 1) * ((1 - value) / (2 - value) + value / (1 + value))) / (n * m)
        return bool(abs(value - auc) <= z * np.sqrt(spread))

    def end(outside: float) -> float:
        inside = auc
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if is_within(middle) else (inside, middle)
        return inside

    return end(0.0), end(1.0)


def _check(a: Vectors, b: Vectors, permutations: int, least: int) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < least or permutations < 1:
        raise InvalidInput(f"Expected at least {least} vectors of one width in each set and a permutation, found {a.shape}, {b.shape} and {permutations}.")


def _permutation_p(values: NDArray[np.float64]) -> float:
    """(1 + #{permuted >= observed}) / (1 + permutations), of values whose first is the observed one; equal up to rounding is equal."""
    return float((values >= values[0] - 1e-9 * max(1.0, abs(values[0]))).sum() / len(values))


def _squared_distances(rows: Vectors) -> NDArray[np.float32]:
    """(n, n) float32, from centred rows, whose norms are small beside what rounding would otherwise cost."""
    centred = (rows - rows.mean(axis=0, dtype=np.float64)).astype(np.float32)
    norms = np.einsum("id,id->i", centred, centred)
    found = centred @ centred.T
    found *= -2
    found += norms[:, None]
    found += norms
    np.maximum(found, 0, out=found)
    np.fill_diagonal(found, 0)
    return np.asarray(found, np.float32)


def _labels(n: int, m: int, permutations: int, rng: np.random.Generator) -> Iterator[Signs]:
    """(n + m, some) columns of 1/n and -1/m: first the sets as they are, then as permuted."""
    base = np.concatenate([np.full(n, 1 / n, np.float32), np.full(m, -1 / m, np.float32)])
    columns = [base]
    for _ in range(permutations):
        columns.append(rng.permutation(base))
        if len(columns) == COLUMNS_AT_ONCE:
            yield np.stack(columns, axis=1)
            columns = []
    if columns:
        yield np.stack(columns, axis=1)


def _labels_within(is_b: NDArray[np.bool_], fold: NDArray[np.int64], permutations: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(rows, 1 + permutations): which rows count as b; first as it is, then permuted within each fold, so that each keeps its numbers."""
    labels = np.repeat(is_b[:, None], 1 + permutations, axis=1)
    for number in range(FOLDS):
        mine = np.flatnonzero(fold == number)
        labels[mine, 1:] = rng.permuted(labels[mine, 1:], axis=0)
    return labels


def _ridge_scores(known: NDArray[np.float64], asked: NDArray[np.float64], labels: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(asked, columns) ridge regression of each column of labels on the known rows, at the asked rows."""
    mean = known.mean(axis=0)
    x, queries = known - mean, asked - mean
    target = labels - labels.mean(axis=0)
    variance = float((x * x).sum() / len(x)) or 1.0
    ridge = RIDGE * variance * len(x)
    if len(x) <= x.shape[1]:
        return np.asarray((queries @ x.T) @ np.linalg.solve(x @ x.T + ridge * np.eye(len(x)), target))
    return np.asarray(queries @ np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ target))


def _auc(scores: NDArray[np.float64], is_b: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(columns,) share of the pairs of one row of each set in which b's score is the higher one; ties count half."""
    from scipy.stats import rankdata  # the module takes two seconds to import

    ranks = rankdata(scores, axis=0)
    positives = is_b.sum(axis=0)
    return np.asarray(((ranks * is_b).sum(axis=0) - positives * (positives + 1) / 2) / (positives * (len(scores) - positives)))
