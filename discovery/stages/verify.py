"""Verify: hash everything again, and compare records, files, journal and catalog with one another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import pyarrow.compute as pc

from discovery.adapters.journal import Topic
from discovery.adapters.storage import artifact_folder, asset_path
from discovery.addressing import matches
from discovery.errors import CorruptArtifact
from discovery.types import RECORDS, Manifest, Record
from discovery.workspace import Workspace


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """How many files were hashed, and the paths or ids that are wrong or absent."""

    checked: int
    corrupt: list[str]
    missing: list[str]


def verify(ws: Workspace, record_id: str = "") -> VerifyResult:
    """Hash every file of every record, or of one record, and every asset they name, against the hashes they were recorded under.

    Without an id also: every record.json and every entry of the journal can be read; the inputs of a record are there; every asset has
    a thumbnail; the catalog holds the records, their lineage and the journal, and nothing that the store lacks (`reindex-catalog` mends it).
    """
    hashes = _Hashes(ws)
    if record_id:
        hashes.compare_records([ws.catalog.find_record(record_id)])
        return hashes.result()
    found = list(ws.store.scan())
    records = {record.id: record for _, record in found if record is not None}
    hashes.corrupt += [entry.path for entry, record in found if record is None]
    hashes.compare_records(records.values())
    for record in records.values():
        hashes.missing += [f"{record.id} names input {parent}" for parent in record.inputs if parent not in records]
    pictured = set()
    for entry in ws.store.files.walk("thumbnails"):
        pictured.add(entry.path.rpartition("/")[2].removesuffix(".webp"))
        if entry.size_bytes == 0:
            hashes.corrupt.append(entry.path)
    hashes.missing += [f"thumbnail of {asset_id}" for asset_id in hashes.assets - pictured]
    hashes.missing += _unlike_catalog(records, ws)
    hashes.missing += _unlike_lineage(records, ws)
    try:
        hashes.missing += _unlike_journal(ws)
    except CorruptArtifact as error:
        hashes.corrupt.append(str(error))
    return hashes.result()


class _Hashes:
    """Compares files with the hashes they were recorded under."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws
        self.checked = 0
        self.corrupt: list[str] = []
        self.missing: list[str] = []
        self.assets: set[str] = set()  # that manifests name

    def result(self) -> VerifyResult:
        return VerifyResult(self.checked, sorted(set(self.corrupt)), sorted(set(self.missing)))

    def compare_records(self, records: Iterable[Record]) -> None:
        """The files of these records, and the assets of those that are manifests."""
        for record in records:
            folder = artifact_folder(record.stage, record.id)
            whole = all([self._compare(f"{folder}/{ref.name}", ref.sha256) for ref in record.files])
            if isinstance(record, Manifest) and whole:
                column = self.ws.store.read_table(record, columns=["asset_id"])["asset_id"]
                self.assets.update(asset_id for asset_id in pc.unique(column).to_pylist() if asset_id)
        for asset_id in sorted(self.assets):
            if self.ws.config.ingest.store_bytes or self.ws.store.has_asset(asset_id):  # else the bytes stay at the source
                self._compare(asset_path(asset_id), asset_id)

    def _compare(self, path: str, sha256: str) -> bool:
        self.checked += 1
        try:
            is_right = matches(self.ws.store.files.read(path), sha256)
        except FileNotFoundError:
            self.missing.append(path)
            return False
        if not is_right:
            self.corrupt.append(path)
        return is_right


def _unlike_catalog(records: dict[str, Record], ws: Workspace) -> Iterator[str]:
    """What the catalog lacks of the store, or has and the store lacks."""
    entered = {row.id: row for stage in RECORDS for row in ws.catalog.records(stage)}
    for key, record in records.items():
        if entered.get(key) != record:
            yield f"catalog row of {record.stage} {key}"
    pointers = [(f"{row.stage} {key}", key) for key, row in entered.items()]
    pointers += [(f"head {head.encoder_id}", head.snapshot_id) for head in ws.catalog.heads()]
    pointers += [(f"name {name.kind}/{name.name}", name.record_id) for name in ws.catalog.names()]
    pointers += [(f"version {row.name}@{row.number}", row.version_id) for row in ws.catalog.versions()]
    for what, key in pointers:
        if key not in records:
            yield f"record of {what}: {key}"


def _unlike_lineage(records: dict[str, Record], ws: Workspace) -> Iterator[str]:
    """What the catalog's lineage lacks of the records' inputs, or has and no record says. The edges are streamed."""
    heirs = {key for key, record in records.items() if record.inputs}  # that no edge was seen of yet
    for child, edges in groupby(ws.catalog.lineage(), lambda edge: edge[0]):
        heirs.discard(child)
        found = {parent for _, parent in edges}
        if child in records:
            inputs = set(records[child].inputs)
            yield from (f"catalog row of lineage {child}: input {parent}" for parent in inputs - found)
            yield from (f"input of {child}: {parent}, which the catalog's lineage has" for parent in found - inputs)
        else:
            yield f"record of lineage: {child}"
    for child in heirs:
        yield from (f"catalog row of lineage {child}: input {parent}" for parent in set(records[child].inputs))


def _unlike_journal(ws: Workspace) -> Iterator[str]:
    """What was said in the journal and the catalog does not know yet. Raises CorruptArtifact when an entry cannot be read."""
    last = {(entry.topic, entry.name): entry.number for entry in ws.store.journal.entries()}
    known = {(Topic.HEADS, head.encoder_id): head.generation for head in ws.catalog.heads()}
    known |= {(Topic.NAMES, f"{name.kind}/{name.name}"): name.number for name in ws.catalog.names()}
    for row in ws.catalog.versions():
        known[Topic.VERSIONS, row.name] = max(row.number, known.get((Topic.VERSIONS, row.name), 0))
        known[Topic.RUNS, f"{row.name}@{row.number}"] = row.run_number
    for said in ws.catalog.standings():
        known[Topic.STANDINGS, said.name] = said.number
    for (topic, name), number in last.items():
        if topic is not Topic.SHOWN and known.get((topic, name), 0) < number:
            yield f"catalog row of {topic} {name}: number {number} of the journal"
