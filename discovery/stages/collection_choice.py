"""The choice of a collection's members among its candidates: part by part of a mix, within budget and quotas, and what each quota cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from discovery.adapters.cores import share_of_cores
from discovery.core.draws import draw
from discovery.core.knn import exact_knn
from discovery.core.lattice import WHOLE, cosine_distance, on_lattice
from discovery.core.mix_quotas import first_part
from discovery.core.quotas import NO_LIMIT, Limits, Quota
from discovery.core.samples import Sample, defect_rate_bound
from discovery.core.selection import Candidates, Options, Selection, select
from discovery.core.splits import largest_remainder
from discovery.errors import InvalidInput, SpecError, nearest
from discovery.spec import NULL, MixPart, Select, value_text
from discovery.stages.candidate_pool import Pool, part_rows
from discovery.stages.shards import vectors_for
from discovery.types import NoveltyReport
from discovery.workspace import Workspace

NOTHING = "\0"  # a null in a quota: no value that a column can have
EVIDENCE_PAIRS = 2 * 10**9  # pairs of a candidate and a member of which all are looked at for the nearest member


@dataclass(frozen=True, slots=True)
class PartResult:
    """What one part gave. asked: members it should give, None where only bytes count. objective and optimality_bound are of the part's candidates, given
    what the parts before it took."""

    name: str
    method: str
    candidates: int
    asked: int | None
    picked: int
    objective: float | None
    optimality_bound: float | None
    graph_recall: float | None


@dataclass
class Choice:
    """Rows in the order picked with their gains, what each part gave, and what quotas cost."""

    rows: list[int] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)
    parts: list[PartResult] = field(default_factory=list)
    part_of: dict[int, str] = field(default_factory=dict)
    method_of: dict[int, str] = field(default_factory=dict)
    quota_costs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def optimality_bound(self) -> float | None:
        """Of the whole; None for a mix of several parts, whose bounds are each of one part after those before it, and bound nothing together."""
        return self.parts[0].optimality_bound if len(self.parts) == 1 else None


@dataclass(frozen=True, slots=True)
class _Turn:
    """The turn of one part: its candidates are `rows` of the pool; `everyone` also has those of the parts after it, of which the rest is, in their order."""

    how: Select
    candidates: Candidates
    rows: NDArray[np.int64]
    everyone: NDArray[np.int64]
    is_member: NDArray[np.bool_]
    is_in: NDArray[np.bool_]
    sizes: NDArray[np.int64]
    places: NDArray[np.int64]
    bytes_left: int

    def run(self, quotas: Sequence[Quota]) -> Selection:
        """What the part takes under these quotas, which all parts keep together."""
        limits = Limits(int(self.places.sum()), self.bytes_left)
        theirs, own = first_part([quota.of(self.everyone) for quota in quotas], self.is_member, self.is_in, self.places, limits, self.sizes)
        mine = np.searchsorted(self.everyone, self.rows)
        options = Options(self.how.seed, self.how.clusters, self.how.equal)
        return select(self.how.method, self.candidates, own, [quota.of(mine) for quota in theirs], options)


def choose(pool: Pool, novelty: list[NoveltyReport], ws: Workspace) -> Choice:
    """Select within the pool, and decide on all that was a candidate. Raises SpecError when a budget or a quota cannot be met."""
    spec = pool.spec
    for rule in ("include", "parent"):
        stay = [row for row, split in pool.held.items() if (split is None) == (rule == "include")]
        pool.decisions.decide(np.array(stay, np.int64), rule)
    held = np.array(sorted(pool.held), np.int64)
    size = np.array(pool.assets["size_bytes"].to_pylist(), np.float64)
    sizes = np.where(np.isnan(size), 0, size).astype(np.int64)
    used = int(sizes[held].sum())
    left = None if spec.limit_assets is None else spec.limit_assets - len(held)
    room = NO_LIMIT if spec.limit_bytes is None else spec.limit_bytes - used
    if (left is not None and left < 0) or room < 0:
        raise SpecError(
            f"Collection {spec.name}: the {len(held):,} members of the parent and of include ({used:,} bytes) exceed the budget. Raise the budget."
        )
    choice = Choice()
    looked: list[tuple[NDArray[np.int64], Candidates, Selection]] = []
    parts = _parts(pool, left, novelty, ws)
    is_in = np.stack([mask for _, mask, _, _ in parts], axis=1)
    is_in[held] = False
    is_member = pool.is_held
    quotas = _quotas(pool, is_in.any(axis=1) | is_member)
    shares = [wanted or 0 for _, _, wanted, _ in parts[: sum(part.share is not None for part in spec.mix)]]
    for place, (name, _, wanted, how) in enumerate(parts):
        rows, everyone = np.flatnonzero(is_in[:, place] | is_member), np.flatnonzero(is_in[:, place:].any(axis=1) | is_member)
        free = int(is_in[:, place].sum())
        if left is not None:
            wanted = min(left if wanted is None else wanted, left - len(choice.rows))
        candidates = _candidates(pool, rows, is_member[rows], sizes, how, ws)
        turn = _Turn(
            how, candidates, rows, everyone, is_member[everyone], is_in[everyone, place:], sizes[everyone],
            _places(shares[place:], is_in[:, place:].sum(axis=0), left if left is None else left - len(choice.rows)),
            room - int(sizes[choice.rows].sum()) if room < NO_LIMIT else NO_LIMIT,
        )  # fmt: skip
        try:
            found = turn.run(quotas)
        except InvalidInput as error:
            raise SpecError(f"Collection {spec.name}: {error}") from error
        choice.parts.append(_result(name, how, candidates, free, wanted, found))
        picked = rows[found.indices].tolist()
        choice.rows += picked
        choice.gains += found.gains.tolist()
        choice.method_of |= dict.fromkeys(picked, how.method)
        choice.part_of |= {row: (name or _part_of(pool, row, novelty, ws)) for row in picked} if spec.mix else {}
        for cost in _quota_costs(turn, quotas, found):
            choice.quota_costs.append(cost | ({"part": name or "without a share"} if spec.mix else {}))
        is_member[picked] = True
        is_in[picked] = False
        pool.decisions.decide(rows[found.indices], "selected", value=found.gains)
        for row in picked if spec.mix else []:
            pool.decisions.part[row] = choice.part_of[row]
        looked.append((rows, candidates, found))
    for part, (rows, candidates, found) in zip(choice.parts, looked, strict=True):  # after the last, which may take what an earlier one left
        _leave_out(pool, rows, candidates, found, [quota.of(rows) for quota in quotas], is_member[rows], part.name)
    pool.decisions.decide(pool.is_candidate, "mix")
    return choice


def coverage(pool: Pool, members: NDArray[np.int64], candidates: NDArray[np.int64], ws: Workspace) -> tuple[float | None, float | None]:
    """(radius, beyond): of candidates drawn, none is farther from a member than radius; of all, at most the share beyond is, at 95 %."""
    if not len(members) or not len(candidates):
        return None, None
    config = ws.config.collection
    drawn = candidates[draw(pool.ids[candidates], config.neighbour_rows, config.salt)]
    theirs = on_lattice(vectors_for(pool.sets, pool.ids[drawn], ws))
    distances = exact_knn(theirs, on_lattice(vectors_for(pool.sets, pool.ids[members], ws)), 1)[1]
    return float(cosine_distance(distances.max(axis=0))[0]), defect_rate_bound(Sample(len(drawn), len(candidates), 0))


def _parts(
    pool: Pool, left: int | None, novelty: list[NoveltyReport], ws: Workspace
) -> list[tuple[str, NDArray[np.bool_], int | None, Select]]:
    """(name, candidates, wanted, selector): each part with a share, in the spec's order, then what the free ones have together."""
    spec = pool.spec
    if not spec.mix:
        return [("", pool.is_candidate, left, spec.select)]
    shared = [part for part in spec.mix if part.share is not None]
    free = [part for part in spec.mix if part.share is None]
    shares = [float(part.share or 0) for part in shared]
    wanted = largest_remainder([*shares, max(0.0, 1.0 - sum(shares))], left or 0)
    found: list[tuple[str, NDArray[np.bool_], int | None, Select]] = [
        (part.name, part_rows(pool, part, count, novelty, ws), count, part.select or spec.select)
        for part, count in zip(shared, wanted, strict=False)
    ]
    if free:
        mask: NDArray[np.bool_] = np.zeros(len(pool.ids), np.bool_)
        for part in free:
            mask = mask | _mask_of(pool, part, novelty, ws)
        name = free[0].name if len(free) == 1 else ""
        found.append((name, mask, left, free[0].select or spec.select))
    return found


def in_some_part(pool: Pool, novelty: list[NoveltyReport], ws: Workspace) -> NDArray[np.bool_]:
    """(n,) what one of the parts of the mix would take."""
    left = None if pool.spec.limit_assets is None else pool.spec.limit_assets - len(pool.held)
    mask: NDArray[np.bool_] = np.zeros(len(pool.ids), np.bool_)
    for _, rows, _, _ in _parts(pool, left, novelty, ws):
        mask = mask | rows
    return mask


def _part_of(pool: Pool, row: int, novelty: list[NoveltyReport], ws: Workspace) -> str:
    return next((part.name for part in _free(pool) if _mask_of(pool, part, novelty, ws)[row]), "")


def _free(pool: Pool) -> list[MixPart]:
    return [part for part in pool.spec.mix if part.share is None]


def _mask_of(pool: Pool, part: MixPart, novelty: list[NoveltyReport], ws: Workspace) -> NDArray[np.bool_]:
    """The candidates of a free part, once a pool."""
    if part.name not in pool.masks:
        pool.masks[part.name] = part_rows(pool, part, pool.spec.limit_assets, novelty, ws)
    return pool.masks[part.name]


def _candidates(
    pool: Pool, rows: NDArray[np.int64], preselected: NDArray[np.bool_], size: NDArray[np.int64], how: Select, ws: Workspace
) -> Candidates:
    novelty = np.array([math.nan if value is None else value for value in pool.assets["novelty"].take(rows).to_pylist()], np.float64)
    strata = None
    if how.by:
        strata = np.array([value_text(value) or "" for value in pool.assets[pool.named(how.by, "select by")].take(rows).to_pylist()], object)
    ids = [asset_id.decode() for asset_id in pool.ids[rows].tolist()]
    return Candidates(ids, vectors_for(pool.sets, pool.ids[rows], ws), novelty, preselected, size[rows], strata, share_of_cores())


def _quotas(pool: Pool, may_be: NDArray[np.bool_]) -> list[Quota]:
    """The quotas of the spec over all assets. General bounds do not touch nulls, and a general minimum no value that nothing has that may be a member.

    may_be: (n,) candidates and members. Raises SpecError for a value that no asset has.
    """
    quotas = []
    for place, quota in enumerate(pool.spec.quotas):
        nothing = NULL if NULL in quota.values else NOTHING
        texts = map(value_text, pool.assets[pool.named(quota.by, "quota by")].to_pylist())
        values = np.array([nothing if text is None else text for text in texts], object)
        known = sorted(set(values.tolist()) - {NOTHING})
        for value in quota.values:
            if value != NULL and value not in known:
                raise SpecError(f"{pool.spec.place('quotas', place, 'values', value)}: no asset has {quota.by} {value!r}. {_offer(value, known)}")
        bounds = {value: quota.bounds_of(value) for value in known}
        asked = {*values[may_be].tolist(), *(value for value, own in quota.values.items() if own.min is not None)}
        least = {value: bound.min for value, bound in bounds.items() if bound.min is not None and value in asked}
        most = {value: bound.max for value, bound in bounds.items() if bound.max is not None}
        quotas.append(Quota(quota.by, values, least, most))
    return quotas


def _offer(value: str, known: list[str]) -> str:
    """The nearest value that there is, or some of them."""
    said = nearest(value, known)
    return said if len(known) <= 10 or said.endswith("?") else f"Some of the {len(known):,} that there are: {', '.join(known[:5])}."


def _places(shares: Sequence[int], free: NDArray[np.int64], left: int | None) -> NDArray[np.int64]:
    """(p,) members that each part takes at most: its share, and one without a share what those with one leave in any case. left: None where only bytes count."""
    if left is None:
        return free
    shared = np.minimum(shares, free[: len(shares)]).astype(np.int64)
    return np.concatenate([shared, np.minimum(left - int(shared.sum()), free[len(shares) :])])


def _result(name: str, how: Select, candidates: Candidates, free: int, wanted: int | None, found: Selection) -> PartResult:
    return PartResult(
        name, how.method, free, wanted, len(found.indices), _finite(found.objective), _finite(found.optimality_bound),
        candidates.graph_recall,
    )  # fmt: skip


def _quota_costs(turn: _Turn, quotas: Sequence[Quota], found: Selection) -> list[dict[str, Any]]:
    """For each quota the objective without it, and the share of that which it cost; None for selectors without an objective, and where it cannot be done."""
    costs = []
    for place, quota in enumerate(quotas):
        try:
            without = _finite(turn.run([*quotas[:place], *quotas[place + 1 :]]).objective)
        except InvalidInput:
            without = None
        now, then = _finite(found.objective), without
        if turn.how.method == "k_center":  # a radius: lower is better
            now, then = (None, None) if now is None or then is None else (-now, -then)
        cost = None if now is None or then is None or then == 0 else (then - now) / abs(then)
        costs.append({"by": quota.by, "objective_without": without, "cost": cost})
    return costs


def _leave_out(
    pool: Pool, rows: NDArray[np.int64], candidates: Candidates, found: Selection, quotas: Sequence[Quota], is_member: NDArray[np.bool_], part: str
) -> None:
    """Enter why candidates of a part were not picked. is_member: which of the rows are in, whichever part took them."""
    decisions = pool.decisions
    if len(found.set_aside):
        density = candidates.neighbours.density() / (WHOLE * min(10, max(candidates.neighbours.rows.shape[1], 1)))
        kept = density[np.setdiff1d(np.arange(len(rows)), found.set_aside)]
        least = float(kept[kept >= density[found.set_aside].max()].min())  # some that are less dense may be in for a minimum
        decisions.decide(rows[found.set_aside], "set_aside", value=density[found.set_aside], threshold=least, part=part)
    left = np.flatnonzero(decisions.is_open[rows] & ~is_member)
    evidence = np.array(_nearest_members(candidates, left, np.flatnonzero(is_member)), object)
    for quota in quotas:
        counts = Counter(quota.values[is_member].tolist())
        full = {value for value, most in quota.maximum.items() if counts[value] >= most}
        blocked = np.flatnonzero([value in full for value in quota.values[left].tolist()])
        values = quota.values[left[blocked]].tolist()
        decisions.decide(
            rows[left[blocked]], "quota", evidence=evidence[blocked].tolist(), value=[counts[value] for value in values],
            threshold=[quota.maximum[value] for value in values], part=part,
        )  # fmt: skip
    least = float(np.nanmin(found.gains)) if np.isfinite(found.gains).any() else math.nan
    decisions.decide(rows[left], "not_selected", evidence=evidence.tolist(), value=found.left[left], threshold=least, part=part)


def _nearest_members(candidates: Candidates, rows: NDArray[np.int64], members: NDArray[np.int64]) -> list[str | None]:
    """The member most like each row: of all members where these are few enough, else of those among its neighbours."""
    if not len(members) or not len(rows):
        return [None] * len(rows)
    if len(rows) * len(members) <= EVIDENCE_PAIRS:
        near = members[exact_knn(candidates.lattice[rows], candidates.lattice[members], 1)[0][:, 0]]
        return [candidates.asset_ids[row] for row in near]
    graph = candidates.neighbours
    is_member = np.zeros(len(candidates) + 1, bool)
    is_member[members] = True
    hits = is_member[graph.rows[rows]]
    first = graph.rows[rows, np.argmax(hits, axis=1)]
    return [candidates.asset_ids[row] if found else None for row, found in zip(first.tolist(), np.asarray(hits.any(axis=1)).tolist(), strict=True)]


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


