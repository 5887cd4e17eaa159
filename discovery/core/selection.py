"""Selection: which candidates make a collection of a given size. Adding a selector is a function and a line in SELECTORS.

Every selector is deterministic and independent of the order of the candidates: ties go to the smaller asset id.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from discovery.core.knn import exact_knn
from discovery.errors import InvalidInput

GRAPH_NEIGHBOURS = 32  # of the sparse similarity graph; what is farther contributes nothing to coverage
TRIMMED_SHARE = 0.05  # k-center without its 5 % of lowest density: junk picked falls from .75 to 0 (ALGORITHMS section 6)


@dataclass(frozen=True, slots=True)
class Candidates:
    """What can be chosen: n ids, (n, d) unit vectors, novelty (n,) with NaN for unknown, a quota category each, and which are members
    already (`preselected`: they cover, and are not among the picks)."""

    asset_ids: Sequence[str]
    vectors: NDArray[np.float32]
    novelty: NDArray[np.float64]
    categories: NDArray[np.object_] | None
    preselected: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Quotas:
    """Fewest and most members of a category; a category that is absent is unbounded."""

    minimum: dict[str, int] = field(default_factory=dict)
    maximum: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Selection:
    """Rows in the order picked, the gain of each, the objective reached, and a lower bound in [0, 1] on objective / optimum.

    The bound is NaN for selectors without one.
    """

    indices: NDArray[np.int64]
    gains: NDArray[np.float64]
    objective: float
    optimality_bound: float


Selector = Callable[[Candidates, int, Quotas | None, int], Selection]


def facility_location(candidates: Candidates, budget: int, quotas: Quotas | None, seed: int) -> Selection:
    """Members such that every candidate has a similar member: maximise the sum over candidates of the best similarity to a member.

    Similarity is cosine, 0 below 0 and beyond the 32 nearest. Lazy greedy reaches 1 - 1/e of the optimum (1/2 under quotas); the
    bound returned is for this very result: f(S) / (f(S) + sum of the `budget` largest gains left). Source: Nemhauser et al. 1978;
    lazy evaluation Minoux 1978. The seed is not used.
    """
    columns, similarity = _similarity_graph(candidates)
    n = len(candidates.asset_ids)
    covered = np.zeros(n)
    for row in np.flatnonzero(candidates.preselected).tolist():
        np.maximum.at(covered, columns[row], similarity[row])

    def gain(row: int) -> float:
        return float(np.maximum(similarity[row] - covered[columns[row]], 0.0).sum())

    def take(row: int) -> None:
        np.maximum.at(covered, columns[row], similarity[row])

    picks, gains = _lazy_greedy(candidates, budget, quotas, gain, take)
    reached = float(covered.sum())
    taken = set(picks)
    left = heapq.nlargest(budget, (gain(row) for row in range(n) if row not in taken and not candidates.preselected[row]))
    possible = reached + sum(left)
    return Selection(np.array(picks, np.int64), np.array(gains), reached, reached / possible if possible > 0 else 1.0)


def k_center(candidates: Candidates, budget: int, quotas: Quotas | None, seed: int) -> Selection:
    """Each pick the candidate farthest from all members so far, after the 5 % of lowest density are set aside.

    The gain is the distance at which it was picked, the objective the remaining coverage radius. Starts at the candidate of highest
    density. Twice the optimum radius at most on what was not trimmed (Gonzalez 1985), so no bound in our sense: NaN.
    """
    n = len(candidates.asset_ids)
    vectors = candidates.vectors
    k = min(10, n - 1)
    spread = exact_knn(vectors, vectors, k + 1)[1].mean(axis=1) if k else np.zeros(n, np.float32)
    by_density = sorted(range(n), key=lambda row: (float(spread[row]), candidates.asset_ids[row]))
    trimmed = set(by_density[n - int(TRIMMED_SHARE * n) :])
    distance = np.full(n, np.inf)
    for row in np.flatnonzero(candidates.preselected).tolist():
        distance = np.minimum(distance, 1.0 - vectors @ vectors[row])
    rank = np.empty(n, np.int64)
    rank[sorted(range(n), key=candidates.asset_ids.__getitem__)] = np.arange(n)
    allowed = _Allowance(candidates, quotas, budget)
    picks: list[int] = []
    gains: list[float] = []
    while len(picks) < budget:
        open_rows = [row for row in range(n) if row not in trimmed and allowed.has_room(row)]
        if not open_rows:
            break
        if not picks and not candidates.preselected.any():
            row = min(open_rows, key=lambda r: (float(spread[r]), candidates.asset_ids[r]))
        else:
            row = min(open_rows, key=lambda r: (-float(distance[r]), rank[r]))
        gains.append(float(distance[row]) if np.isfinite(distance[row]) else 2.0)
        allowed.take(row)
        picks.append(row)
        distance = np.minimum(distance, 1.0 - vectors @ vectors[row])
    kept = [row for row in range(n) if row not in trimmed]
    radius = float(distance[kept].max()) if kept and picks else float("nan")
    return Selection(np.array(picks, np.int64), np.array(gains), radius, float("nan"))


def most_novel(candidates: Candidates, budget: int, quotas: Quotas | None, seed: int) -> Selection:
    """The candidates of highest novelty; those without a score come last. Optimal for the sum of novelty, so the bound is 1."""
    score = np.where(np.isnan(candidates.novelty), -1.0, candidates.novelty)
    return _by_score(candidates, budget, quotas, [float(value) for value in score])


def random(candidates: Candidates, budget: int, quotas: Quotas | None, seed: int) -> Selection:
    """A uniform draw, by the hash of seed and asset id: the baseline. No bound: NaN."""
    draws = [
        int.from_bytes(hashlib.sha256(f"{seed}:{asset_id}".encode()).digest()[:7], "big") / 2**56
        for asset_id in candidates.asset_ids
    ]
    picked = _by_score(candidates, budget, quotas, draws)
    return Selection(picked.indices, picked.gains, picked.objective, float("nan"))


SELECTORS: dict[str, Selector] = {
    "facility_location": facility_location,
    "k_center": k_center,
    "most_novel": most_novel,
    "random": random,
}


class _Allowance:
    """What quotas still allow; minima are reserved, so that the budget cannot run out before they are met."""

    def __init__(self, candidates: Candidates, quotas: Quotas | None, budget: int) -> None:
        self.categories = candidates.categories if quotas is not None else None
        self.taken = set(np.flatnonzero(candidates.preselected).tolist())
        self.quotas = quotas or Quotas()
        self.budget = budget
        self.used = 0
        if self.categories is None:
            self.counts: Counter[str] = Counter()
            self.owed = 0
            return
        self.counts = Counter(str(self.categories[row]) for row in self.taken)
        present = Counter(str(value) for value in self.categories)
        for category, least in self.quotas.minimum.items():
            most = self.quotas.maximum.get(category, present[category])
            if least > min(present[category], most):
                raise InvalidInput(
                    f"Quota: {category!r} should have at least {least}, but {min(present[category], most)} are possible."
                )
        self.owed = sum(max(0, least - self.counts[category]) for category, least in self.quotas.minimum.items())
        if self.owed > budget:
            raise InvalidInput(
                f"Quotas ask for at least {self.owed} more members, the budget leaves {budget}. Raise it, or lower the minima."
            )

    def has_room(self, row: int) -> bool:
        """Whether the row may be taken now."""
        if row in self.taken:
            return False
        if self.categories is None:
            return True
        category = str(self.categories[row])
        count = self.counts[category]
        if count >= self.quotas.maximum.get(category, count + 1):
            return False
        return count < self.quotas.minimum.get(category, 0) or self.budget - self.used > self.owed

    def take(self, row: int) -> None:
        """Count the row as a member."""
        self.taken.add(row)
        self.used += 1
        if self.categories is not None:
            category = str(self.categories[row])
            if self.counts[category] < self.quotas.minimum.get(category, 0):
                self.owed -= 1
            self.counts[category] += 1


def _lazy_greedy(
    candidates: Candidates, budget: int, quotas: Quotas | None, gain: Callable[[int], float], take: Callable[[int], None]
) -> tuple[list[int], list[float]]:
    """Greedy for a submodular gain: an old gain is an upper bound, so only the top of the heap is computed again."""
    allowed = _Allowance(candidates, quotas, budget)
    ids = candidates.asset_ids
    heap = [(-gain(row), ids[row], row, 0) for row in range(len(ids)) if not candidates.preselected[row]]
    heapq.heapify(heap)
    waiting: list[tuple[float, str, int, int]] = []  # blocked only while minima of other categories are owed
    picks: list[int] = []
    gains: list[float] = []
    while len(picks) < budget and heap:
        entry = heapq.heappop(heap)
        _, asset_id, row, round_computed = entry
        if not allowed.has_room(row):
            if quotas is not None and allowed.owed:
                waiting.append(entry)
            continue
        if round_computed != len(picks):
            heapq.heappush(heap, (-gain(row), asset_id, row, len(picks)))
            continue
        gains.append(-entry[0])
        take(row)
        owed = allowed.owed
        allowed.take(row)
        picks.append(row)
        if waiting and allowed.owed < owed:
            _push_all(heap, waiting)
            waiting = []
    return picks, gains


def _push_all(heap: list[tuple[float, str, int, int]], entries: Iterable[tuple[float, str, int, int]]) -> None:
    for entry in entries:
        heapq.heappush(heap, entry)


def _by_score(candidates: Candidates, budget: int, quotas: Quotas | None, score: list[float]) -> Selection:
    """The highest scores within the quotas, minima first reserved."""
    picks, gains = _lazy_greedy(candidates, budget, quotas, score.__getitem__, lambda row: None)
    return Selection(np.array(picks, np.int64), np.array(gains), float(sum(gains)), 1.0)


def _similarity_graph(candidates: Candidates) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(n, k + 1) columns and non-negative similarities: itself first with 1, then its nearest candidates."""
    n = len(candidates.asset_ids)
    own = np.arange(n)[:, None]
    if n == 1:
        return own, np.ones((1, 1))
    ids = list(candidates.asset_ids)
    rows, distances = exact_knn(
        candidates.vectors, candidates.vectors, min(GRAPH_NEIGHBOURS, n - 1), query_ids=ids, reference_ids=ids
    )
    return np.concatenate([own, rows], axis=1), np.concatenate(
        [np.ones((n, 1)), np.maximum(1.0 - distances.astype(np.float64), 0.0)], axis=1
    )
