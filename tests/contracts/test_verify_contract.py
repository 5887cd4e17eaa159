"""verify finds each kind of damage, says where it is, and says nothing else; on a folder and on S3."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import text

from discovery.adapters.journal import Topic
from discovery.adapters.storage import asset_path, table_to_parquet, thumbnail_path
from discovery.addressing import sha256_hex
from discovery.config import Config
from discovery.stages.reindex import reindex
from discovery.stages.verify import verify
from discovery.types import Manifest
from discovery.workspace import Workspace, open_workspace
from tests.contracts.conftest import Place
from tests.contracts.writer import shard

A, B, C, D = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)
NOW = "2026-01-01T00:00:00+00:00"
PICTURE = sha256_hex(b"picture")


@pytest.fixture
def ws(place: Place) -> Iterator[Workspace]:
    """One asset, the manifest that names it, a shard, and one of everything that points at them."""
    with place.workspace() as opened:
        opened.store.put_asset(PICTURE, b"picture")
        opened.store.put_thumbnail(PICTURE, 256, b"webp")
        opened.commit(shard(opened.store, A))
        file = opened.put_file(Manifest, B, "table", table_to_parquet(pa.table({"asset_id": [PICTURE, None]})), ".parquet", 2)
        counts = dict.fromkeys(("rows", "assets", "new_assets", "unchanged", "removed", "moved", "rejected"), 0)
        texts = dict.fromkeys(("listing", "settings", "rules", "previous"), "")
        opened.commit(Manifest(id=B, inputs=(A,), created_at=NOW, files=(file,), sources=(), rejections={}, **counts, **texts))
        opened.catalog.set_name("batch", "today", B)
        opened.catalog.swap_head("e", A, "")
        opened.catalog.add_version("v", A, "d", NOW)
        opened.catalog.set_version_run("v", 1, "run", "http://x")
        yield opened


def damage(ws: Workspace, path: str, data: bytes | None) -> None:
    ws.store.files.remove(path)
    if data is not None:
        ws.store.files.create(path, data)


def test_what_is_whole_is_clean(ws):
    found = verify(ws)
    assert (found.checked, found.corrupt, found.missing) == (3, [], [])  # two tables and one asset
    assert (verify(ws, B).checked, verify(ws, A).checked) == (2, 1)


@pytest.mark.parametrize("data", [b"pictur", b"", None], ids=["changed", "cut", "gone"])
def test_an_asset_that_changed_or_is_gone(ws, data):
    damage(ws, asset_path(PICTURE), data)
    for found in (verify(ws), verify(ws, B)):
        assert (found.corrupt, found.missing) == (([], [asset_path(PICTURE)]) if data is None else ([asset_path(PICTURE)], []))


@pytest.mark.parametrize("data", [b"rowz", None], ids=["changed", "gone"])
def test_a_file_of_a_record_that_changed_or_is_gone(ws, data):
    path = f"artifacts/measure/{A}/{ws.store.load_record(type(shard(ws.store, A)), A).file('table').name}"
    damage(ws, path, data)
    found = verify(ws)
    assert (found.corrupt, found.missing) == (([], [path]) if data is None else ([path], []))


def test_a_thumbnail_that_is_gone_or_empty(ws):
    damage(ws, thumbnail_path(PICTURE, 256), b"")
    assert verify(ws).corrupt == [thumbnail_path(PICTURE, 256)]
    damage(ws, thumbnail_path(PICTURE, 256), None)
    assert verify(ws).missing == [f"thumbnail of {PICTURE}"]


def test_a_record_that_cannot_be_read_and_all_that_points_at_it(ws):
    damage(ws, f"artifacts/measure/{A}/record.json", b"{")
    found = verify(ws)
    assert found.corrupt == [f"artifacts/measure/{A}/record.json"]
    what = [f"measure {A}", "head e", "version v@1"]
    assert found.missing == sorted([f"record of {w}: {A}" for w in what] + [f"{B} names input {A}"])


def test_a_catalog_that_lacks_rows_or_points_nowhere_is_mended_by_reindexing(ws):
    with ws.catalog.engine.begin() as connection:
        connection.execute(text(f"DELETE FROM records WHERE id = '{B}'"))
        connection.execute(text("DELETE FROM versions"))
        connection.execute(text(f"UPDATE names SET record_id = '{C}'"))
    assert verify(ws).missing == sorted([
        f"catalog row of ingest {B}", f"record of name batch/today: {C}", "catalog row of versions v: number 1 of the journal",
        "catalog row of runs v@1: number 1 of the journal",
    ])  # fmt: skip
    reindex(ws)
    assert verify(ws).missing == [] and ws.catalog.get_name("batch", "today") == B


@pytest.fixture
def three(new_catalog: str, tmp_path: Path) -> Iterator[Workspace]:
    """A, B made from A, C made from A and B, on either database; lineage is read two edges at a time."""
    with open_workspace(Config(root=str(tmp_path / "root")).replace(catalog={"url": new_catalog}), map_shards=map) as opened:
        for key, inputs in ((A, ()), (B, (A,)), (C, (A, B))):
            opened.commit(replace(shard(opened.store, key), inputs=inputs))
        yield opened


def sql(ws: Workspace, statement: str) -> None:
    with ws.catalog.engine.begin() as connection:
        connection.execute(text(statement))


def test_lineage_is_compared_with_the_inputs_of_the_records_both_ways(three, monkeypatch):
    monkeypatch.setattr("discovery.adapters.catalog.PAGE", 2)
    edges = [(B, A), (C, A), (C, B)]
    assert list(three.catalog.lineage()) == edges and verify(three).missing == []
    sql(three, f"DELETE FROM lineage WHERE parent_id = '{B}'")
    sql(three, f"INSERT INTO lineage VALUES ('{A}', '{C}'), ('{D}', '{A}')")
    assert verify(three).missing == sorted(
        [f"catalog row of lineage {C}: input {B}", f"input of {A}: {C}, which the catalog's lineage has", f"record of lineage: {D}"]
    )
    sql(three, "DELETE FROM lineage")
    assert verify(three).missing == [f"catalog row of lineage {child}: input {parent}" for child, parent in edges]
    reindex(three)
    assert verify(three).missing == [] and list(three.catalog.lineage()) == edges


def test_an_entry_of_the_journal_that_cannot_be_read(ws):
    path = f"journal/{Topic.HEADS}/{sha256_hex(b'e')}/1.json"
    damage(ws, path, b"{")
    (found,) = verify(ws).corrupt
    assert found.startswith(path)
