"""Verify: hash everything again and compare catalog, records and files. Sweep: remove what no record names."""

from __future__ import annotations

import time
from dataclasses import dataclass

from discovery.adapters.files import TEMPORARY
from discovery.adapters.storage import RECORD_NAME, artifact_folder, asset_path
from discovery.addressing import is_content_id, sha256_hex
from discovery.errors import CorruptArtifact, UnknownRecord
from discovery.types import RECORDS, Manifest, Record, record_from_json
from discovery.workspace import Workspace

SWEEP_AGE_S = 3600.0  # younger files may belong to a run that is about to commit them


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """How many files were hashed, and the paths or ids that are wrong or absent."""

    checked: int
    corrupt: list[str]
    missing: list[str]


@dataclass(frozen=True, slots=True)
class SweepResult:
    """How many files were (or would be) removed, and their bytes."""

    removed: int
    bytes: int


def verify(ws: Workspace, record_id: str = "") -> VerifyResult:
    """Hash every file of every record (or of one record), and every asset; look for inputs and catalog rows without a record."""
    checked = 0
    corrupt: list[str] = []
    missing: list[str] = []

    def compare(path: str, sha256: str) -> bool:
        nonlocal checked
        checked += 1
        try:
            right = sha256_hex(ws.store.files.read(path)) == sha256
        except FileNotFoundError:
            missing.append(path)
            return False
        if not right:
            corrupt.append(path)
        return right

    if record_id:
        records = [ws.catalog.find_record(record_id)]
    else:
        records, corrupt = _all_records(ws)
    known = {record.id for record in records}
    assets: set[str] = set()
    for record in records:
        folder = artifact_folder(record.stage, record.id)
        whole = all([compare(f"{folder}/{ref.name}", ref.sha256) for ref in record.files])
        if not record_id:
            missing.extend(f"{record.id} names input {parent}" for parent in record.inputs if parent not in known)
            try:
                ws.catalog.get_record(record.id)
            except UnknownRecord:
                missing.append(f"catalog row of {record.stage} {record.id}")
        if isinstance(record, Manifest) and whole:
            assets.update(i for i in ws.store.read_table(record, columns=["asset_id"])["asset_id"].to_pylist() if i)
    for asset_id in sorted(assets):
        if ws.config.ingest.store_bytes or ws.store.has_asset(asset_id):  # else the bytes stay at the source
            compare(asset_path(asset_id), asset_id)
    if not record_id:
        for stage in RECORDS:
            missing.extend(f"record {row.id} of {stage}" for row in ws.catalog.records(stage) if row.id not in known)
    return VerifyResult(checked, sorted(set(corrupt)), sorted(set(missing)))


def sweep(ws: Workspace, *, dry_run: bool = False, age_s: float = SWEEP_AGE_S) -> SweepResult:
    """Remove files under artifacts/ that no record names, and temporary files, when they are older than `age_s` seconds."""
    committed = {(stage, key) for stage in RECORDS for key in ws.store.committed_keys(stage)}
    removed, size = 0, 0
    now = time.time()
    for top in ("artifacts", "assets", "thumbnails"):
        for path, size_bytes, changed in ws.store.files.walk(top):
            parts = path.split("/")
            is_temporary = parts[-1].startswith(TEMPORARY)
            is_orphan = top == "artifacts" and (parts[1], parts[2]) not in committed
            if (is_temporary or is_orphan) and now - changed > age_s:
                removed += 1
                size += size_bytes
                if not dry_run:
                    ws.store.files.remove(path)
    return SweepResult(removed, size)


def _all_records(ws: Workspace) -> tuple[list[Record], list[str]]:
    records, corrupt = [], []
    for stage in RECORDS:
        for path, _, _ in ws.store.files.walk(f"artifacts/{stage}"):
            if not path.endswith(f"/{RECORD_NAME}"):
                continue
            try:
                record = record_from_json(ws.store.files.read(path))
            except CorruptArtifact:
                corrupt.append(path)
                continue
            if path != f"{artifact_folder(stage, record.id)}/{RECORD_NAME}" or not is_content_id(record.id):
                corrupt.append(path)
                continue
            records.append(record)
    return records, corrupt
