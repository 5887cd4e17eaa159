"""Check: measure the assets of a manifest, run the expectations, quarantine what misses them, and keep the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from discovery import schemas
from discovery.adapters.storage import table_to_parquet
from discovery.config import CheckConfig
from discovery.core.expectations import (
    Action,
    Expectation,
    batch_expectations,
    failing_rows,
    issue_expectations,
    row_expectations,
    with_users,
)
from discovery.gallery import Tile
from discovery.quality_page import distributions_html, quality_html, tiles_html
from discovery.stages.batch_table import batch_table
from discovery.stages.expected import Judgement, columns_of, judge, users_expectations
from discovery.stages.marks import JUNK, standing_marks
from discovery.stages.measure import measure, producer_id
from discovery.stages.shards import read_shards, sources_of
from discovery.types import Manifest, Mark, QualityReport
from discovery.workspace import Workspace

SHOWN = 12  # pictures in the report that miss an expectation


def check(manifest: Manifest, ws: Workspace) -> QualityReport:
    """The quality report of one manifest, committed whether it passed or not.

    Pictures that miss an expectation whose action is `quarantine` take no further part. The report fails by an expectation that stops
    (`Expectation.stops`) and that too many miss; any other that is missed is among its `warnings`. What people marked as junk is quarantined. Raises ConfigError, before anything is
    measured, for an expectation that cannot be judged. Tally: measure.computed, measure.reused.
    """
    config = ws.config.check
    junk = _junk_of(manifest, ws)
    key = ws.key(QualityReport, [config], [manifest.id], measures=producer_id(), **({"junk": sorted(junk)} if junk else {}))
    if (found := ws.find(QualityReport, key)) is not None:
        return found

    needed = sources_of(manifest, ws)
    ids = sorted(needed)
    on_rows = expectations_on_pictures(config if ids else config.model_copy(update={"expectations": ()}))  # no rows have no columns of lists
    columns_of(batch_table(manifest, ids, None, ws), on_rows)  # raises for what is no column, before the work
    shards = measure(needed, ws)
    measures = read_shards(shards, ids, ws, without=schemas.PICTURE.name)
    table = batch_table(manifest, ids, measures if ids else None, ws, frozenset(junk))
    quarantined, judgement = _judged(table, on_rows, manifest, config)

    failed = judgement.missed
    rows = pa.table(
        {
            "asset_id": ids,
            "is_quarantined": quarantined,
            "failed": [[name for name, missed in failed.items() if missed[i]] for i in range(len(ids))],
        },
        schema=schemas.QUALITY,
    )
    details = json.dumps(judgement.to_dict(), indent=1, allow_nan=False).encode()
    html = _report(manifest, table, judgement, int(quarantined.sum()), ws)
    files = (
        ws.put_file(QualityReport, key, "table", table_to_parquet(rows), ".parquet", len(ids)),
        ws.put_file(QualityReport, key, "measures", table_to_parquet(measures), ".parquet", len(ids)),
        ws.put_file(QualityReport, key, "expectations", details, ".json"),
        ws.put_file(QualityReport, key, "report", html.encode(), ".html"),
    )
    return ws.commit(
        QualityReport(
            id=key, inputs=(manifest.id, *(shard.id for shard in shards), *(one.id for one in junk.values())), created_at=ws.clock(), files=files,
            manifest_id=manifest.id, assets=len(ids), quarantined=int(quarantined.sum()), passed=not judgement.failed,
            failed_expectations=judgement.failed, warnings=judgement.warnings,
        )
    )  # fmt: skip


def _junk_of(manifest: Manifest, ws: Workspace) -> dict[str, Mark]:
    """The manifest's assets that people marked as junk, with the marks."""
    junk = {asset_id: one for asset_id, one in standing_marks(ws.catalog).items() if one.mark == JUNK}
    if not junk:
        return {}
    listed = set(ws.store.read_table(manifest, columns=["asset_id"])["asset_id"].to_pylist())
    return {asset_id: one for asset_id, one in junk.items() if asset_id in listed}


def accepted_assets(report: QualityReport, ws: Workspace) -> list[str]:
    """Ids, ascending, of the assets that were not quarantined."""
    table = ws.store.read_table(report)
    return [row["asset_id"] for row in table.to_pylist() if not row["is_quarantined"]]


def expectations_on_pictures(config: CheckConfig) -> list[Expectation]:
    """The built-in expectations on each picture, and the user's. Raises ConfigError when a name is a built-in one's."""
    own = [
        *row_expectations(config.min_side_px, config.max_aspect, config.min_contrast, config.max_quarantined), *issue_expectations(config.max_quarantined)
    ]  # fmt: skip
    return with_users(own, users_expectations(config.expectations), batch_expectations(config.max_rejected, config.max_quarantined))


def _judged(table: pa.Table, on_rows: list[Expectation], manifest: Manifest, config: CheckConfig) -> tuple[np.ndarray, Judgement]:
    """(n,) bool of the quarantined rows, and what became of all expectations."""
    missed = failing_rows(columns_of(table, on_rows), on_rows)
    takes_out = [missed[one.name] for one in on_rows if one.action is Action.QUARANTINE]
    quarantined = np.any(takes_out, axis=0) if takes_out else np.zeros(len(table), bool)
    numbers = {
        "assets": float(len(table)),
        "rejected_share": manifest.rejected / max(manifest.rows, 1),
        "quarantined_share": int(quarantined.sum()) / max(len(table), 1),
    }
    return quarantined, judge(table, on_rows, numbers, batch_expectations(config.max_rejected, config.max_quarantined))


def _report(manifest: Manifest, table: pa.Table, judgement: Judgement, quarantined: int, ws: Workspace) -> str:
    """One self-contained page: what was expected, what missed it, some of those pictures, and how the measures are distributed."""
    rejections = ", ".join(f"{count:,} {reason}" for reason, count in manifest.rejections.items()) or "none"
    lead = (
        f"{manifest.rows:,} listed, {len(table):,} assets, {manifest.rejected:,} rejected ({rejections}), {quarantined:,} quarantined. "
        f"Manifest {manifest.id[:12]}…, sources: {', '.join(manifest.sources)}."
    )
    sections = []
    for name, missed in judgement.missed.items():
        rows = np.flatnonzero(missed)
        if len(rows):
            shown = f", the first {SHOWN}" if len(rows) > SHOWN else ""
            sections.append((f"{len(rows):,} miss {name}{shown}", tiles_html([_tile(table, int(row), ws) for row in rows[:SHOWN]])))
    names = [name for name, kind in zip(table.column_names, table.schema.types, strict=True) if pa.types.is_floating(kind)]
    numbers = {name: np.array(table[name].to_numpy(zero_copy_only=False), np.float64) for name in names}
    sections.append(("Distributions", distributions_html(numbers)))
    return quality_html(f"Quality report {manifest.id[:8]}", lead, judgement.outcomes, sections)


def _tile(table: pa.Table, row: int, ws: Workspace) -> Tile:
    asset_id, uri = table["asset_id"][row].as_py(), str(table["source_uri"][row].as_py())
    return Tile(ws.thumbnail(asset_id), Path(uri).name, f"{table['width_px'][row].as_py()} × {table['height_px'][row].as_py()}, {asset_id[:12]}…")
