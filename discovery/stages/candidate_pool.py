"""The candidates of a collection: what the spec's rules leave of all assets, each rule on record for each asset that it left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from discovery import schemas
from discovery.adapters.filters import rows_where
from discovery.core.lattice import WHOLE, on_lattice
from discovery.errors import CorruptArtifact, SpecError, nearest
from discovery.spec import CollectionSpec, MixPart, column_of
from discovery.stages.decisions import Decisions
from discovery.stages.shards import vectors_for
from discovery.stages.split_links import keep_out_joining, unlink_members
from discovery.stages.versions import member_ids
from discovery.types import DatasetVersion, DuplicateReport, EmbeddingSet, IndexSnapshot, Manifest, NoveltyReport
from discovery.workspace import Workspace

EXAMPLE_POOL = 10  # by example, the nearest 10 x budget candidates go on to selection
LEAST_PREFIX = 4  # digits of an id that is cut short


@dataclass
class Pool:
    """All assets, ascending by id, with what is decided on each. held: rows that stay in any case, with their split or None."""

    spec: CollectionSpec
    assets: pa.Table
    ids: NDArray[np.bytes_]
    sets: list[EmbeddingSet]
    decisions: Decisions
    held: dict[int, str | None]
    masks: dict[str, NDArray[np.bool_]] = field(default_factory=dict)  # of free parts of a mix, by name

    def column(self, name: str) -> NDArray[Any]:
        """(n,) values of a column of the asset table; None for null."""
        return np.array(self.assets[name].to_pylist(), object)

    def named(self, column: str, what: str) -> str:
        """The column that a spec names, as the table has it. Raises SpecError with the nearest one."""
        return known_column(column, self.assets, f"Collection {self.spec.name}: {what}")

    def passing(self, where: str, *path: str | int) -> NDArray[np.bool_]:
        """(n,) for which a filter of the spec, that stands at path, is true. Raises SpecError with its place."""
        mask = np.zeros(len(self.ids), bool)
        mask[_rows_where(self.assets, self.spec, where, path)] = True
        return mask

    @property
    def is_held(self) -> NDArray[np.bool_]:
        """(n,) which stay in any case."""
        mask = np.zeros(len(self.ids), bool)
        mask[list(self.held)] = True
        return mask

    @property
    def is_candidate(self) -> NDArray[np.bool_]:
        """(n,) what no rule left out so far."""
        return self.decisions.is_open

    def rows_of(self, ids: list[str]) -> NDArray[np.int64]:
        """Rows of ids, -1 for one that is not there."""
        wanted = np.array([asset_id.encode() for asset_id in ids], "S64")
        places = np.minimum(np.searchsorted(self.ids, wanted), max(len(self.ids) - 1, 0))
        return np.where(self.ids[places] == wanted, places, -1) if len(self.ids) else np.full(len(ids), -1)


def refuse_unknown_columns(spec: CollectionSpec, assets: pa.Table) -> None:
    """Raise SpecError, with its place, for a filter that has no meaning over this asset table, or a column that it lacks. Of the table only the columns count."""
    empty = assets.slice(0, 0)
    for where, path in spec.filters():
        _rows_where(empty, spec, where, path)
    for name, path in spec.columns():
        known_column(name, assets, f"{spec.place(*path)}: {'.'.join(str(part) for part in path)}")


def known_column(name: str, assets: pa.Table, what: str) -> str:
    """The column that a name in a spec stands for. Raises SpecError, that begins with `what`, where the table has none."""
    found = column_of(name)
    if found not in assets.column_names:
        raise SpecError(f"{what} {name!r}: no such column. {nearest(name, assets.column_names)}")
    return found


def _rows_where(assets: pa.Table, spec: CollectionSpec, where: str, path: Sequence[str | int]) -> list[int]:
    try:
        return rows_where(assets, where)
    except SpecError as error:
        raise SpecError(f"{spec.place(*path)}: {error}") from error


def open_pool(
    spec: CollectionSpec, snapshot: IndexSnapshot, assets: pa.Table, sets: list[EmbeddingSet], parent: dict[str, str], kept_out: list[DatasetVersion],
    novelty: list[NoveltyReport], ws: Workspace,
) -> Pool:  # fmt: skip
    """Apply the rules that hold for every part of a mix, in the order of docs/howto/collections.md.

    parent: the split of each of its members. What is included by name, and the parent's members, pass all rules but `exclude`, leakage and links between splits.
    Raises SpecError where the spec contradicts itself, or names assets that are not there.
    """
    ids = schemas.ids_of(assets["asset_id"])
    pool = Pool(spec, assets, ids, sets, Decisions(ids), {})
    component = pool.column("component_id")
    alone = np.flatnonzero(component == None)  # noqa: E711  (of each element)
    component[alone] = [asset_id.decode() for asset_id in ids[alone].tolist()]
    rows = pool.rows_of(list(parent))
    if (rows < 0).any():
        raise SpecError(
            f"Collection {spec.name}: {int((rows < 0).sum())} members of the parent {spec.parent} are not in the index of {snapshot.encoder_id}, from which it would "
            "grow. Run their source through the chain with this encoder, or start without a parent."
        )
    pool.held = dict(zip(rows.tolist(), parent.values(), strict=True))
    included = _find(pool, spec.include, "include", ws)
    for row in included.tolist():
        pool.held.setdefault(row, None)

    removed = pool.column("is_removed").astype(bool)
    if removed[included].any():
        raise SpecError(f"Collection {spec.name}: include: {pool.ids[included[removed[included]][0]].decode()} is removed at its source.")
    pool.decisions.decide(removed & ~pool.is_held, "removed_at_source")
    _exclude(pool, included, ws)
    if kept_out:
        _keep_out(pool, component, kept_out, snapshot, included, ws)
    if parent:
        unlink_members(pool, snapshot, included, ws)
    if spec.where:
        pool.decisions.decide(~pool.passing(spec.where, "where") & ~pool.is_held, "where")
    if spec.novelty.only_novel:
        only_novel(pool, novelty, pool.is_candidate & ~pool.is_held)
    if parent:
        keep_out_joining(pool, snapshot)
    if spec.duplicates == "drop":  # after the rules that look at each file by itself, so that the copy that stands is a candidate
        _drop_copies(pool, component, snapshot, ws)
    if spec.like or spec.unlike:
        nearest_to_examples(pool, spec.like, spec.unlike, spec.limit_assets, ws)
    return pool


def part_rows(pool: Pool, part: MixPart, wanted: int | None, novelty: list[NoveltyReport], ws: Workspace) -> NDArray[np.bool_]:
    """(n,) candidates of one part of the mix; what it leaves out, others may take."""
    inner = Pool(pool.spec, pool.assets, pool.ids, pool.sets, Decisions(pool.ids), dict(pool.held))
    mask = pool.is_candidate & ~pool.is_held
    if part.where:
        mask &= pool.passing(part.where, "mix", pool.spec.mix.index(part), "where")
    inner.decisions.decide(~mask, "mix")
    if part.only_novel:
        only_novel(inner, novelty, inner.is_candidate)
    if part.like or part.unlike:
        nearest_to_examples(inner, part.like, part.unlike, wanted, ws)
    return inner.is_candidate


def only_novel(pool: Pool, novelty: list[NoveltyReport], rows: NDArray[np.bool_]) -> None:
    """Leave out those of the rows that are not novel at the spec's level; of a batch that shifted as a whole nothing is."""
    fdr = pool.spec.novelty.fdr
    shifted = {report.manifest_id for report in novelty if report.shifted}
    q = np.array([np.nan if value is None else value for value in pool.column("q_value")], np.float64)
    is_shifted = np.isin(pool.column("manifest_id").astype(str), sorted(shifted)) if shifted else np.zeros(len(q), bool)
    with np.errstate(invalid="ignore"):
        novel = (q <= fdr) & ~is_shifted
    pool.decisions.decide(rows & ~novel, "only_novel", value=q[rows & ~novel], threshold=fdr)


def nearest_to_examples(pool: Pool, like: tuple[str, ...], unlike: tuple[str, ...], wanted: int | None, ws: Workspace) -> None:
    """Leave out what is not among the nearest to the examples: similar to those liked, and not to the others.

    Similarity is the mean cosine to `like` less that to `unlike`, in whole numbers. 10 times as many as are wanted go on, or a tenth where only
    bytes are.
    """
    liked, others = _find(pool, like, "like", ws), _find(pool, unlike, "unlike", ws)
    if len(both := np.intersect1d(liked, others)):
        raise SpecError(f"Collection {pool.spec.name}: {pool.ids[both[0]].decode()} is in like and in unlike. Keep it in one of them.")
    rows = np.flatnonzero(pool.is_candidate)
    examples = on_lattice(vectors_for(pool.sets, pool.ids[np.concatenate([liked, others])], ws))
    dots = on_lattice(vectors_for(pool.sets, pool.ids[rows], ws)) @ examples.T
    whole = np.rint(dots.astype(np.float64) * 2**24).astype(np.int64)
    weights = np.array([max(len(others), 1)] * len(liked) + [-max(len(liked), 1)] * len(others), np.int64)
    total = whole @ weights
    order = np.lexsort((rows, -total))
    count = 10 * wanted if wanted is not None else max(1, len(rows) // 10)
    taken = np.zeros(len(rows), bool)
    taken[order[:count]] = True
    out = ~taken & ~pool.is_held[rows]
    scale = WHOLE * max(len(liked), 1) * max(len(others), 1)
    least = float(total[taken].min() / scale) if taken.any() else np.nan
    pool.decisions.decide(rows[out], "by_example", value=total[out] / scale, threshold=least)


def _find(pool: Pool, texts: tuple[str, ...], key: str, ws: Workspace) -> NDArray[np.int64]:
    """Rows of assets that a spec names by id, the first digits of one, or a URI that they come from; once each. Raises SpecError."""
    by_uri: dict[str, int] | None = None
    rows = []
    for text in texts:
        whole = text.encode()
        low, high = np.searchsorted(pool.ids, [whole, whole + b"g"]) if len(text) >= LEAST_PREFIX and all(c in "0123456789abcdef" for c in text) else (0, 0)
        if high - low == 1:
            rows.append(int(low))
            continue
        if high - low > 1:
            raise SpecError(f"Collection {pool.spec.name}: {key}: {text!r} is the start of {high - low} ids. Give more digits.")
        if by_uri is None:
            by_uri = _rows_by_uri(pool, texts, ws)
        row = by_uri.get(text.removeprefix("file://"))
        if row is None:
            raise SpecError(f"Collection {pool.spec.name}: {key}: {text!r} is not in the index: neither an asset's id nor the URI of one. Ingest it first.")
        rows.append(row)
    return np.array(list(dict.fromkeys(rows)), np.int64)


def _rows_by_uri(pool: Pool, texts: Sequence[str], ws: Workspace) -> dict[str, int]:
    """Row of each text that is the URI of a file: any of those that an asset has; of two assets that were found there the one that was found last."""
    plain = {text.removeprefix("file://") for text in texts}
    wanted = pa.array(sorted({*plain, *(f"file://{text}" for text in plain)}), pa.string())
    found: dict[str, int] = {}
    for embedded in reversed(pool.sets):
        manifest = ws.store.load_record(Manifest, embedded.manifest_id)
        if manifest is None:
            raise CorruptArtifact(f"Embedding set {embedded.id} has lost its manifest. Run `discovery verify`.")
        table = ws.store.read_table(manifest, columns=["asset_id", "source_uri"])
        listed = table.filter(pc.is_in(table["source_uri"], wanted)).drop_null()
        for row, uri in zip(pool.rows_of(listed["asset_id"].to_pylist()).tolist(), listed["source_uri"].to_pylist(), strict=True):
            if row >= 0:
                found.setdefault(str(uri).removeprefix("file://"), row)
    return found


def _exclude(pool: Pool, included: NDArray[np.int64], ws: Workspace) -> None:
    named = _find(pool, pool.spec.exclude, "exclude", ws)
    if not len(named):
        return
    if both := sorted(set(named.tolist()) & set(included.tolist())):
        raise SpecError(f"Collection {pool.spec.name}: {pool.ids[both[0]].decode()} is in include and in exclude.")
    group = pool.column("group_id")
    evidence = {group[row]: pool.ids[row].decode() for row in named.tolist()}
    rows = np.flatnonzero(np.isin(group.astype(str), [str(one) for one in evidence]))
    rows = rows[~np.isin(rows, included)]
    pool.decisions.decide(rows, "exclude", evidence=[evidence[one] for one in group[rows]])
    for row in rows.tolist():
        pool.held.pop(row, None)


def _keep_out(
    pool: Pool, component: NDArray[Any], kept_out: list[DatasetVersion], snapshot: IndexSnapshot, included: NDArray[np.int64], ws: Workspace
) -> None:
    for version in kept_out:
        theirs = member_ids(version, ws)
        rows = pool.rows_of(theirs)
        known = dict(zip(theirs, rows.tolist(), strict=True))
        unknown = [asset_id for asset_id, row in known.items() if row < 0]
        link = _components(unknown, snapshot, ws) if unknown else {}
        if missing := [asset_id for asset_id in unknown if asset_id not in link]:
            raise SpecError(
                f"Collection {pool.spec.name}: {len(missing)} members of {version.name}, first {missing[0][:12]}…, were never compared with what this index holds, "
                "so leaks cannot be ruled out. Run their source through the chain with this encoder first."
            )
        closed = {str(component[row]) if row >= 0 else link[asset_id]: asset_id for asset_id, row in sorted(known.items(), reverse=True)}
        hits = np.flatnonzero(np.isin(component.astype(str), list(closed)))
        if len(clash := np.intersect1d(hits, included)):
            raise SpecError(
                f"Collection {pool.spec.name}: include: {pool.ids[clash[0]].decode()} is, or is linked by copies to, a member of {version.name}, "
                "which it must not leak into."
            )
        own = set(theirs)
        evidence = [i if (i := pool.ids[row].decode()) in own else closed[str(component[row])] for row in hits]
        pool.decisions.decide(hits, "must_not_leak_into", evidence=evidence, record=version.id)
        for row in hits.tolist():
            pool.held.pop(row, None)


def _components(ids: list[str], snapshot: IndexSnapshot, ws: Workspace) -> dict[str, str]:
    """Components of assets that the index has no more, as its duplicate report knows them."""
    table = ws.store.read_table(_report(snapshot, ws), columns=["asset_id", "component_id"])
    chosen = table.filter(pc.is_in(table["asset_id"], pa.array(ids, pa.string())))
    return dict(zip(chosen["asset_id"].to_pylist(), chosen["component_id"].to_pylist(), strict=True))


def _drop_copies(pool: Pool, component: NDArray[Any], snapshot: IndexSnapshot, ws: Workspace) -> None:
    held = np.flatnonzero(pool.is_held & pool.is_candidate)
    linked = {str(component[row]): pool.ids[row].decode() for row in held[::-1].tolist()}
    rows = np.flatnonzero(pool.is_candidate & ~pool.is_held)
    near = rows[np.isin(component[rows].astype(str), list(linked))] if linked else rows[:0]
    pool.decisions.decide(near, "linked_to_member", evidence=[linked[str(component[row])] for row in near], record=snapshot.duplicates_id)
    is_keeper = pool.column("is_keeper").astype(bool)
    free = np.flatnonzero(pool.is_candidate & ~pool.is_held)
    group = pool.column("group_id")
    stands: dict[Any, int] = {}  # of each group its keeper, or the first by id where other rules left that out
    for row in [*free[is_keeper[free]].tolist(), *free.tolist()]:
        stands.setdefault(row if group[row] is None else group[row], row)
    copies = np.setdiff1d(free, np.array(list(stands.values()), np.int64))
    if not len(copies):
        return
    keeper = {one: pool.ids[row].decode() for one, row in stands.items()}
    table = ws.store.read_table(_report(snapshot, ws), columns=["asset_id", "difference", "keeper_id"])
    chosen = table.filter(pc.is_in(table["asset_id"], schemas.id_column(pool.ids[copies])))
    difference = {
        (asset_id, kept): value
        for asset_id, kept, value in zip(*(chosen[name].to_pylist() for name in ("asset_id", "keeper_id", "difference")), strict=True)
    }
    evidence = [keeper[group[row]] for row in copies]
    values = [difference.get((pool.ids[row].decode(), kept)) for row, kept in zip(copies, evidence, strict=True)]
    value = np.array([np.nan if one is None else one for one in values])
    pool.decisions.decide(
        copies, "duplicates", evidence=evidence, value=value, threshold=np.where(np.isnan(value), np.nan, ws.config.dedupe.max_difference),
        record=snapshot.duplicates_id,
    )


def _report(snapshot: IndexSnapshot, ws: Workspace) -> DuplicateReport:
    report = ws.store.load_record(DuplicateReport, snapshot.duplicates_id)
    if report is None:
        raise CorruptArtifact(f"Duplicate report {snapshot.duplicates_id} is missing. Run `discovery verify`.")
    return report
