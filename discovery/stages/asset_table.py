"""The asset table: one row for each asset an index snapshot covers, with all that filters, quotas and pages use."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC
from typing import Any

import numpy as np
import pyarrow as pa

from discovery.core.measures import MEASURES
from discovery.core.sessions import device_sessions
from discovery.errors import CorruptArtifact
from discovery.schemas import METADATA
from discovery.stages.history import embedding_sets
from discovery.types import DuplicateReport, IndexSnapshot, Manifest, NoveltyReport, QualityReport
from discovery.workspace import Workspace

LISTED = (
    "source_uri", "format", "width_px", "height_px", "size_bytes", "modified_at", "folder", "orientation", *METADATA.names, "video_id", "frame_s",
    "capture", "burst",
)  # fmt: skip
SCORED = ("asset_id", "novelty", "p_value", "q_value", "is_novel", "density", "is_rare")
NUMBER = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-][0-9]+)?")  # as programs write them


def novelty_reports(snapshot: IndexSnapshot, ws: Workspace) -> list[NoveltyReport]:
    """The newest novelty report of each manifest of a snapshot, oldest manifest first."""
    newest: dict[str, NoveltyReport] = {}
    for record in ws.catalog.records(NoveltyReport.stage):
        if isinstance(record, NoveltyReport) and record.encoder_id == snapshot.encoder_id:
            newest.setdefault(record.manifest_id, record)
    return [newest[manifest_id] for manifest_id in snapshot.manifests if manifest_id in newest]


def asset_table(snapshot: IndexSnapshot, ws: Workspace, novelty: list[NoveltyReport]) -> pa.Table:
    """One row an asset, ascending by asset_id.

    Of several listings of an asset the newest counts; it is removed when the newest manifest of each of its sources has it no more.

    Columns: asset_id, source_uri (its first), format, width_px, height_px, size_bytes, modified_at, folder, category (the folder's
    name), orientation, what its EXIF says (schemas.METADATA), video_id, frame_s, capture, burst, device_session, one a measure (null where the report is older than the measure), group_id, component_id, is_keeper, novelty, p_value,
    q_value, is_novel, density, is_rare, is_removed, manifest_id, report_id, and one for each name that a list used, of its type.
    """
    rows: dict[str, dict[str, Any]] = {}
    seen: set[tuple[str, ...]] = set()
    for embedded in reversed(embedding_sets(snapshot, ws)):
        report = ws.store.load_record(QualityReport, embedded.report_id)
        manifest = ws.store.load_record(Manifest, embedded.manifest_id)
        if report is None or manifest is None:
            raise CorruptArtifact(f"Embedding set {embedded.id} has lost its manifest or report. Run `discovery verify`.")
        is_newest = manifest.sources not in seen
        seen.add(manifest.sources)
        accepted = set(ws.store.read_table(embedded, "members")["asset_id"].to_pylist())
        for row in ws.store.read_table(manifest, columns=["asset_id", *LISTED, "attributes"]).to_pylist():
            if row["asset_id"] in accepted:
                known = rows.get(row["asset_id"])
                if known is None or (known["is_removed"] and is_newest):
                    about = {"category": row["folder"], "manifest_id": manifest.id, "report_id": report.id}
                    rows[row["asset_id"]] = {**row, **about, "is_removed": not is_newest}
        measured = ws.store.read_table(report, "measures")
        present = [name for name in ("asset_id", *sorted(MEASURES)) if name in measured.column_names]  # a measure may be younger
        for row in measured.select(present).to_pylist():
            if row["asset_id"] in rows and rows[row["asset_id"]]["report_id"] == report.id:
                rows[row["asset_id"]].update(row)
    _add_duplicates(rows, snapshot, ws)
    for record in novelty:
        scored = ws.store.read_table(record)
        for row in scored.select([name for name in SCORED if name in scored.column_names]).to_pylist():  # a report may be older than a column
            if row["asset_id"] in rows:
                rows[row["asset_id"]].update(row)
    ordered = [rows[asset_id] for asset_id in sorted(rows)]
    _add_sessions(ordered)
    return with_attributes(pa.Table.from_pylist(ordered, schema=_schema()), [row["attributes"] for row in ordered])


def column_names() -> list[str]:
    """The columns that every asset table has."""
    return list(_schema().names)


def with_attributes(table: pa.Table, attributes: list[str | None]) -> pa.Table:
    """A column for each name that lists and sidecars use, in lower case: filters take Label and label for one.

    Of two spellings in one row the last counts, which is a list's before a sidecar's. A name of our own columns gets the prefix
    `said_`.
    """
    own = set(table.column_names)
    said: list[dict[str, Any]] = []
    for text in attributes:
        values: dict[str, Any] = {}
        for name, value in (json.loads(text) if text else {}).items():
            if value is not None:
                values[f"said_{column_name(name)}" if column_name(name) in own else column_name(name)] = value
        said.append(values)
    for name in sorted({name for one in said for name in one}):
        table = table.append_column(name, _typed([one.get(name) for one in said]))
    return table


def column_name(name: str) -> str:
    """A name as the asset table has it: in lower case as far as DuckDB takes letters of two cases for one, which is ASCII.

    >>> column_name("Label"), column_name("ÄB")
    ('label', 'Äb')
    """
    return "".join(letter.lower() if letter.isascii() else letter for letter in name)


def _typed(values: list[Any]) -> pa.Array:
    """Truth values or numbers where all values are, or are the text of, such; else text. Null stays null.

    Text that would lose something as a number stays text: 007, a whole number of 2**53 or more, the 1e5 of a hash.
    """
    for read, kind in ((_truth, pa.bool_()), (_number, pa.float64())):
        found = [None if value is None else read(value) for value in values]
        if all(value is None or one is not None for value, one in zip(values, found, strict=True)):
            return pa.array(found, kind)
    texts = [value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values]
    return pa.array(texts, pa.string())


def _truth(value: Any) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, str) and not NUMBER.fullmatch(value.strip()):
        return None
    number = float(value)
    is_whole = isinstance(value, int) or (isinstance(value, str) and value.strip().lstrip("-").isdigit())
    return number if math.isfinite(number) and (abs(number) < 2**53 or not is_whole) else None


def _add_duplicates(rows: dict[str, dict[str, Any]], snapshot: IndexSnapshot, ws: Workspace) -> None:
    report = ws.store.load_record(DuplicateReport, snapshot.duplicates_id)
    if report is None:
        raise CorruptArtifact(f"Duplicate report {snapshot.duplicates_id} is missing. Run `discovery verify`.")
    for row in ws.store.read_table(report, columns=["asset_id", "group_id", "keeper_id", "component_id"]).to_pylist():
        if row["asset_id"] in rows:
            rows[row["asset_id"]].update(row, is_keeper=row["keeper_id"] == row["asset_id"], is_novel=False, is_rare=False)
    for asset_id in sorted(rows):  # a group whose keeper is gone is kept by another
        keeper = rows.get(str(rows[asset_id].get("keeper_id")))
        if keeper is not None and keeper["is_removed"] and keeper["is_keeper"] and not rows[asset_id]["is_removed"]:
            keeper["is_keeper"], rows[asset_id]["is_keeper"] = False, True


def _add_sessions(rows: list[dict[str, Any]]) -> None:
    cameras = [" ".join(text for text in (row["camera_make"], row["camera_model"]) if text) or None for row in rows]
    taken = np.array([math.nan if row["taken_at"] is None else row["taken_at"].replace(tzinfo=UTC).timestamp() for row in rows])
    for row, session in zip(rows, device_sessions(cameras, taken), strict=True):
        row["device_session"] = session


def _schema() -> pa.Schema:
    text, number = pa.string(), pa.float64()
    return pa.schema(
        [
            ("asset_id", text), ("source_uri", text), ("format", text), ("width_px", pa.int32()), ("height_px", pa.int32()),
            ("size_bytes", pa.int64()), ("modified_at", text), ("folder", text), ("category", text), ("orientation", pa.int8()), *METADATA,
            ("video_id", text), ("frame_s", number), ("capture", text), ("burst", text), ("device_session", text),
            *((name, number) for name in sorted(MEASURES)),
            ("group_id", text), ("component_id", text), ("is_keeper", pa.bool_()), ("novelty", number), ("p_value", number),
            ("q_value", number), ("is_novel", pa.bool_()), ("density", number), ("is_rare", pa.bool_()), ("is_removed", pa.bool_()), ("manifest_id", text), ("report_id", text),
        ]
    )  # fmt: skip
