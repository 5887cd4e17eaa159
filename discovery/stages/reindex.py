"""Reindex: the whole catalog again from the store alone, after it was lost or to move to another database."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from discovery.adapters.files import Entry
from discovery.errors import CorruptArtifact
from discovery.types import RECORDS, Record
from discovery.workspace import Workspace


@dataclass(frozen=True, slots=True)
class ReindexResult:
    """How much is in the catalog now, and the paths of what could not be read."""

    records: int
    names: int
    heads: int
    versions: int
    corrupt: list[str]


def reindex(ws: Workspace) -> ReindexResult:
    """Rebuild the catalog from the records and the journal under the root; running jobs wait for the one transaction of it.

    Reads every record and every entry of the journal, no table and no picture. Raises CorruptArtifact when the journal is damaged.
    """
    journal = ws.store.journal
    found = list(ws.store.scan())
    records = in_order([(entry, record) for entry, record in found if record is not None])

    def load(stage: str, key: str) -> Record | None:
        try:
            return ws.store.load_record(RECORDS[stage], key) if stage in RECORDS else None
        except CorruptArtifact:
            return None

    only_here = ws.catalog.rebuild(records, journal.entries(), load)
    for entry in only_here:
        journal.claim(entry.topic, entry.name, entry.number, entry.value)
    return ReindexResult(
        len(records), len(ws.catalog.names()), len(ws.catalog.heads()), len(ws.catalog.versions()),
        sorted(entry.path for entry, record in found if record is None),
    )  # fmt: skip


def in_order(found: list[tuple[Entry, Record]]) -> list[Record]:
    """Records in the order of their commits by the clock of the storage, but inputs always before what was made of them."""
    records = {record.id: record for _, record in found}
    when = {record.id: (entry.changed, record.created_at, record.id) for entry, record in found}
    children: dict[str, list[str]] = {}
    waits = {key: len({i for i in record.inputs if i in records and i != key}) for key, record in records.items()}
    for key, record in records.items():
        for parent in set(record.inputs) - {key}:
            children.setdefault(parent, []).append(key)
    ready = [when[key] for key, count in waits.items() if count == 0]
    heapq.heapify(ready)
    ordered: list[Record] = []
    while ready:
        _, _, key = heapq.heappop(ready)
        ordered.append(records[key])
        for child in children.get(key, ()):
            waits[child] -= 1
            if waits[child] == 0:
                heapq.heappush(ready, when[child])
    return ordered
