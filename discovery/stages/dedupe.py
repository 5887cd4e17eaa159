"""Dedupe: exact and near copies among all that is known up to a manifest, in groups with a keeper; only what is new is compared."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from discovery import schemas
from discovery.adapters.calibrations import packaged_calibration
from discovery.adapters.storage import table_to_parquet
from discovery.addressing import content_id
from discovery.core.duplicates import DuplicateGroups, carry_group_ids
from discovery.core.projection import Projection
from discovery.core.relations import transformation
from discovery.errors import CorruptArtifact
from discovery.stages.copies import Assets, Pair, Proposer, find_pairs, group_assets
from discovery.stages.history import embedding_sets, snapshot_before
from discovery.stages.measure import COPIES_VERSION
from discovery.stages.shards import load_vectors, vectors_of
from discovery.types import (
    DuplicateCalibration,
    DuplicateReport,
    EmbeddingSet,
    IndexSnapshot,
    Manifest,
    MeasureShard,
    QualityReport,
)
from discovery.workspace import Workspace


def dedupe(manifest: Manifest, embeddings: EmbeddingSet, ws: Workspace) -> DuplicateReport:
    """Groups over the manifest's assets and all that were indexed before it.

    A pair is proposed by its perceptual hash, by its small luma in any of eight turns, or by its embedding, and is a link only when one
    laid on the other leaves little unexplained. Pairs that an earlier report by the same method verified are taken over; new assets are
    compared with old ones and with each other. The groups are those that comparing all would give. Tally:
    dedupe.compared_assets.
    """
    config = ws.config.dedupe
    before = snapshot_before(manifest, embeddings.encoder_id, ws)
    proposer = proposer_for(embeddings.encoder_id, ws)
    key = ws.key(
        DuplicateReport, [config], [before.id if before else "", embeddings.id], calibration=proposer.id, measures=COPIES_VERSION
    )
    if (found := ws.find(DuplicateReport, key)) is not None:
        return found
    method = content_id(["duplicates", DuplicateReport.version, config.identity(), proposer.id, embeddings.encoder_id, COPIES_VERSION])
    sets = [*embedding_sets(before, ws), embeddings]
    assets = load_assets(sets, ws)
    earlier, complete, earlier_groups = _earlier(before, method, ws)
    pairs = find_pairs(
        assets, earlier, complete, proposer, config, lambda wanted: load_pictures(wanted, sets, ws), ws.report,
        lambda units: ws.map_shards if ws.width(units) > 1 else None,
    )  # fmt: skip
    ws.tally["dedupe.compared_assets"] += len(set(assets.ids) - complete)
    ws.report(f"dedupe: {len(assets.ids):,} assets, {len(complete):,} of them compared before, {len(pairs):,} verified pairs")
    groups = group_assets(assets, pairs)
    table = duplicates_table(assets, groups, pairs, earlier_groups)
    pair_table = pa.Table.from_pylist([pair.row() for pair in pairs], schema=schemas.PAIRS)
    files = (
        ws.put_file(DuplicateReport, key, "table", table_to_parquet(table), ".parquet", len(table)),
        ws.put_file(DuplicateReport, key, "pairs", table_to_parquet(pair_table), ".parquet", len(pair_table)),
    )
    return ws.commit(
        DuplicateReport(
            id=key, inputs=(embeddings.id, *((before.id,) if before else ())), created_at=ws.clock(), files=files,
            manifest_id=manifest.id, encoder_id=embeddings.encoder_id, method=method, calibration=proposer.id, assets=len(assets.ids),
            pairs=len(pairs), **_count(table),
        )
    )  # fmt: skip


def duplicate_groups(report: DuplicateReport, ws: Workspace) -> list[list[str]]:
    """Asset ids of every group of two or more assets, keeper first, largest group first."""
    members: dict[str, list[str]] = defaultdict(list)
    for row in ws.store.read_table(report, columns=["asset_id", "keeper_id"]).to_pylist():
        members[row["keeper_id"]].append(row["asset_id"])
    groups = [[keeper, *sorted(set(ids) - {keeper})] for keeper, ids in members.items() if len(ids) > 1]
    return sorted(groups, key=lambda ids: (-len(ids), ids[0]))


def proposer_for(encoder_id: str, ws: Workspace) -> Proposer:
    """The newest calibration of an encoder in this store, else the package's, else the configured cosine."""
    for record in ws.catalog.records(DuplicateCalibration.stage):
        if isinstance(record, DuplicateCalibration) and record.encoder_id == encoder_id:
            table = ws.store.read_table(record)
            rows = vectors_of(table)
            variances = np.array(table["variance"].to_pylist()[1:], np.float64)
            return Proposer(record.id, record.threshold, Projection(rows[0], np.ascontiguousarray(rows[1:].T), variances, 0.0))
    if (packaged := packaged_calibration(encoder_id)) is not None:
        return Proposer(packaged.id, packaged.threshold, packaged.projection)
    return Proposer("", ws.config.dedupe.min_cosine, None)


def duplicates_table(
    assets: Assets, groups: DuplicateGroups, pairs: Sequence[Pair], earlier_groups: Mapping[str, str]
) -> pa.Table:
    """One row an asset, in the order of their ids; schemas.DUPLICATES."""
    ids, keeper = assets.ids, groups.keeper.tolist()
    names = carry_group_ids(ids, groups.keeper, earlier_groups)
    component_first: dict[int, str] = {}
    pixel_first: dict[str, str] = {}
    for asset_id, component, pixels in zip(ids, groups.component_index.tolist(), assets.pixel_sha256, strict=True):
        component_first.setdefault(component, asset_id)  # ids ascend, so the first is the smallest
        pixel_first.setdefault(pixels, asset_id)
    linked = {(pair.asset_a, pair.asset_b): pair for pair in pairs}
    members: dict[int, list[int]] = defaultdict(list)
    for row, kept in enumerate(keeper):
        members[kept].append(row)
    rows = []
    for row, kept in enumerate(keeper):
        size = (int(assets.size[row, 0]), int(assets.size[row, 1]))
        alone = len(members[kept]) == 1
        values: dict[str, object] = {"relation": "single" if alone else "keeper", "transformation": "", "kept_because": ""}
        if kept != row:
            from_b = ids[kept] > ids[row]
            pair = linked[(ids[row], ids[kept]) if from_b else (ids[kept], ids[row])]
            of_keeper = (int(assets.size[kept, 0]), int(assets.size[kept, 1]))
            sizes = (size, of_keeper) if from_b else (of_keeper, size)
            values |= {
                "relation": pair.relation, "transformation": transformation(pair.seen, *sizes, from_b=from_b),
                "luma_correlation": pair.luma_correlation, "difference": pair.difference,
            }  # fmt: skip
        elif not alone:
            values["kept_because"] = _why(assets, row, [other for other in members[kept] if other != row])
        rows.append(
            {
                "asset_id": ids[row],
                "group_id": names[row],
                "keeper_id": ids[kept],
                "component_id": component_first[int(groups.component_index[row])],
                "pixel_keeper": pixel_first[assets.pixel_sha256[row]],
                "source_rows": assets.source_rows[row],
                "pdq_distance": int(np.bitwise_count(assets.pdq[row] ^ assets.pdq[kept]).sum()),
                "cosine": float(assets.vectors[row] @ assets.vectors[kept]),
                **values,
            }
        )
    return pa.Table.from_pylist(rows, schema=schemas.DUPLICATES)


def _why(assets: Assets, kept: int, others: list[int]) -> str:
    """Why `kept` is the keeper: the first rule that no other member meets as well."""
    pixels = assets.size[:, 0] * assets.size[:, 1]
    equals = [other for other in others if pixels[other] == pixels[kept]]
    size = f"{assets.size[kept, 0]} x {assets.size[kept, 1]}"
    if not equals:
        return f"most pixels ({size})"
    if all(assets.sharpness[other] < assets.sharpness[kept] for other in equals):
        return f"of those with most pixels ({size}) the sharpest"
    return f"of equal size ({size}) and sharpness the smallest id"


def _earlier(before: IndexSnapshot | None, method: str, ws: Workspace) -> tuple[list[Pair], frozenset[str], dict[str, str]]:
    """What the report of the snapshot verified, among which assets: nothing when it used another method. And its groups' ids."""
    report = ws.store.load_record(DuplicateReport, before.duplicates_id) if before is not None else None
    if report is None:
        return [], frozenset(), {}
    groups = {row["asset_id"]: row["group_id"] for row in ws.store.read_table(report, columns=["asset_id", "group_id"]).to_pylist()}
    if report.method != method:
        return [], frozenset(), groups
    pairs = [Pair.from_row(row) for row in ws.store.read_table(report, "pairs").to_pylist()]
    return pairs, frozenset(groups), groups


def load_assets(sets: Sequence[EmbeddingSet], ws: Workspace) -> Assets:
    """The columns of every asset in these embedding sets; memory is about 5 KB an asset with 1,280 dimensions."""
    ids, vectors = load_vectors(sets, ws)
    place = {asset_id: row for row, asset_id in enumerate(ids)}
    n = len(ids)
    assets = Assets(
        ids, vectors, np.zeros((n, 32), np.uint8), np.zeros(n, np.int64), np.zeros((n, 256), np.uint8), np.zeros(n, np.float64),
        np.ones((n, 2), np.int64), [""] * n, [None] * n, [0] * n,
    )  # fmt: skip
    uris: Counter[str] = Counter()
    counted: set[tuple[str, str]] = set()
    measured = np.zeros(n, bool)
    for embedded in sets:
        report = ws.store.load_record(QualityReport, embedded.report_id)
        manifest = ws.store.load_record(Manifest, embedded.manifest_id)
        if report is None or manifest is None:
            raise CorruptArtifact(f"Embedding set {embedded.id} has lost its manifest or report. Run `discovery verify`.")
        table = ws.store.read_table(report, "measures")
        if "luma_16" in table.column_names:  # reports of an older version measured less
            columns = [table[name].to_pylist() for name in ("asset_id", "pdq_hash", "pdq_quality", "luma_16", "sharpness")]
            for asset_id, pdq, quality, luma, sharpness in zip(*columns, strict=True):
                if (row := place.get(asset_id)) is not None:
                    assets.pdq[row], assets.pdq_quality[row] = np.frombuffer(pdq, np.uint8), quality
                    assets.luma[row], assets.sharpness[row] = np.frombuffer(luma, np.uint8), sharpness
                    measured[row] = True
        listed = ws.store.read_table(
            manifest, columns=["asset_id", "source_uri", "width_px", "height_px", "pixel_sha256", "burst"]
        )
        for asset_id, uri, width, height, pixels, burst in zip(*(column.to_pylist() for column in listed.columns), strict=True):
            if asset_id and (asset_id, uri) not in counted:
                counted.add((asset_id, uri))
                uris[asset_id] += 1
            if asset_id and (row := place.get(asset_id)) is not None:
                assets.size[row], assets.pixel_sha256[row], assets.burst[row] = (width, height), pixels, burst
    if not measured.all():
        first = ids[int(np.argmin(measured))]
        raise CorruptArtifact(
            f"{int((~measured).sum())} assets were measured by an older version, first {first}. Ingest and check their sources again."
        )
    assets.source_rows[:] = [uris[asset_id] for asset_id in ids]
    return assets


def load_pictures(wanted: set[str], sets: Sequence[EmbeddingSet], ws: Workspace) -> dict[str, NDArray[np.uint8]]:
    """What small_picture made of the wanted assets, from the measure shards; CorruptArtifact when one is missing."""
    found: dict[str, NDArray[np.uint8]] = {}
    read: set[str] = set()
    for embedded in reversed(sets):
        report = ws.store.load_record(QualityReport, embedded.report_id)
        for key in report.inputs[1:] if report is not None else ():
            if key in read or len(found) == len(wanted):
                continue
            read.add(key)
            shard = ws.store.load_record(MeasureShard, key)
            table = ws.store.read_table(shard) if shard is not None else pa.table({})
            if "picture_64" not in table.column_names:
                continue
            for asset_id, picture in zip(table["asset_id"].to_pylist(), table["picture_64"], strict=True):
                if asset_id in wanted:
                    found[asset_id] = np.frombuffer(picture.as_py(), np.uint8)
    if absent := wanted - set(found):
        raise CorruptArtifact(f"{len(absent)} assets have no small picture, first {min(absent)}. Run `discovery verify`.")
    return found


def _count(table: pa.Table) -> dict[str, int]:
    """exact_groups: same pixels in two or more listed rows. near_groups: holding a near copy. groups: either."""
    exact_rows: dict[str, int] = defaultdict(int)
    group_rows: dict[str, int] = defaultdict(int)
    near: set[str] = set()
    for row in table.select(["pixel_keeper", "group_id", "source_rows", "relation"]).to_pylist():
        exact_rows[row["pixel_keeper"]] += row["source_rows"]
        group_rows[row["group_id"]] += row["source_rows"]
        if row["relation"] not in ("single", "keeper", "same_pixels"):
            near.add(row["group_id"])
    return {
        "exact_groups": sum(rows > 1 for rows in exact_rows.values()),
        "near_groups": len(near),
        "groups": sum(rows > 1 for rows in group_rows.values()),
    }
