"""Index: a new HNSW segment for what is new, a snapshot that names all segments, and its recall measured against exact search."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from discovery import schemas
from discovery.adapters.hnsw import SPACE, HnswSegment
from discovery.adapters.storage import Store, table_to_parquet
from discovery.addressing import stage_key
from discovery.config import IndexConfig
from discovery.core.conformal import calibration_mask
from discovery.core.knn import exact_knn
from discovery.core.recall import betting_lower_bound, census_bound, choose_ef, recall_at_k
from discovery.errors import CorruptArtifact, DiscoveryError, EncoderMismatch
from discovery.stages.history import embedding_sets, head_snapshot, load_snapshot, members_of, snapshot_before
from discovery.stages.shards import load_vectors, vectors_of
from discovery.types import DuplicateReport, EmbeddingSet, IndexSnapshot, Manifest, Segment, SegmentRef
from discovery.workspace import Workspace

EF_GRID = (512, 256, 128, 64, 32, 16)
K = 10
SWAP_ATTEMPTS = 20  # of a snapshot that lost against another batch


@dataclass(frozen=True, slots=True)
class OpenSegment:
    """A loaded segment: `ids[label]` and `vectors[label]` belong to the graph's labels."""

    ids: list[str]
    vectors: NDArray[np.float32]
    graph: HnswSegment


def index(manifest: Manifest, embeddings: EmbeddingSet, duplicates: DuplicateReport, ws: Workspace) -> IndexSnapshot:
    """The snapshot that holds the manifest: the one before it, plus a segment with its new assets.

    Pictures with the same pixels are indexed once, since copies crowd the graph. The new snapshot becomes current by one swap;
    when another batch was first, this one is built again on top of it. Raises EncoderMismatch, CorruptArtifact.
    """
    if duplicates.encoder_id != embeddings.encoder_id:
        raise EncoderMismatch(f"The duplicates are of {duplicates.encoder_id}, the embeddings of {embeddings.encoder_id}.")
    for _ in range(SWAP_ATTEMPTS):
        head = head_snapshot(embeddings.encoder_id, ws)
        before = snapshot_before(manifest, embeddings.encoder_id, ws)
        parent = before
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
    segments = list(before.segments) if before else []
    fresh = _fresh_assets(embeddings, duplicates, before, ws)
    if fresh:
        ids, vectors = load_vectors([embeddings], ws)
        rows = [row for row, asset_id in enumerate(ids) if asset_id in fresh]
        segment = build_segment([ids[row] for row in rows], vectors[rows], embeddings.encoder_id, ws)
        segments.append(SegmentRef(segment.id, segment.elements))
    return commit_snapshot(
        key, segments, embeddings.encoder_id, embeddings.dim, parent,
        manifests=(*(before.manifests if before else ()), manifest.id),
        embeddings=(*(before.embeddings if before else ()), embeddings.id), duplicates_id=duplicates.id, ws=ws,
    )  # fmt: skip


def _fresh_assets(embeddings: EmbeddingSet, duplicates: DuplicateReport, before: IndexSnapshot | None, ws: Workspace) -> set[str]:
    """New assets, one for each set of equal pixels, none whose pixels are indexed already."""
    rows = ws.store.read_table(duplicates, columns=["asset_id", "pixel_keeper"]).to_pylist()
    pixels = {row["asset_id"]: row["pixel_keeper"] for row in rows}
    old = members_of(embedding_sets(before, ws), ws)
    seen = {pixels[asset_id] for asset_id in old if asset_id in pixels}
    fresh: set[str] = set()
    for asset_id in sorted(members_of([embeddings], ws) - old):
        if pixels[asset_id] not in seen:
            seen.add(pixels[asset_id])
            fresh.add(asset_id)
    return fresh


def build_segment(ids: list[str], vectors: NDArray[np.float32], encoder_id: str, ws: Workspace) -> Segment:
    """One committed segment of these vectors; labels follow `ids`, which ascend. The same input finds the same segment."""
    config = ws.config.index
    identity = {"m": config.m, "ef_construction": config.ef_construction, "seed": config.seed, "encoder_id": encoder_id}
    key = stage_key(Segment.stage, Segment.version, identity, ids)
    if (found := ws.find(Segment, key)) is not None:
        return found
    ws.report(f"index: building a segment of {len(ids):,} vectors")
    graph = HnswSegment.build(np.ascontiguousarray(vectors), config).to_bytes()
    dim = int(vectors.shape[1])
    files = (
        ws.put_file(Segment, key, "table", table_to_parquet(schemas.embedding_table(ids, vectors)), ".parquet", len(ids)),
        ws.put_file(Segment, key, "segment", graph, ".bin", len(ids)),
    )
    ws.tally["index.inserted"] += len(ids)
    return ws.commit(
        Segment(
            id=key,
            inputs=(),
            created_at=ws.clock(),
            files=files,
            encoder_id=encoder_id,
            dim=dim,
            space=SPACE,
            m=config.m,
            elements=len(ids),
        )
    )


def commit_snapshot(
    key: str, segments: list[SegmentRef], encoder_id: str, dim: int, parent: IndexSnapshot | None, *, manifests: tuple[str, ...],
    embeddings: tuple[str, ...], duplicates_id: str, ws: Workspace,
) -> IndexSnapshot:  # fmt: skip
    """Measure the recall of these segments, choose ef, and commit the snapshot; it is not current yet."""
    opened = [open_segment(ref, encoder_id, ws) for ref in segments]
    recall = audit(opened, ws.config.index)
    return ws.commit(
        IndexSnapshot(
            id=key, inputs=(*((parent.id,) if parent else ()), *embeddings[-1:], duplicates_id, *(ref.id for ref in segments)),
            created_at=ws.clock(), encoder_id=encoder_id, dim=dim, parent_id=parent.id if parent else "",
            generation=parent.generation + 1 if parent else 1, manifests=manifests, embeddings=embeddings,
            duplicates_id=duplicates_id, segments=tuple(segments), elements=sum(ref.elements for ref in segments),
            ef_search=recall.ef, recall_at_10=recall.recall, recall_lower_bound=recall.lower_bound, is_certified=recall.certified,
        )
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Audit:
    """The ef that was chosen, recall@10 at it, and the lower confidence bound of that recall."""

    ef: int
    recall: float
    lower_bound: float
    certified: bool


def audit(segments: list[OpenSegment], config: IndexConfig) -> Audit:
    """Recall@10 of a search over these segments against exact search, and the smallest ef whose bound reaches the target.

    Queries are members, drawn by a salted hash, each without itself in both answers. The bound speaks of members as queries; in an index
    so small that all were asked, it is the recall itself.
    """
    ids = [asset_id for segment in segments for asset_id in segment.ids]
    if len(ids) < 2:
        return Audit(EF_GRID[-1], 1.0, 1.0, True)  # nothing else to find, so nothing can be missed
    vectors = np.concatenate([segment.vectors for segment in segments])
    drawn = calibration_mask(ids, min(config.audit_queries, len(ids)), f"recall-audit-{config.seed}")
    query_ids, queries = [i for i, is_drawn in zip(ids, drawn, strict=True) if is_drawn], vectors[drawn]
    k = min(K, len(ids) - 1)
    _, truth = exact_knn(queries, vectors, k, query_ids=query_ids, reference_ids=ids)

    def measure(ef: int) -> NDArray[np.float64]:
        found_ids, found = search_segments(segments, queries, k + 1, ef)
        kept = np.full((len(queries), k), np.inf, np.float32)
        for row, query_id in enumerate(query_ids):
            others = [d for i, d in zip(found_ids[row], found[row], strict=True) if i != query_id][:k]
            kept[row, : len(others)] = others
        return recall_at_k(kept, truth)

    bound = census_bound if drawn.all() else betting_lower_bound
    choice = choose_ef(EF_GRID, measure, config.recall_target, config.recall_delta, bound)
    return Audit(choice.ef, choice.recall, choice.lower_bound, choice.certified)


def search_segments(
    segments: list[OpenSegment], queries: NDArray[np.float32], k: int, ef: int
) -> tuple[list[list[str]], list[list[float]]]:
    """Ids and cosine distances of the k nearest over all segments, nearest first, ties by id."""
    merged: list[list[tuple[float, str]]] = [[] for _ in range(len(queries))]
    for segment in segments:
        labels, distances = segment.graph.query(queries, k, ef)
        for row in range(len(queries)):
            merged[row].extend((float(d), segment.ids[int(label)]) for d, label in zip(distances[row], labels[row], strict=True))
    best = [sorted(row)[:k] for row in merged]
    return [[i for _, i in row] for row in best], [[d for d, _ in row] for row in best]


def open_segment(ref: SegmentRef, encoder_id: str, ws: Workspace) -> OpenSegment:
    """Load and check one segment; CorruptArtifact when its bytes changed or do not fit its record."""
    segment = ws.store.load_record(Segment, ref.id)
    if segment is None:
        raise CorruptArtifact(f"Index segment {ref.id} is missing. Run `discovery verify`, then `discovery index`.")
    if segment.encoder_id != encoder_id or segment.space != SPACE:
        raise EncoderMismatch(f"Segment {ref.id[:12]}… holds {segment.encoder_id} vectors in {segment.space}, not {encoder_id}.")
    return _load_segment(ws.store, segment)


@functools.lru_cache(maxsize=64)
def _load_segment(store: Store, segment: Segment) -> OpenSegment:
    graph = HnswSegment.from_bytes(store.read_file(segment, "segment"), segment.elements, segment.dim, segment.m)
    table = store.read_table(segment)
    return OpenSegment(table["asset_id"].to_pylist(), vectors_of(table), graph)
