"""Check: measure the assets of a manifest, run the expectations, quarantine what fails, and keep the report."""

from __future__ import annotations

import json
from html import escape

import numpy as np
import pandas as pd
import pyarrow as pa

from discovery import schemas
from discovery.adapters.storage import table_to_parquet
from discovery.core.expectations import RowExpectation, failing_rows, row_expectations
from discovery.core.measures import MEASURES
from discovery.stages.measure import measure, producer_id
from discovery.stages.shards import read_shards, sources_of
from discovery.types import Manifest, QualityReport
from discovery.workspace import Workspace


def check(manifest: Manifest, ws: Workspace) -> QualityReport:
    """The quality report of one manifest, committed whether it passed or not.

    A row expectation fails when more than check.max_quarantined of the pictures miss it; every picture that misses one is
    quarantined either way and takes no further part. Tally: measure.computed, measure.reused.
    """
    config = ws.config.check
    key = ws.key(QualityReport, [config], [manifest.id], measures=producer_id())
    if (found := ws.find(QualityReport, key)) is not None:
        return found

    needed = sources_of(manifest, ws)
    ids = sorted(needed)
    shards = measure(needed, ws)
    measures = read_shards(shards, ids, ws, without=schemas.PICTURE.name)
    frame = _frame(manifest, ids, measures, ws)
    expectations = row_expectations(config.min_side_px, config.max_aspect, config.min_contrast)
    columns = {name: frame[name].to_numpy(np.float64) for name in frame.columns if name != "asset_id"}
    failed = failing_rows(columns, expectations)
    quarantined = np.any(list(failed.values()), axis=0) if ids else np.zeros(0, bool)
    passed, details = _run_expectations(frame, expectations, manifest, int(quarantined.sum()), ws)

    table = pa.table(
        {
            "asset_id": ids,
            "is_quarantined": quarantined,
            "failed": [[name for name, rows in failed.items() if rows[i]] for i in range(len(ids))],
        },
        schema=schemas.QUALITY,
    )
    html = report_html(manifest, frame, expectations, failed, passed)
    files = (
        ws.put_file(QualityReport, key, "table", table_to_parquet(table), ".parquet", len(ids)),
        ws.put_file(QualityReport, key, "measures", table_to_parquet(measures), ".parquet", len(ids)),
        ws.put_file(QualityReport, key, "expectations", json.dumps(details, indent=1).encode(), ".json"),
        ws.put_file(QualityReport, key, "report", html.encode(), ".html"),
    )
    return ws.commit(
        QualityReport(
            id=key, inputs=(manifest.id, *(shard.id for shard in shards)), created_at=ws.clock(), files=files,
            manifest_id=manifest.id, assets=len(ids), quarantined=int(quarantined.sum()), passed=all(passed.values()),
            failed_expectations=tuple(sorted(name for name, ok in passed.items() if not ok)),
        )
    )  # fmt: skip


def accepted_assets(report: QualityReport, ws: Workspace) -> list[str]:
    """Ids, ascending, of the assets that were not quarantined."""
    table = ws.store.read_table(report)
    return [row["asset_id"] for row in table.to_pylist() if not row["is_quarantined"]]


def _frame(manifest: Manifest, ids: list[str], measures: pa.Table, ws: Workspace) -> pd.DataFrame:
    """One row a picture: its measures and what the manifest says of its size, as numbers."""
    rows = ws.store.read_table(manifest, columns=["asset_id", "width_px", "height_px"]).to_pylist()
    sizes = {row["asset_id"]: (row["width_px"], row["height_px"]) for row in rows if row["asset_id"]}
    frame = pd.DataFrame({"asset_id": ids})
    short = np.array([min(sizes[i]) for i in ids], np.float64)
    long = np.array([max(sizes[i]) for i in ids], np.float64)
    frame["shorter_side_px"] = short
    frame["aspect"] = long / np.maximum(short, 1.0)
    for name in sorted(MEASURES):
        frame[name] = measures[name].to_numpy() if ids else np.zeros(0)
    return frame


def _run_expectations(
    frame: pd.DataFrame, expectations: list[RowExpectation], manifest: Manifest, quarantined: int, ws: Workspace
) -> tuple[dict[str, bool], dict[str, object]]:
    from discovery.adapters.quality_gx import BatchExpectation, run_suite

    config = ws.config.check
    batch = {
        "assets": float(len(frame)),
        "rejected_share": manifest.rejected / max(manifest.rows, 1),
        "quarantined_share": quarantined / max(len(frame), 1),
    }
    limits = [
        BatchExpectation("batch_has_assets", "assets", 1, None),
        BatchExpectation("few_rejected", "rejected_share", None, config.max_rejected),
        BatchExpectation("few_quarantined", "quarantined_share", None, config.max_quarantined),
    ]
    result = run_suite(frame, expectations, 1.0 - config.max_quarantined, batch, limits)
    return result.passed, result.details


def report_html(
    manifest: Manifest,
    frame: pd.DataFrame,
    expectations: list[RowExpectation],
    failed: dict[str, np.ndarray],
    passed: dict[str, bool],
) -> str:
    """One self-contained page: what was expected, how many missed it, and how the measures are distributed."""
    lines = []
    for item in expectations:
        low = "" if item.minimum is None else f"{item.minimum:g} ≤ "
        high = "" if item.maximum is None else f" ≤ {item.maximum:g}"
        missed = int(failed[item.name].sum())
        verdict = "pass" if passed.get(item.name, True) else "FAIL"
        lines.append(f"<tr><td>{escape(item.name)}<td>{low}{escape(item.column)}{high}<td>{missed}<td class={verdict}>{verdict}")
    for name in ("batch_has_assets", "few_rejected", "few_quarantined"):
        verdict = "pass" if passed[name] else "FAIL"
        lines.append(f"<tr><td>{name}<td>whole batch<td><td class={verdict}>{verdict}")
    quantiles = []
    if len(frame):
        for name in [column for column in frame.columns if column != "asset_id"]:
            values = np.quantile(frame[name].to_numpy(np.float64), [0, 0.05, 0.5, 0.95, 1])
            quantiles.append(f"<tr><td>{escape(name)}" + "".join(f"<td>{value:.4g}" for value in values))
    return f"""<!doctype html><html lang=en><meta charset=utf-8><title>Quality report</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;margin:2rem;max-width:60rem}}table{{border-collapse:collapse;margin:1rem 0}}
td,th{{padding:.3rem .8rem;border-bottom:1px solid #ddd;text-align:left}}.pass{{color:#137333}}.FAIL{{color:#b3261e;font-weight:600}}</style>
<h1>Quality report</h1><p>{manifest.rows:,} listed, {len(frame):,} assets, {manifest.rejected:,} rejected
({escape(", ".join(f"{n} {reason}" for reason, n in manifest.rejections.items()) or "none")}).</p>
<table><tr><th>expectation<th>bounds<th>pictures that miss it<th>result{"".join(lines)}</table>
<h2>Measures</h2><table><tr><th>measure<th>min<th>5 %<th>median<th>95 %<th>max{"".join(quantiles)}</table></html>"""
