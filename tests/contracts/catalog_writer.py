"""Processes that use one catalog at once: `python catalog_writer.py URL ROOT migrate|write|heads NUMBER`."""

from __future__ import annotations

import sys
from pathlib import Path

from discovery.adapters.catalog import Catalog
from discovery.adapters.files import LocalFiles
from discovery.adapters.journal import Journal
from discovery.types import MeasureShard

NOW = "2026-01-01T00:00:00+00:00"
RECORDS = 60


def shard(record_id: str, *inputs: str) -> MeasureShard:
    return MeasureShard(id=record_id, inputs=inputs, created_at=NOW, producer="p", assets=1)


def write(catalog: Catalog, process: int) -> None:
    """Records of its own and some of the other's, each with a parent; the versions and names that the other writes too."""
    for number in range(RECORDS):
        key = f"{process if number % 3 else 9:02x}{number:062x}"
        catalog.add_record(shard(key, f"{number:064x}"))
        catalog.add_version("v", key, f"d{number % 12}", NOW)
        catalog.set_name("k", f"n{number % 4}", key)


def heads(catalog: Catalog, process: int) -> int:
    """How often this process moved a head that both move, from whatever is current."""
    moved = 0
    for number in range(40):
        parent = catalog.snapshot_head("e") or ""
        moved += catalog.swap_head("e", f"{process:02x}{number:062x}", parent)
    return moved


if __name__ == "__main__":
    url, root, what, process = sys.argv[1:]
    catalog = Catalog(url, Journal(LocalFiles(Path(root))))
    print("ready", flush=True)
    sys.stdin.readline()
    answer = catalog.migrate() if what == "migrate" else {"write": write, "heads": heads}[what](catalog, int(process))
    print(answer, flush=True)
