"""Dedupe: exact and near copies among all that is known up to a manifest, in groups with a keeper."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discovery import schemas
from discovery.adapters.storage import table_to_parquet
from discovery.core.duplicates import DuplicateGroups, cosine_pairs, group_duplicates, hamming_pairs, luma_correlation
from discovery.errors import CorruptArtifact
from discovery.stages.history import embedding_sets, snapshot_before
from discovery.stages.shards import load_vectors
from discovery.types import DuplicateReport, EmbeddingSet, Manifest, QualityReport
from discovery.workspace import Workspace


@dataclass(frozen=True, slots=True)
class _Assets:
    """Columns of all assets in question, in the order of `ids` (ascending); hashes (n, 32) and luma (n, 1024) uint8."""

    ids: list[str]
    vectors: NDArray[np.float32]
    pdq: NDArray[np.uint8]
    pdq_quality: NDArray[np.int64]
    luma: NDArray[np.uint8]
    sharpness: NDArray[np.float64]
    pixels: NDArray[np.int64]
    pixel_sha256: list[str]
    source_rows: list[int]


def dedupe(manifest: Manifest, embeddings: EmbeddingSet, ws: Workspace) -> DuplicateReport:
    """Groups over the manifest's assets and all that were indexed before it.

    A pair is proposed by its perceptual hash or its embedding, and is an edge only when the aligned 32 x 32 luma agrees too. A small
    crop moves the luma, so pairs of very high cosine need less of it.
    """
    config = ws.config.dedupe
    before = snapshot_before(manifest, embeddings.encoder_id, ws)
    key = ws.key(DuplicateReport, [config], [before.id if before else "", embeddings.id])
    if (found := ws.find(DuplicateReport, key)) is not None:
        return found
    assets = _load([*embedding_sets(before, ws), embeddings], ws)
    edges = _edges(assets, ws)
    ws.report(f"dedupe: {len(assets.ids):,} assets, {len(edges):,} verified pairs")
    rank = np.stack([assets.pixels.astype(np.float64), assets.sharpness], axis=1)
    groups = group_duplicates(assets.ids, rank, edges)
    table = _table(assets, groups)
    counts = _count(table)
    file = ws.put_file(DuplicateReport, key, "table", table_to_parquet(table), ".parquet", len(table))
    return ws.commit(
        DuplicateReport(
            id=key, inputs=(embeddings.id, *((before.id,) if before else ())), created_at=ws.clock(), files=(file,),
            manifest_id=manifest.id, encoder_id=embeddings.encoder_id, assets=len(assets.ids), **counts,
        )
    )  # fmt: skip


def duplicate_groups(report: DuplicateReport, ws: Workspace) -> list[list[str]]:
    """Asset ids of every group of two or more assets, keeper first, largest group first."""
    members: dict[str, list[str]] = defaultdict(list)
    for row in ws.store.read_table(report, columns=["asset_id", "group_id"]).to_pylist():
        members[row["group_id"]].append(row["asset_id"])
    groups = [[keeper, *sorted(set(ids) - {keeper})] for keeper, ids in members.items() if len(ids) > 1]
    return sorted(groups, key=lambda ids: (-len(ids), ids[0]))


def _load(sets: list[EmbeddingSet], ws: Workspace) -> _Assets:
    ids, vectors = load_vectors(sets, ws)
    measures: dict[str, dict[str, object]] = {}
    listed: dict[str, dict[str, object]] = {}
    uris: dict[str, set[str]] = defaultdict(set)
    for embedded in sets:
        report = ws.store.load_record(QualityReport, embedded.report_id)
        manifest = ws.store.load_record(Manifest, embedded.manifest_id)
        if report is None or manifest is None:
            raise CorruptArtifact(f"Embedding set {embedded.id} has lost its manifest or report. Run `discovery verify`.")
        columns = ["asset_id", "pdq_hash", "pdq_quality", "luma_32", "sharpness"]
        measures.update((str(row["asset_id"]), row) for row in ws.store.read_table(report, "measures", columns).to_pylist())
        for row in ws.store.read_table(manifest).to_pylist():
            if row["asset_id"]:
                listed[row["asset_id"]] = row
                uris[row["asset_id"]].add(row["source_uri"])
    rows = [measures[i] for i in ids]
    return _Assets(
        ids=ids,
        vectors=vectors,
        pdq=np.frombuffer(b"".join(row["pdq_hash"] for row in rows), np.uint8).reshape(len(ids), 32),  # type: ignore[misc]
        pdq_quality=np.array([row["pdq_quality"] for row in rows], np.int64),
        luma=np.frombuffer(b"".join(row["luma_32"] for row in rows), np.uint8).reshape(len(ids), 1024),  # type: ignore[misc]
        sharpness=np.array([row["sharpness"] for row in rows], np.float64),
        pixels=np.array([listed[i]["width_px"] * listed[i]["height_px"] for i in ids], np.int64),  # type: ignore[operator]
        pixel_sha256=[str(listed[i]["pixel_sha256"]) for i in ids],
        source_rows=[len(uris[i]) for i in ids],
    )


def _edges(assets: _Assets, ws: Workspace) -> NDArray[np.int64]:
    """(m, 2) verified pairs, i < j, sorted."""
    config = ws.config.dedupe
    if len(assets.ids) < 2:
        return np.zeros((0, 2), np.int64)
    by_hash, _ = hamming_pairs(assets.pdq, config.pdq_max_distance, assets.pdq_quality >= config.pdq_min_quality)
    by_vector, _ = cosine_pairs(assets.vectors, config.min_cosine)
    proposed = np.unique(np.concatenate([by_hash, by_vector]), axis=0)
    luma = luma_correlation(assets.luma, proposed)
    cosine = np.einsum("ij,ij->i", assets.vectors[proposed[:, 0]], assets.vectors[proposed[:, 1]])
    shifted = (cosine >= config.sure_cosine) & (luma >= config.sure_min_luma_correlation)
    verified = proposed[(luma >= config.min_luma_correlation) | shifted]
    first: dict[str, int] = {}
    same = [(first.setdefault(pixels, row), row) for row, pixels in enumerate(assets.pixel_sha256)]
    same_pixels = np.array([pair for pair in same if pair[0] != pair[1]], np.int64).reshape(-1, 2)
    return np.unique(np.concatenate([verified, same_pixels]), axis=0)


def _table(assets: _Assets, groups: DuplicateGroups) -> pa.Table:
    ids = assets.ids
    n = len(ids)
    keeper = groups.keeper
    component_first: dict[int, int] = {}
    for row, component in enumerate(groups.component_index):
        component_first.setdefault(int(component), row)  # ids ascend, so the first is the smallest
    pixel_first: dict[str, int] = {}
    for row, pixels in enumerate(assets.pixel_sha256):
        pixel_first.setdefault(pixels, row)
    to_keeper = np.stack([np.arange(n), keeper], axis=1)
    luma = luma_correlation(assets.luma, to_keeper) if n else np.zeros(0)
    size = np.bincount(groups.group_index, minlength=1) if n else np.zeros(1, np.int64)
    rows = []
    for row in range(n):
        kept = int(keeper[row])
        if kept == row:
            relation = "keeper" if size[groups.group_index[row]] > 1 else "single"
        else:
            relation = "same_pixels" if assets.pixel_sha256[row] == assets.pixel_sha256[kept] else "near"
        rows.append(
            {
                "asset_id": ids[row],
                "group_id": ids[kept],
                "component_id": ids[component_first[int(groups.component_index[row])]],
                "pixel_keeper": ids[pixel_first[assets.pixel_sha256[row]]],
                "relation": relation,
                "source_rows": assets.source_rows[row],
                "pdq_distance": int(np.bitwise_count(assets.pdq[row] ^ assets.pdq[kept]).sum()),
                "cosine": float(assets.vectors[row] @ assets.vectors[kept]),
                "luma_correlation": float(luma[row]),
            }
        )
    return pa.Table.from_pylist(rows, schema=schemas.DUPLICATES)


def _count(table: pa.Table) -> dict[str, int]:
    """exact_groups: same pixels in two or more listed rows. near_groups: holding a near copy. groups: either."""
    exact_rows: dict[str, int] = defaultdict(int)
    group_rows: dict[str, int] = defaultdict(int)
    near: set[str] = set()
    for row in table.to_pylist():
        exact_rows[row["pixel_keeper"]] += row["source_rows"]
        group_rows[row["group_id"]] += row["source_rows"]
        if row["relation"] == "near":
            near.add(row["group_id"])
    return {
        "exact_groups": sum(rows > 1 for rows in exact_rows.values()),
        "near_groups": len(near),
        "groups": sum(rows > 1 for rows in group_rows.values()),
    }
