"""The asset table: one row for each asset an index snapshot covers, with all that filters, quotas and pages use."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from discovery import schemas
from discovery.core.measures import MEASURES
from discovery.core.sessions import device_sessions
from discovery.errors import CorruptArtifact
from discovery.schemas import METADATA
from discovery.spec import column_name
from discovery.stages.history import embedding_sets, load_snapshot
from discovery.types import DatasetVersion, DuplicateReport, IndexSnapshot, Manifest, NoveltyReport, QualityReport
from discovery.workspace import Workspace

LISTED = (
    "source_uri", "format", "width_px", "height_px", "size_bytes", "modified_at", "folder", "orientation", *METADATA.names, "video_id", "frame_s",
    "capture", "burst",
)  # fmt: skip
Ids = NDArray[np.bytes_]  # (n,) S64
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
    listed = _listed(snapshot, ws)
    ids = schemas.ids_of(listed["asset_id"])
    columns = {name: listed[name] for name in listed.column_names if name != "attributes"}
    columns |= _measured(ids, listed, snapshot, ws)
    columns |= _copies(ids, columns["is_removed"], snapshot, ws)
    for record in novelty:
        table = ws.store.read_table(record)
        scored = table.select([name for name in SCORED if name in table.column_names])  # a report may be older than a column
        _overlay(columns, ids, scored, len(ids))
    columns["device_session"] = _sessions(listed)
    schema = _schema()
    arrays = [columns[field.name].cast(field.type) if field.name in columns else pa.nulls(len(ids), field.type) for field in schema]
    return with_attributes(pa.Table.from_arrays(arrays, schema=schema), listed["attributes"].to_pylist())


def assets_of(version: DatasetVersion, ws: Workspace) -> pa.Table:
    """The asset table that a version was made over, the same whenever it is asked for. Raises CorruptArtifact when the store lost what it was made from."""
    novelty = [report for key in version.inputs if (report := ws.store.load_record(NoveltyReport, key)) is not None]
    return asset_table(load_snapshot(version.snapshot_id, ws), ws, novelty)


def empty_table() -> pa.Table:
    """The columns that every asset table has, without rows."""
    return _schema().empty_table()


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


def _typed(values: list[Any]) -> pa.Array:
    """Truth values or numbers where all values are, or are the text of, such; else text. Null stays null.

    Text that would lose something as a number stays text: 007, a whole number of 2**53 or more, the 1e5 of a hash, the 1.10 beside a 1.1 or a 2.0.
    """
    for read, kind in ((_truth, pa.bool_()), (_number, pa.float64())):
        found = [None if value is None else read(value) for value in values]
        if all(value is None or one is not None for value, one in zip(values, found, strict=True)) and (kind == pa.bool_() or _come_back(values)):
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


def _come_back(values: list[Any]) -> bool:
    """Whether each text that is a number could be told from the number: no two are one, and 1.10 is there only where all have two decimals."""
    texts = {value.strip() for value in values if isinstance(value, str)}
    if len({float(text) for text in texts}) < len(texts):
        return False
    plain = {text for text in texts if "e" not in text.lower()}
    decimals = {len(text.partition(".")[2]) for text in plain}
    return len(decimals) <= 1 or not any("." in text and text.endswith("0") and not text.endswith(".0") for text in plain)


def _listed(snapshot: IndexSnapshot, ws: Workspace) -> pa.Table:
    """LISTED columns, attributes, category, manifest_id, report_id and is_removed, one row an asset, ascending by id.

    Of the manifests that list an asset the newest of those that are the newest of their sources counts, else the newest; of its rows there the first.
    """
    parts: list[pa.Table] = []
    seen: set[tuple[str, ...]] = set()
    for embedded in reversed(embedding_sets(snapshot, ws)):
        report = ws.store.load_record(QualityReport, embedded.report_id)
        manifest = ws.store.load_record(Manifest, embedded.manifest_id)
        if report is None or manifest is None:
            raise CorruptArtifact(f"Embedding set {embedded.id} has lost its manifest or report. Run `discovery verify`.")
        is_newest = manifest.sources not in seen
        seen.add(manifest.sources)
        accepted = ws.store.read_table(embedded, "members")["asset_id"].combine_chunks()
        table = ws.store.read_table(manifest, columns=["asset_id", *LISTED, "attributes"])
        table = table.filter(pc.is_in(table["asset_id"], accepted))
        for name, value in (("manifest_id", manifest.id), ("report_id", report.id), ("is_removed", not is_newest)):
            table = table.append_column(name, pa.repeat(pa.scalar(value), len(table)))
        parts.append(table.append_column("category", table["folder"]))
    if not parts:
        raise CorruptArtifact(f"Index snapshot {snapshot.id} has no embedding set. Run `discovery verify`.")
    whole = pa.concat_tables(parts, promote_options="permissive")
    ids = schemas.ids_of(whole["asset_id"])
    removed = whole["is_removed"].to_numpy()
    order = np.lexsort((np.arange(len(ids)), removed, ids))
    first = np.ones(len(order), bool)
    first[1:] = ids[order][1:] != ids[order][:-1]
    return whole.take(pa.array(order[first])).combine_chunks()


def _measured(ids: Ids, listed: pa.Table, snapshot: IndexSnapshot, ws: Workspace) -> dict[str, pa.ChunkedArray]:
    """A column a measure, of each asset by the report that counts for it."""
    names = sorted(MEASURES)
    values = {name: np.full(len(ids), np.nan) for name in names}
    of_report = np.array(listed["report_id"].to_pylist(), object)
    for report_id in dict.fromkeys(embedded.report_id for embedded in embedding_sets(snapshot, ws)):
        rows = np.flatnonzero(of_report == report_id)
        report = ws.store.load_record(QualityReport, report_id)
        if report is None or not len(rows):
            continue
        table = ws.store.read_table(report, "measures")
        place, known = _places(schemas.ids_of(table["asset_id"]), ids[rows])
        for name in names:
            if name in table.column_names:  # a measure may be younger
                values[name][rows[known]] = table[name].to_numpy()[place[known]]
    return {name: pa.chunked_array([pa.array(found, pa.float64(), from_pandas=True)]) for name, found in values.items()}


def _copies(ids: Ids, is_removed: pa.ChunkedArray, snapshot: IndexSnapshot, ws: Workspace) -> dict[str, pa.ChunkedArray]:
    """group_id, component_id, is_keeper, and the answers of what was never scored."""
    report = ws.store.load_record(DuplicateReport, snapshot.duplicates_id)
    if report is None:
        raise CorruptArtifact(f"Duplicate report {snapshot.duplicates_id} is missing. Run `discovery verify`.")
    table = ws.store.read_table(report, columns=["asset_id", "group_id", "keeper_id", "component_id"])
    place, known = _places(schemas.ids_of(table["asset_id"]), ids)
    taken = table.take(pa.array(place, mask=~known))
    keeper = np.where(known, schemas.ids_of(table["keeper_id"])[place], b"") if len(table) else np.zeros(len(ids), "S64")
    is_keeper = keeper == ids
    removed = is_removed.to_numpy()
    gone = ids[is_keeper & removed]
    heirs = np.flatnonzero(np.isin(keeper, gone) & ~removed)  # a group whose keeper is gone is kept by another, the first by id
    heirs = heirs[np.unique(keeper[heirs], return_index=True)[1]]
    is_keeper[np.isin(ids, keeper[heirs])] = False
    is_keeper[heirs] = True
    no = pa.chunked_array([pa.array(np.zeros(len(ids), bool), mask=~known)])
    return {
        "group_id": taken["group_id"], "component_id": taken["component_id"], "is_keeper": pa.chunked_array([pa.array(is_keeper, mask=~known)]),
        "is_novel": no, "is_rare": no,
    }  # fmt: skip


def _overlay(columns: dict[str, pa.ChunkedArray], ids: Ids, table: pa.Table, n: int) -> None:
    """Put the values of a table over those that there are, for the assets that it has."""
    place, known = _places(schemas.ids_of(table["asset_id"]), ids)
    mask = pa.array(known)
    taken = table.take(pa.array(place, mask=~known))
    for name in table.column_names[1:]:
        before = columns.get(name, pa.chunked_array([pa.nulls(n, table[name].type)]))
        columns[name] = pc.if_else(mask, taken[name], before.cast(table[name].type))


def _places(table_ids: Ids, ids: Ids) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """For each id its row in a table, 0 where it has none, and whether it has one; of several the last."""
    if not len(table_ids):
        return np.zeros(len(ids), np.int64), np.zeros(len(ids), bool)
    order = np.argsort(table_ids, kind="stable")
    last = np.searchsorted(table_ids[order], ids, side="right") - 1
    found = order[np.maximum(last, 0)]
    known = (last >= 0) & (table_ids[found] == ids)
    return np.where(known, found, 0), known


def _sessions(listed: pa.Table) -> pa.ChunkedArray:
    makes, models = (listed[name].to_pylist() for name in ("camera_make", "camera_model"))
    cameras = [" ".join(text for text in pair if text) or None for pair in zip(makes, models, strict=True)]
    moments = listed["taken_at"].cast(pa.timestamp("ms")).cast(pa.int64()).to_numpy(zero_copy_only=False).astype(np.float64) / 1000
    return pa.chunked_array([pa.array(device_sessions(cameras, moments), pa.string())])


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
