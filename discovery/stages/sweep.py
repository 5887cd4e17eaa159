"""Sweep (`discovery gc`): remove what no record names, except what a running job may be about to commit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import pyarrow.compute as pc

from discovery.adapters.files import Entry
from discovery.adapters.leases import DEAD_AFTER_S, Held, Lease, leases
from discovery.adapters.storage import RECORD_NAME, SWEEP_AGE_S
from discovery.errors import CorruptArtifact
from discovery.types import IngestPart, Manifest, record_from_json
from discovery.workspace import Workspace


@dataclass(frozen=True, slots=True)
class SweepResult:
    """How many files were (or would be) removed, their bytes, and the running jobs whose time was respected."""

    removed: int
    bytes: int
    running: tuple[str, ...] = ()


def sweep(ws: Workspace, *, assets: bool = False, dry_run: bool = False, age_s: float = SWEEP_AGE_S) -> SweepResult:
    """Remove what is older than `age_s` seconds before the oldest running job began (before now, when none runs) and

    - lies under artifacts/ and is named by no committed record: left by a killed run, or by the loser of a race; or
    - is a temporary file or an unfinished upload; or
    - with `assets`, an asset or thumbnail that no manifest names: left by an ingest that was killed and never repeated. That reads every
      manifest there is (100 bytes of memory an asset), so it is asked for. Raises CorruptArtifact when one of them is unreadable.

    A job that takes over what an older one left makes it young first, and gc looks at the age again right before it removes.
    """
    files = ws.store.files
    clock = Lease(files)  # taken to read the time of the storage off it
    clock.take()
    try:
        living, dead = _leases(ws, clock.name)
        horizon = min(held.since for held in living) - age_s
        garbage: list[Entry] = []
        for entry in _unnamed(ws, horizon, assets):
            now = files.stat(entry.path)
            if now is not None and now.changed < horizon:
                garbage.append(entry)
                if not dry_run:
                    files.remove(entry.path)
        garbage += files.drop_unfinished(horizon, dry_run=dry_run)
        for held in () if dry_run else dead:
            for path in held.paths:
                files.remove(path)
    finally:
        clock.release()
    running = tuple(sorted(held.name for held in living if held.name != clock.name))
    return SweepResult(len(garbage), sum(entry.size_bytes for entry in garbage), running)


def _leases(ws: Workspace, clock: str) -> tuple[list[Held], list[Held]]:
    """The living, among them the clock but not the caller's own, and the dead."""
    own = ws.store.lease.name if ws.store.lease else ""
    found = [held for held in leases(ws.store.files) if held.name != own]
    now = next(held.since for held in found if held.name == clock)
    living = [held for held in found if now - held.seen < DEAD_AFTER_S]
    return living, [held for held in found if held not in living]


def _unnamed(ws: Workspace, horizon: float, assets: bool) -> Iterator[Entry]:
    """What is older than the horizon and named by nothing; an artifact folder whose record cannot be read is left as it is."""
    for folder, entries in groupby(ws.store.files.walk("artifacts"), lambda entry: entry.path.rpartition("/")[0]):
        old = [entry for entry in entries if entry.changed < horizon and not entry.path.endswith(f"/{RECORD_NAME}")]
        named = _named_files(folder, ws) if old else None
        if named is not None:
            yield from (entry for entry in old if entry.path not in named)
    if assets:
        known = _named_assets(ws)
        for top in ("assets", "thumbnails"):
            for entry in ws.store.files.walk(top):
                asset_id = entry.path.rpartition("/")[2].removesuffix(".webp")
                if entry.changed < horizon and asset_id.encode() not in known:
                    yield entry


def _named_files(folder: str, ws: Workspace) -> set[str] | None:
    """Paths that the folder's record names, none without a record; None when it cannot be told."""
    try:
        record = record_from_json(ws.store.files.read(f"{folder}/{RECORD_NAME}"))
    except FileNotFoundError:
        return set()
    except CorruptArtifact:
        return None
    return {f"{folder}/{ref.name}" for ref in record.files}


def _named_assets(ws: Workspace) -> set[bytes]:
    """Every asset that a manifest, or the part of one, names."""
    named: set[bytes] = set()
    for record in ws.store.records([Manifest.stage, IngestPart.stage]):
        column = ws.store.read_table(record, columns=["asset_id"])["asset_id"]
        named.update(asset_id.encode() for asset_id in pc.unique(column).to_pylist() if asset_id)
    return named
