"""Selection: which candidates make a collection of a given size. Adding a selector is a function and a line in SELECTORS.

Every selector is deterministic and independent of the order of the candidates, of the machine and of the number of threads: similarities
are whole numbers (core.lattice), and ties go to the smaller asset id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from heapq import heappop, heappush, heapreplace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from discovery.core.lattice import WHOLE, cosine, cosine_distance, on_lattice
from discovery.core.neighbour_graph import Covering, Neighbours, evenly, kmeans, nearest_centres, neighbours_of
from discovery.core.quotas import NO_LIMIT, Allowance, Limits, Quota, coded
from discovery.core.splits import largest_remainder
from discovery.errors import InvalidInput

GRAPH_NEIGHBOURS = 32  # of the sparse similarity graph; what is farther contributes nothing to coverage
MOST_NEIGHBOURS = 256  # where the budget is small
MOST_ENTRIES = 1 << 26  # neighbours of all candidates together, 8 bytes each, and thrice that in the symmetric graph
LONELY_NEIGHBOURS = 10  # by which a candidate's weight is told
UNIT = 256  # weight of the median candidate
LEAST_WEIGHT, MOST_WEIGHT = UNIT // 16, 4 * UNIT
TRIMMED_SHARE = 0.05  # k-center without its 5 % of lowest density: junk picked falls from .75 to 0 (ALGORITHMS section 6)
MOST_CLUSTERS = 500  # of `typical`, as Hacohen et al. have it
CHECKPOINTS = 8  # sizes at which the optimum is bounded; the least bound counts
BLOCK = 1 << 16  # rows whose first gains are summed at once


@dataclass(frozen=True)
class Candidates:
    """What can be chosen: n ids, (n, d) unit vectors, novelty (n,) with NaN for unknown, and which are members already.

    preselected: (n,) they cover, count for quotas, and are not among the picks. size_bytes: (n,) int64, for a budget in bytes. strata: (n,) the
    column that `stratified` draws by. threads: that look for neighbours; what is picked does not depend on them.
    """

    asset_ids: Sequence[str]
    vectors: NDArray[np.float32]
    novelty: NDArray[np.float64]
    preselected: NDArray[np.bool_]
    size_bytes: NDArray[np.int64] | None = None
    strata: NDArray[np.object_] | None = None
    threads: int = 1
    _wider: dict[int, Neighbours] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.asset_ids)

    @cached_property
    def neighbours(self) -> Neighbours:
        """The 32 nearest of each."""
        return neighbours_of(self.vectors, GRAPH_NEIGHBOURS, threads=self.threads)

    def neighbours_for(self, budget: int) -> Neighbours:
        """Those nearest ones of each that coverage is counted on: twice as many as a member stands for on average; at least 32, and no more than memory allows."""
        k = min(MOST_NEIGHBOURS, 2 * len(self) // max(budget, 1), MOST_ENTRIES // max(len(self), 1))
        if k <= GRAPH_NEIGHBOURS:
            return self.neighbours
        if k not in self._wider:
            self._wider.clear()
            self._wider[k] = neighbours_of(self.vectors, k, threads=self.threads)
        return self._wider[k]

    @property
    def graph_recall(self) -> float | None:
        """Share of the true neighbours that the graphs have which were made so far; None before the first."""
        made = [*self._wider.values(), *([self.neighbours] if "neighbours" in self.__dict__ else [])]
        return min((graph.recall for graph in made), default=None)

    @cached_property
    def lattice(self) -> NDArray[np.float32]:
        """The vectors, rounded so that their products are exact."""
        return on_lattice(self.vectors)

    def take(self, rows: NDArray[np.int64]) -> Candidates:
        """Some of them, in this order."""
        return Candidates(
            [self.asset_ids[row] for row in rows], self.vectors[rows], self.novelty[rows], self.preselected[rows],
            None if self.size_bytes is None else self.size_bytes[rows], None if self.strata is None else self.strata[rows], self.threads,
        )  # fmt: skip

    def sized(self) -> NDArray[np.int64]:
        """Bytes of each, 0 where they were not given."""
        return np.zeros(len(self), np.int64) if self.size_bytes is None else self.size_bytes


@dataclass(frozen=True, slots=True)
class Options:
    """What a selector is told. seed: of its draws. clusters: of `cluster_balanced`, 0 for a number by the budget. is_equal: every stratum gets
    as many as another, instead of its share."""

    seed: int = 7
    clusters: int = 0
    is_equal: bool = False


@dataclass(frozen=True, slots=True)
class Selection:
    """Rows in the order picked, the gain of each, the objective reached, and a lower bound in [0, 1] on objective / optimum.

    The bound is NaN for selectors without one. set_aside: rows that were not considered, by the selector's own rule. left: (n,) what each row
    would still add to the objective, NaN for selectors that do not know.
    """

    indices: NDArray[np.int64]
    gains: NDArray[np.float64]
    objective: float
    optimality_bound: float
    set_aside: NDArray[np.int64]
    left: NDArray[np.float64]


Selector = Callable[[Candidates, Allowance, Options], Selection]


def select(
    method: str, candidates: Candidates, limits: Limits, quotas: Sequence[Quota] = (), options: Options | None = None
) -> Selection:
    """Members by the selector `method` of SELECTORS, within the limits and quotas.

    Raises InvalidInput when the minima of quotas cannot be met, with what could be.
    """
    if any(one > next_ for one, next_ in pairwise(candidates.asset_ids)):
        order = np.argsort(np.asarray(candidates.asset_ids, dtype=np.str_), kind="stable")
        ordered = [quota.of(order) for quota in quotas]
        found = select(method, candidates.take(order), limits, ordered, options)
        left = np.empty(len(order))
        left[order] = found.left
        return Selection(order[found.indices], found.gains, found.objective, found.optimality_bound, order[found.set_aside], left)
    allowed = Allowance(len(candidates), candidates.preselected, limits, quotas, candidates.size_bytes)
    found = SELECTORS[method](candidates, allowed, options or Options())
    members = candidates.preselected.copy()
    members[found.indices] = True
    if said := allowed.unmet(members):
        within = f" within {limits.bytes:,} bytes" if allowed.is_sized else ""
        raise InvalidInput(f"Selector {method} ended{within} before the minima of quotas were met: {said}. Lower the minima, or take another selector.")
    return found


def facility_location(candidates: Candidates, allowed: Allowance, options: Options) -> Selection:
    """Members such that every candidate has a similar member: maximise the sum over candidates of weight times the best similarity to a member.

    Similarity is cosine, 0 below 0 and for pairs of which neither is among the nearest of the other: 32, or twice the candidates a member, at most 256.
    The weight is the mean distance to the 10 nearest as a multiple of the median candidate's, at most 4: so what is rare counts for more than one of many
    that are alike; without weights rare categories are hit no more than by chance (benchmarks/results/curation_gain.txt). Greedy reaches 1 - 1/e of the
    optimum, 1/(1 + p) under quotas by p columns, and with a budget in bytes half of 1 - 1/e (the better of greedy by gain and by gain a byte).
    The bound returned is for this very result: f(S) over the least of f(T) + the best that `budget` rows could still add to T, over
    nine T on the way. Sources: Nemhauser et al. 1978; lazy evaluation Minoux 1978; bytes and bound Leskovec et al. 2007, "Cost-effective outbreak detection
    in networks".
    """
    members = _expected(candidates, allowed)
    neighbours = candidates.neighbours_for(members)
    weight = weights(neighbours)
    best: Selection | None = None
    by_cost = (False, True) if allowed.is_sized else (False,)
    limits = Limits(allowed.left, allowed.bytes_left)
    for is_by_cost in by_cost:
        fresh = Allowance(len(candidates), candidates.preselected, limits, allowed.quotas, candidates.size_bytes)
        cover = _Cover(neighbours.covering, weight, candidates.preselected)
        bound = _Bound(cover, limits, fresh, candidates)
        picks, gains = _greedy(cover, fresh, candidates.sized() if is_by_cost else None, bound, max(1, members // CHECKPOINTS))
        bound.look(cover)
        reached = int(cover.covered.sum())
        left = np.where(fresh.taken, 0, cover.gains)
        ratio = reached / bound.optimum if bound.optimum > 0 else 1.0
        found = Selection(
            np.array(picks, np.int64), cosine(np.array(gains, np.int64)) / UNIT, float(cosine(reached)) / UNIT, min(ratio, 1.0), _none(), cosine(left) / UNIT
        )  # fmt: skip
        if best is None or found.objective > best.objective:
            best = found
    assert best is not None
    return best


def k_center(candidates: Candidates, allowed: Allowance, options: Options) -> Selection:
    """Each pick the candidate farthest from all members so far, after the 5 % of lowest density are set aside, but for what only they can give a minimum.

    The gain is the cosine distance at which it was picked, the objective the remaining coverage radius. Starts at the candidate of highest
    density. Twice the optimum radius at most on what was not trimmed (Gonzalez 1985), so no bound in our sense: NaN. Costs a pass over
    all vectors a pick.
    """
    n, rows = len(candidates), candidates.lattice
    density = candidates.neighbours.density()
    trimmed = np.lexsort((np.arange(n), -density))[n - int(TRIMMED_SHARE * n) :]
    trimmed = trimmed[~candidates.preselected[trimmed]]
    is_kept = np.ones(n, bool)
    is_kept[trimmed] = False
    distance = np.full(n, np.float32(2.0))  # on the lattice
    for row in np.flatnonzero(candidates.preselected).tolist():
        distance = np.minimum(distance, 1.0 - rows @ rows[row])
    picks: list[int] = []
    gains: list[float] = []

    def take(row: int) -> None:
        nonlocal distance
        is_kept[row] = True
        gains.append(float(distance[row]))
        allowed.take(row)
        picks.append(row)
        distance = np.minimum(distance, 1.0 - rows @ rows[row])

    while (is_open := allowed.mask() & is_kept).any():
        far = distance if picks or candidates.preselected.any() else density
        row = int(np.argmax(np.where(is_open, far, -1)))
        if allowed.has_room(row):
            take(row)
    for row in trimmed.tolist():  # the densest first
        if not allowed.is_met and allowed.is_owed()[row] and allowed.has_room(row):
            take(row)
    told = np.minimum(cosine_distance(distance), 2.0)
    radius = float(told[is_kept].max()) if picks else float("nan")
    return Selection(
        np.array(picks, np.int64), np.minimum(cosine_distance(np.array(gains, np.float32)), 2.0), radius, float("nan"),
        np.sort(trimmed[~is_kept[trimmed]]), told,
    )  # fmt: skip


def most_novel(candidates: Candidates, allowed: Allowance, options: Options) -> Selection:
    """The candidates of highest novelty; those without a score come last, and count 0.

    Within quotas by one column that is optimal for the sum of novelty (the sets that they allow are a matroid), so the bound is 1; else, and when
    one without a score is picked, NaN.
    """
    score = candidates.novelty
    found = _by_rank(candidates, allowed, np.lexsort((np.arange(len(score)), -np.where(np.isnan(score), -np.inf, score))), score)
    is_optimal = len(allowed.quotas) < 2 and not allowed.is_sized and (found.gains >= 0).all()
    return replace(found, objective=float(np.nansum(found.gains)), optimality_bound=1.0 if is_optimal else float("nan"))


def cluster_balanced(candidates: Candidates, allowed: Allowance, options: Options) -> Selection:
    """As many from each cluster as from another, drawn within it: what is common gives no more members than what is rare.

    Clusters are k-means in cosine, as many as `options.clusters`, or the square root of ten times the budget. A cluster with fewer gives all.
    No bound: NaN. Source: Vo et al. 2024, "Automatic data curation for self-supervised learning", with one level.
    """
    wanted = options.clusters or max(2, int((10 * allowed.left) ** 0.5))
    home = _clusters(candidates, min(wanted, MOST_CLUSTERS * 8))
    draws = _draws(candidates, options.seed)
    return _in_turn(candidates, allowed, home, draws)


def typical(candidates: Candidates, allowed: Allowance, options: Options) -> Selection:
    """The densest of each cluster in turn, the largest cluster first: what a beginner's set should show.

    Clusters are k-means in cosine, as many as the budget, at most 500; density is the mean similarity to the 20 nearest. No bound: NaN. Source:
    Hacohen et al. 2022, "Active learning on a budget: opposite strategies suit high and low budgets" (TypiClust).
    """
    home = _clusters(candidates, min(max(allowed.left, 1), MOST_CLUSTERS))
    return _in_turn(candidates, allowed, home, -candidates.neighbours.density(20).astype(np.float64))


def stratified(candidates: Candidates, allowed: Allowance, options: Options) -> Selection:
    """A draw within each value of a column, of which each gets its share of all members, or with `options.is_equal` as many as another.

    Members that are there already count. Shares are those of the candidates, rounded by the largest remainder; a value that has more members than
    its share leaves less to all others, and where a quota or the bytes end a value, the rest goes on in these shares. No bound: NaN. Raises
    InvalidInput without strata.
    """
    if candidates.strata is None:
        raise InvalidInput("The selector 'stratified' needs a column: select: {method: stratified, by: category}.")
    names, home = coded(candidates.strata)
    draws = _draws(candidates, options.seed)
    if options.is_equal:
        return _in_turn(candidates, allowed, home, draws)
    n, sizes = len(home), np.bincount(home, minlength=len(names))
    order = np.lexsort((np.arange(n), draws, ~candidates.preselected, home))
    round_ = np.empty(n, np.int64)  # of a row in its stratum, members first
    round_[order] = np.arange(n) - (np.cumsum(sizes) - sizes)[home[order]]
    held = np.bincount(home[candidates.preselected], minlength=len(names))
    share = _shares(sizes, held, min(allowed.left, n - int(held.sum())))
    pace = (round_ + 0.5) / sizes[home]  # taking rows by it takes each stratum at its own pace
    return _by_rank(candidates, allowed, np.lexsort((np.arange(n), pace, round_ >= share[home])), None)


def random(candidates: Candidates, allowed: Allowance, options: Options) -> Selection:
    """A uniform draw, by the hash of seed and asset id: the baseline. No bound: NaN."""
    return _by_rank(candidates, allowed, np.argsort(_draws(candidates, options.seed), kind="stable"), None)


SELECTORS: dict[str, Selector] = {
    "facility_location": facility_location,
    "k_center": k_center,
    "most_novel": most_novel,
    "cluster_balanced": cluster_balanced,
    "typical": typical,
    "stratified": stratified,
    "random": random,
}


def weights(neighbours: Neighbours) -> NDArray[np.int64]:
    """(n,) weight of each candidate in coverage, UNIT for the median one: how far its 10 nearest are, as a multiple of how far the median one's are."""
    near = neighbours.similarity[:, :LONELY_NEIGHBOURS]
    far = near.shape[1] * WHOLE - near.sum(axis=1, dtype=np.int64)
    median = int(np.sort(far)[len(far) // 2]) if len(far) else 0
    if median <= 0:
        return np.full(len(far), UNIT, np.int64)
    return np.asarray(np.clip((UNIT * far + median // 2) // median, LEAST_WEIGHT, MOST_WEIGHT), np.int64)


class _Cover:
    """How well each candidate is covered so far, and what each would add, in whole similarities times weights.

    gains are kept true: a member changes those of its neighbours' neighbours alone, some thousand numbers, whatever the number of candidates.
    """

    def __init__(self, graph: Covering, weight: NDArray[np.int64], preselected: NDArray[np.bool_]) -> None:
        self.graph, self.weight = graph, weight
        self.covered = np.zeros(len(weight), np.int64)
        for row in np.flatnonzero(preselected).tolist():
            part = slice(graph.starts[row], graph.starts[row + 1])
            columns = graph.columns[part]
            self.covered[columns] = np.maximum(self.covered[columns], graph.similarity[part] * weight[columns])
        self.gains = np.zeros(len(weight), np.int64)
        for start in range(0, len(weight), BLOCK):
            rows = np.arange(start, min(start + BLOCK, len(weight)))
            places, firsts, _ = self._of(rows)
            columns = graph.columns[places]
            added = np.maximum(graph.similarity[places] * weight[columns] - self.covered[columns], 0)
            self.gains[rows] = np.add.reduceat(added, firsts)  # no row is empty: each is like itself

    def take(self, row: int) -> None:
        """Let a row cover what is like it."""
        part = slice(self.graph.starts[row], self.graph.starts[row + 1])
        columns = self.graph.columns[part]
        alike = self.graph.similarity[part] * self.weight[columns]
        is_better = alike > self.covered[columns]
        rows, now = columns[is_better], alike[is_better]
        places, _, sizes = self._of(rows)
        old, new = np.repeat(self.covered[rows], sizes), np.repeat(now, sizes)
        lost = np.clip(self.graph.similarity[places] * np.repeat(self.weight[rows], sizes), old, new) - old  # of max(similarity - covered, 0), when covered rises
        np.subtract.at(self.gains, self.graph.columns[places].astype(np.intp), lost)
        self.covered[rows] = now

    def _of(self, rows: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(places, firsts, sizes): where the entries of these rows are, where each row's begin among them, and how many they are."""
        starts = self.graph.starts[rows]
        sizes = self.graph.starts[rows + 1] - starts
        firsts = np.cumsum(sizes) - sizes
        return np.arange(int(sizes.sum())) + np.repeat(starts - firsts, sizes), firsts, sizes


class _Bound:
    """The least upper bound on the optimum seen so far: f(T) + the most that a feasible set could add to T (Leskovec et al. 2007, section 3.2)."""

    def __init__(self, cover: _Cover, limits: Limits, allowed: Allowance, candidates: Candidates) -> None:
        self.limits = limits
        self.sizes = candidates.sized() if limits.bytes < NO_LIMIT else None
        self.is_free = ~candidates.preselected
        self.codes = list(allowed.codes)
        self.room = [np.maximum(most - counts, 0) for most, counts in zip(allowed.most, allowed.counts, strict=True)]
        self.optimum = WHOLE * int(cover.weight.sum())  # no candidate is covered by more than itself
        self.look(cover)

    def look(self, cover: _Cover) -> None:
        """Bound the optimum from what is covered now."""
        gains = np.where(self.is_free, cover.gains, 0)
        reached = int(cover.covered.sum())
        most = _largest(gains, self.limits.assets)
        if self.sizes is not None:
            most = min(most, _knapsack(gains, self.sizes, self.limits.bytes))
        for codes, room in zip(self.codes, self.room, strict=True):
            order = np.lexsort((-gains, codes))
            bounds = np.searchsorted(codes[order], np.arange(len(room)))
            place = np.arange(len(order)) - bounds[codes[order]]
            most = min(most, _largest(gains[order[place < room[codes[order]]]], self.limits.assets))
        self.optimum = min(self.optimum, reached + most)


def _largest(gains: NDArray[np.int64], count: int) -> int:
    """The sum of the `count` largest."""
    if count >= len(gains):
        return int(gains.sum())
    return int(np.partition(gains, len(gains) - count)[len(gains) - count :].sum()) if count > 0 else 0


def _knapsack(gains: NDArray[np.int64], sizes: NDArray[np.int64], room: int) -> int:
    """An upper bound on the gains that fit: the best a byte first, the last one in part."""
    order = np.argsort(-(gains / np.maximum(sizes, 1)), kind="stable")
    filled = np.cumsum(sizes[order])
    whole = int(np.searchsorted(filled, room, side="right"))
    part = int(gains[order[whole]]) if whole < len(order) else 0
    return int(gains[order[:whole]].sum()) + part


def _expected(candidates: Candidates, allowed: Allowance) -> int:
    """How many more members there will be about: as many as are left, or as rows of the mean size fit the bytes that are left."""
    free = candidates.sized()[~candidates.preselected]
    size = int(free.sum())
    return min(allowed.left, allowed.bytes_left * len(free) // size) if allowed.is_sized and size else allowed.left


def _greedy(cover: _Cover, allowed: Allowance, costs: NDArray[np.int64] | None, bound: _Bound, look: int) -> tuple[list[int], list[int]]:
    """Greedy for a submodular gain, or for gain a byte: an old key is an upper bound, so a row is looked at when its key is the highest.

    look: picks after which the optimum is bounded again, and again.
    """
    scale = None if costs is None else np.maximum(costs, 1)
    rows = np.flatnonzero(~allowed.taken)
    first = -cover.gains[rows] if scale is None else -(cover.gains[rows] / scale[rows])
    order = np.lexsort((rows, first))
    keys, waiting = first[order].tolist(), rows[order].tolist()  # a heap already, as every ascending list; what was looked at goes to `heap`
    place = 0
    heap: list[tuple[float, int]] = []
    picks: list[int] = []
    taken: list[int] = []
    gains = cover.gains
    while allowed.left > 0 and (heap or place < len(waiting)):
        if heap and (place == len(waiting) or heap[0] < (keys[place], waiting[place])):
            key, row = heap[0]
            is_waiting = False
        else:
            key, row = keys[place], waiting[place]
            place += 1
            is_waiting = True
        gain = int(gains[row])
        now = -gain if scale is None else -(gain / int(scale[row]))
        if now != key:  # it has shrunk since
            (heappush if is_waiting else heapreplace)(heap, (now, row))
            continue
        if not is_waiting:
            heappop(heap)
        if not allowed.has_room(row):
            continue
        picks.append(row)
        taken.append(gain)
        cover.take(row)
        allowed.take(row)
        if len(picks) % look == 0:
            bound.look(cover)
    return picks, taken


def _by_rank(candidates: Candidates, allowed: Allowance, order: NDArray[np.int64], score: NDArray[np.float64] | None) -> Selection:
    """The first of an order for which there is room."""
    picks = []
    for row in order.tolist():
        if allowed.left < 1:
            break
        if allowed.has_room(row):
            allowed.take(row)
            picks.append(row)
    indices = np.array(picks, np.int64)
    gains = np.full(len(picks), np.nan) if score is None else score[indices]
    total = float("nan") if score is None else float(np.sum(gains))
    left = np.full(len(candidates), np.nan) if score is None else score
    return Selection(indices, gains, total, float("nan"), _none(), left)


def _in_turn(candidates: Candidates, allowed: Allowance, home: NDArray[np.int64], rank: NDArray[np.float64]) -> Selection:
    """The first of each group by rank, the largest group first, then the second of each, and so on; members count as the first of theirs."""
    n = len(candidates)
    sizes = np.bincount(home)
    order = np.lexsort((np.arange(n), rank, ~candidates.preselected, home))
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    round_ = np.empty(n, np.int64)
    round_[order] = np.arange(n) - first[home[order]]
    smallest = np.full(len(sizes), n)
    np.minimum.at(smallest, home, np.arange(n))  # groups of one size go by their first id
    return _by_rank(candidates, allowed, np.lexsort((smallest[home], -sizes[home], round_)), None)


def _shares(sizes: NDArray[np.int64], held: NDArray[np.int64], left: int) -> NDArray[np.int64]:
    """(s,) members that strata of these sizes have at the end, when `left` come to those that are held."""
    share = held.copy()
    is_open = sizes > 0
    while is_open.any():
        share[is_open] = largest_remainder(sizes[is_open].tolist(), left + int(held[is_open].sum()))
        is_over = is_open & (held > share)
        if not is_over.any():
            break
        share[is_over] = held[is_over]
        is_open &= ~is_over
    return share


def _clusters(candidates: Candidates, wanted: int) -> NDArray[np.int64]:
    rows = candidates.lattice
    sample = evenly(len(rows), 256 * wanted)
    centres = kmeans(rows[sample], wanted, evenly(len(sample), wanted), rounds=10)
    return np.concatenate([nearest_centres(rows[start : start + 65536], centres, 1)[:, 0] for start in range(0, len(rows), 65536)])


def _draws(candidates: Candidates, seed: int) -> NDArray[np.float64]:
    """(n,) in [0, 1), by the hash of seed and id."""
    return np.array(
        [int.from_bytes(hashlib.sha256(f"{seed}:{asset_id}".encode()).digest()[:6], "big") / 2**48 for asset_id in candidates.asset_ids], np.float64
    )


def _none() -> NDArray[np.int64]:
    return np.zeros(0, np.int64)
