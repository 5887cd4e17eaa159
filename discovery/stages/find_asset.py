"""An asset by its id, or by the first digits of it."""

from __future__ import annotations

from collections.abc import Iterable

from discovery.addressing import is_content_id
from discovery.errors import UnknownRecord
from discovery.stages.history import head_snapshot
from discovery.stages.open_index import open_index
from discovery.types import Manifest
from discovery.workspace import Workspace


def find_asset(text: str, ws: Workspace) -> str:
    """The whole id of an asset that was ingested. Raises UnknownRecord when there is none, or several begin like this."""
    found = set(_indexed(text, ws))
    if not found and is_content_id(text):
        found = {text} if any(text in _assets(manifest, ws) for manifest in _manifests(ws)) else set()
    if len(found) != 1:
        raise UnknownRecord(f"{'No' if not found else 'More than one'} asset starts with {text[:64]!r}. Give more of its id; `discovery search` and `discovery score` show ids.")
    return found.pop()


def _indexed(text: str, ws: Workspace) -> Iterable[str]:
    if len(text) < 4 or not text.isalnum():
        return []
    snapshots = [head_snapshot(head.encoder_id, ws) for head in ws.catalog.heads()]
    return {found for snapshot in snapshots if snapshot is not None for found in open_index(snapshot, ws).starting_with(text)}


def _manifests(ws: Workspace) -> list[Manifest]:
    return [record for record in ws.catalog.records(Manifest.stage) if isinstance(record, Manifest)]


def _assets(manifest: Manifest, ws: Workspace) -> set[str]:
    return set(ws.store.peek_columns(manifest, ["asset_id"])["asset_id"].to_pylist())
