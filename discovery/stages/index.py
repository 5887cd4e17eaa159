"""Index: new rows join the exactly searched tail or become graphs, gone ones get tombstones; the snapshot that names all, with its recall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discovery import schemas
from discovery.adapters.storage import table_to_parquet
from discovery.core.draws import ID_DIGITS, id_array
from discovery.core.tiers import Shape, absorbed_by
from discovery.errors import CorruptArtifact, DiscoveryError, EncoderMismatch
from discovery.stages.audit import audit
from discovery.stages.dedupe import dedupe
from discovery.stages.history import embedding_sets, head_snapshot, load_snapshot, members_of, newest_sets, snapshot_before
from discovery.stages.open_index import OpenIndex, open_segments, tombstones
from discovery.stages.segments import Fetch, Ids, make_segments
from discovery.stages.shards import vectors_for
from discovery.types import DuplicateReport, EmbeddingSet, IndexSnapshot, Manifest, SegmentRef
from discovery.workspace import Workspace

SWAP_ATTEMPTS = 20  # of a snapshot that lost against another batch


def index(manifest: Manifest, embeddings: EmbeddingSet, duplicates: DuplicateReport, ws: Workspace) -> IndexSnapshot:
    """The snapshot that holds the manifest: the one before it, with its new assets, without those that are gone from their source.

    Pictures with the same pixels are indexed once, by the smallest id of those that are there, since copies crowd the graph. The new snapshot becomes
    current by one swap; when another batch was first, this one is compared with it too and built again on top of it, so that the duplicate report of a
    snapshot knows all that it holds. Raises EncoderMismatch, CorruptArtifact.
    """
    if duplicates.encoder_id != embeddings.encoder_id:
        raise EncoderMismatch(f"The duplicates are of {duplicates.encoder_id}, the embeddings of {embeddings.encoder_id}.")
    for _ in range(SWAP_ATTEMPTS):
        head = head_snapshot(embeddings.encoder_id, ws)
        before = snapshot_before(manifest, embeddings.encoder_id, ws)
        parent = before
        if duplicates.inputs != (embeddings.id, *((before.id,) if before else ())):  # another batch came first, with pictures that it does not know
            duplicates = dedupe(manifest, embeddings, ws)
        if head is not None and manifest.id in head.manifests:
            is_newest = head.manifests[-1] == manifest.id
            if not is_newest or (head.embeddings[-1], head.duplicates_id) == (embeddings.id, duplicates.id):
                return _made_for(embeddings, duplicates, head, before, ws)
            parent = head  # the newest batch again, under other settings: its snapshot is succeeded by a revised one
        snapshot = _snapshot(manifest, embeddings, duplicates, before, parent, ws)
        if ws.catalog.swap_head(embeddings.encoder_id, snapshot.id, parent.id if parent else ""):
            return snapshot
    raise DiscoveryError(
        f"The index of {embeddings.encoder_id} changed {SWAP_ATTEMPTS} times while this batch was added. Run again."
    )


def _made_for(
    embeddings: EmbeddingSet, duplicates: DuplicateReport, head: IndexSnapshot, before: IndexSnapshot | None, ws: Workspace
) -> IndexSnapshot:
    """The snapshot that first brought these results in, between `before` and the head; the head when none did."""
    found, snapshot = head, head
    while snapshot.id != (before.id if before else ""):
        if snapshot.embeddings[-1] == embeddings.id and snapshot.duplicates_id == duplicates.id:
            found = snapshot
        if not snapshot.parent_id:
            break
        snapshot = load_snapshot(snapshot.parent_id, ws)
    return found


def _snapshot(
    manifest: Manifest, embeddings: EmbeddingSet, duplicates: DuplicateReport, before: IndexSnapshot | None,
    parent: IndexSnapshot | None, ws: Workspace,
) -> IndexSnapshot:  # fmt: skip
    """What `before` has, plus the manifest; `parent` is the head that the new snapshot succeeds."""
    key = ws.key(IndexSnapshot, [ws.config.index], [parent.id if parent else "", embeddings.id, duplicates.id])
    if (found := ws.find(IndexSnapshot, key)) is not None:
        return found
    sets = [*embedding_sets(before, ws), embeddings]
    wanted = representatives(sets, ws)
    old = content_of(before, embeddings.encoder_id, embeddings.dim, ws)
    content = grown(old, wanted, lambda ids: vectors_for(sets, ids, ws), ws)
    return commit_snapshot(
        key, content, parent, manifests=(*(before.manifests if before else ()), manifest.id),
        embeddings=(*(before.embeddings if before else ()), embeddings.id), duplicates_id=duplicates.id, ws=ws,
    )  # fmt: skip


def representatives(sets: Sequence[EmbeddingSet], ws: Workspace) -> Ids:
    """What an index of these embedding sets holds: of the assets that are at their sources, one for each set of equal pixels, the smallest.

    Pixels are told by the manifests, since the duplicate report of a batch that ran beside another does not know the other's assets.
    """
    smallest: dict[str, str] = {}
    for embedded in newest_sets(sets, ws):
        live = members_of([embedded], ws)
        manifest = ws.store.load_record(Manifest, embedded.manifest_id)
        if manifest is None:
            raise CorruptArtifact(f"Embedding set {embedded.id} has lost its manifest. Run `discovery verify`.")
        table = ws.store.read_table(manifest, columns=["asset_id", "pixel_sha256"])
        for asset_id, pixels in zip(table["asset_id"].to_pylist(), table["pixel_sha256"].to_pylist(), strict=True):
            if asset_id in live and asset_id < smallest.get(pixels, "~"):
                smallest[pixels] = asset_id
    return np.sort(id_array(list(smallest.values())))


@dataclass(frozen=True, slots=True)
class Content:
    """What a snapshot answers from: segments, the ids in them that are removed, and the measurements of the audit before."""

    encoder_id: str
    dim: int
    segments: tuple[SegmentRef, ...]
    removed: Ids
    measured: pa.Table | None = None


def content_of(snapshot: IndexSnapshot | None, encoder_id: str, dim: int, ws: Workspace) -> Content:
    """That of a snapshot; of None, nothing."""
    if snapshot is None:
        return Content(encoder_id, dim, (), np.zeros(0, f"S{ID_DIGITS}"))
    measured = ws.store.read_table(snapshot, "audit")
    return Content(snapshot.encoder_id, snapshot.dim, snapshot.segments, tombstones(snapshot, ws), measured)


def opened(content: Content, ws: Workspace, ef: int = 0) -> OpenIndex:
    """Open it for queries, at an ef that nothing is known of."""
    return open_segments(content.segments, content.removed, content.encoder_id, content.dim, ef, ws)


def shapes_of(index: OpenIndex) -> list[Shape]:
    """Of its segments."""
    return [Shape(len(one.ids), dead, one.has_graph) for one, dead in zip(index.segments, index.dead, strict=True)]


def grown(content: Content, wanted: Ids, fetch: Fetch, ws: Workspace) -> Content:
    """The content that holds exactly `wanted` (ascending): what it lacks is added, what is not wanted has a tombstone.

    fetch: the vectors of ids that are in no segment. What comes back after it was removed only loses its tombstone. Of the tail as many segments are taken
    into that of the new rows as `core.tiers` says, without their dead rows.
    """
    index = opened(content, ws)
    rows = index.find(wanted)
    fresh = wanted[rows < 0]
    is_gone = np.ones(index.rows, np.bool_)
    is_gone[rows[rows >= 0]] = False
    removed = np.sort(index.all_ids()[is_gone])
    index = opened(Content(content.encoder_id, content.dim, content.segments, removed), ws)
    if not len(fresh):
        return Content(content.encoder_id, content.dim, content.segments, removed, content.measured)
    absorbed, is_graph = absorbed_by(shapes_of(index), len(fresh), ws.config.index.exact_rows)
    return merged(content, index, absorbed, fresh, fetch, ws, graphs=is_graph)


def merged(
    content: Content, index: OpenIndex, places: Sequence[int], fresh: Ids, fetch: Fetch | None, ws: Workspace, *, graphs: bool
) -> Content:
    """The content with the live rows of some segments, and fresh ones, in new segments; these come last. `index` is the content, open."""
    gone = set(places)
    alive = [index.alive[index.starts[number] : index.starts[number + 1]] for number in range(len(index.segments))]
    kept = np.concatenate([fresh[:0], *(index.segments[number].ids[alive[number]] for number in places)])
    ids = np.sort(np.concatenate([kept, fresh]))

    def vectors_of(part: Ids) -> NDArray[np.float32]:
        rows = index.find(part)
        vectors = np.empty((len(part), content.dim), np.float32)
        known = rows >= 0
        vectors[known] = index.vectors(rows[known])
        if fetch is not None and not known.all():
            vectors[~known] = fetch(part[~known])
        return vectors

    made = make_segments(ids, vectors_of, content.encoder_id, content.dim, ws, graphs=graphs)
    left = tuple(ref for number, ref in enumerate(content.segments) if number not in gone)
    removed = [one.ids[~alive[number]] for number, one in enumerate(index.segments) if number not in gone]
    return Content(content.encoder_id, content.dim, (*left, *made), np.sort(np.concatenate([fresh[:0], *removed])), content.measured)


def commit_snapshot(
    key: str, content: Content, parent: IndexSnapshot | None, *, manifests: tuple[str, ...], embeddings: tuple[str, ...], duplicates_id: str,
    ws: Workspace,
) -> IndexSnapshot:  # fmt: skip
    """Measure the recall of this content, choose ef, and commit the snapshot; it is not current yet."""
    index = opened(content, ws)
    ws.report(f"index: measuring the recall of {index.elements:,} vectors in {len(content.segments)} segments")
    outcome = audit(index, ws.config.index, content.measured)
    shown = outcome.certificate
    files = [ws.put_file(IndexSnapshot, key, "audit", table_to_parquet(outcome.measured), ".parquet", len(outcome.measured))]
    if len(content.removed):
        table = pa.table({"asset_id": pa.array([one.decode() for one in content.removed])}, schema=schemas.TOMBSTONES)
        files.append(ws.put_file(IndexSnapshot, key, "tombstones", table_to_parquet(table), ".parquet", len(table)))
    return ws.commit(
        IndexSnapshot(
            id=key, inputs=(*((parent.id,) if parent else ()), *embeddings[-1:], duplicates_id, *(ref.id for ref in content.segments)),
            created_at=ws.clock(), files=tuple(files), encoder_id=content.encoder_id, dim=content.dim, parent_id=parent.id if parent else "",
            generation=parent.generation + 1 if parent else 1, manifests=manifests, embeddings=embeddings,
            duplicates_id=duplicates_id, segments=content.segments, elements=index.elements, removed=len(content.removed),
            ef_search=shown.ef, recall_at_10=shown.recall, recall_lower_bound=shown.lower_bound, recall_target=ws.config.index.recall_target,
            recall_delta=ws.config.index.recall_delta, strata=shown.strata, is_certified=shown.certified,
        )
    )  # fmt: skip


def succeed(snapshot: IndexSnapshot, content: Content, why: str, ws: Workspace) -> IndexSnapshot:
    """The snapshot of the same manifests with another content (or the same, measured anew), made current unless another batch was first.

    why: what distinguishes this success from other ones of the same snapshot.
    """
    key = ws.key(IndexSnapshot, [ws.config.index], [snapshot.id], why=why)
    made = ws.find(IndexSnapshot, key)
    if made is None:
        made = commit_snapshot(
            key, content, snapshot, manifests=snapshot.manifests, embeddings=snapshot.embeddings, duplicates_id=snapshot.duplicates_id, ws=ws
        )
    ws.catalog.swap_head(snapshot.encoder_id, made.id, snapshot.id)
    return made


