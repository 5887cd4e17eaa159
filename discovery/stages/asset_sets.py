"""Sets of assets that people name: a version, a source, a batch, all that an SQL expression finds, or everything that is indexed."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from discovery import schemas
from discovery.adapters.filters import filter_assets
from discovery.addressing import content_id
from discovery.core.draws import id_array
from discovery.errors import ConfigError, CorruptArtifact, InvalidInput
from discovery.stages.asset_table import asset_table, novelty_reports
from discovery.stages.history import current_snapshot, embedding_sets, get_manifest, load_snapshot, newest_sets
from discovery.stages.open_index import open_index
from discovery.stages.versions import find_version, member_ids
from discovery.types import DuplicateReport, IndexSnapshot, Manifest
from discovery.workspace import Workspace

FORM = re.compile(r"(?P<kind>source|where|manifest):(?P<rest>.+)", re.DOTALL)
Ids = NDArray[np.bytes_]  # (n,) S64


@dataclass(frozen=True, slots=True)
class AssetSet:
    """Assets of one index snapshot, each duplicate group once. `id` names what they are; `inputs` are the records they come from.

    rows: (n,) int64, ascending, rows of the snapshot's open index. label: the set in words.
    """

    id: str
    label: str
    inputs: tuple[str, ...]
    snapshot: IndexSnapshot
    rows: NDArray[np.int64]


def find_set(text: str, ws: Workspace, snapshot: IndexSnapshot | None = None) -> AssetSet:
    """The set that a text names.

    text: `all`; a version as `name@3` or by its id; `source:URI`, what the newest listings have under that URI; `manifest:ID`, what one ingest
    read; `where:SQL`, an expression over the asset table. snapshot: where all but versions are looked up; default the current one. A
    version has the snapshot that it was made from. Of a duplicate group the keeper is taken, or the smallest id where the set lacks it. Raises
    ConfigError for another form, SpecError for a wrong expression, UnknownRecord, and InvalidInput for a set that is empty.
    """
    match = FORM.fullmatch(text.strip())
    inputs: list[str] = []
    if text.strip() == "all":
        snapshot = snapshot or current_snapshot(ws)
        name, label, ids = snapshot.id, "all that is indexed", None
    elif match is None:
        version = find_version(text.strip(), ws)
        snapshot, inputs = load_snapshot(version.snapshot_id, ws), [version.id]
        name, label, ids = version.id, text.strip(), id_array(member_ids(version, ws))
    else:
        snapshot = snapshot or current_snapshot(ws)
        kind, rest = match["kind"], match["rest"].strip()
        if kind == "where":
            novelty = novelty_reports(snapshot, ws)
            inputs = [report.id for report in novelty]
            kept = filter_assets(asset_table(snapshot, ws, novelty), rest)
            ids = id_array(kept.filter(pc.invert(pc.fill_null(kept["is_removed"], False)))["asset_id"].to_pylist())
            label = rest
        elif kind == "source":
            ids, label = _under(rest, snapshot, ws), rest
        else:
            manifest = get_manifest(rest, ws)
            if manifest.id not in snapshot.manifests:
                raise ConfigError(f"Manifest {manifest.id[:12]}… is not in the index that is asked. Run `discovery index`, or name another set.")
            inputs, rest = [manifest.id], manifest.id
            ids, label = _members(manifest, ws), f"batch {manifest.id[:8]} of {', '.join(manifest.sources)}"
        name = content_id(["asset_set", kind, rest, snapshot.id, *inputs])
    rows = distinct_rows(ids, snapshot, ws)
    if not len(rows):
        raise InvalidInput(f"The set {text!r} is empty: {'none of its assets is indexed' if ids is not None and len(ids) else 'nothing is in it'}.")
    return AssetSet(name, label, (snapshot.id, *inputs), snapshot, rows)


def distinct_rows(ids: Ids | None, snapshot: IndexSnapshot, ws: Workspace) -> NDArray[np.int64]:
    """(n,) ascending rows of the live assets with these ids (None: all), one a duplicate group."""
    report = ws.store.load_record(DuplicateReport, snapshot.duplicates_id)
    if report is None:
        raise CorruptArtifact(f"Duplicate report {snapshot.duplicates_id} is missing. Run `discovery verify`.")
    table = ws.store.read_table(report, columns=["asset_id", "keeper_id", "pixel_keeper"])
    asset, keeper, pixels = (schemas.ids_of(table[name]) for name in ("asset_id", "keeper_id", "pixel_keeper"))
    if ids is not None:
        chosen = np.isin(asset, ids)
        asset, keeper, pixels = asset[chosen], keeper[chosen], pixels[chosen]
    index = open_index(snapshot, ws)
    rows = index.find(pixels)  # of pictures with the same pixels one is indexed
    known = rows >= 0
    known[known] = index.alive[rows[known]]
    asset, keeper, rows = asset[known], keeper[known], rows[known]
    order = np.lexsort((asset, asset != keeper, keeper))  # of each group the keeper first, then by id
    first = np.ones(len(order), bool)
    first[1:] = keeper[order][1:] != keeper[order][:-1]
    return np.unique(rows[order[first]])


def _under(uri: str, snapshot: IndexSnapshot, ws: Workspace) -> Ids:
    """Assets that the newest listing of some source has at or under a URI."""
    stem = uri.removeprefix("file://").rstrip("/")
    found: list[str] = []
    for embedded in newest_sets(embedding_sets(snapshot, ws), ws):
        manifest = ws.store.load_record(Manifest, embedded.manifest_id)
        if manifest is None:
            raise CorruptArtifact(f"Embedding set {embedded.id} has lost its manifest. Run `discovery verify`.")
        accepted = set(ws.store.read_table(embedded, "members")["asset_id"].to_pylist())
        rows = ws.store.read_table(manifest, columns=["asset_id", "source_uri"])
        for asset_id, place in zip(rows["asset_id"].to_pylist(), rows["source_uri"].to_pylist(), strict=True):
            path = place.removeprefix("file://")
            if asset_id in accepted and (path == stem or path.startswith(f"{stem}/")):
                found.append(asset_id)
    return id_array(sorted(set(found)))


def _members(manifest: Manifest, ws: Workspace) -> Ids:
    rows = ws.store.read_table(manifest, columns=["asset_id"])["asset_id"].to_pylist()
    return id_array(sorted({asset_id for asset_id in rows if asset_id}))
