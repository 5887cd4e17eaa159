"""A lost catalog loses nothing: rebuilt from the store, it equals the old one row by row, on both databases; two catalogs agree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from discovery.adapters.catalog import Catalog
from discovery.adapters.journal import Topic
from discovery.config import Config
from discovery.errors import CorruptArtifact
from discovery.pipeline import run_pipeline
from discovery.publish import publish_version
from discovery.spec import parse_spec
from discovery.stages.curate import curate
from discovery.stages.reindex import in_order, reindex
from discovery.types import DatasetVersion, MeasureShard
from discovery.workspace import Workspace, open_workspace
from tests.contracts.conftest import Place
from tests.contracts.writer import shard

A, B, C = "a" * 64, "b" * 64, "c" * 64
NOW = "2026-01-01T00:00:00+00:00"


def rows(catalog: Catalog) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table but the list of migrations."""
    with catalog.engine.begin() as connection:
        tables = sorted(set(inspect(connection).get_table_names()) - {"migrations"})
        return {table: sorted(map(tuple, connection.execute(text(f"SELECT * FROM {table}")))) for table in tables}


@contextmanager
def beside(ws: Workspace, url: str) -> Iterator[Workspace]:
    """The same store with another catalog."""
    with open_workspace(ws.config.replace(catalog={"url": url}), map_shards=map) as other:
        yield other


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory, tiny_pictures: Path) -> Iterator[Workspace]:
    """A root that was worked in: two batches, two encoders' worth of nothing, three versions, names, a version published twice."""
    root = tmp_path_factory.mktemp("root") / "store"
    config = Config(root=str(root)).replace(dask={"scheduler": "inline", "shard_assets": 5}, ingest={"decoders": 1})
    some = tmp_path_factory.mktemp("some")
    for picture in sorted(tiny_pictures.iterdir())[:7]:
        (some / picture.name).write_bytes(picture.read_bytes())
    with open_workspace(config) as ws:
        for source in (some, tiny_pictures):
            manifest = run_pipeline([str(source)], ws, spec=parse_spec("name: some\nbudget: 5\n")).records["ingest"]
            ws.catalog.set_name("batch", "today", manifest.id)
        version = curate(parse_spec("name: other\nbudget: 3\n"), ws)
        publish_version(version, ws)
        row = ws.catalog.get_version("other", 1)
        ws.catalog.set_version_run("other", 1, "moved", "http://elsewhere", row.mlflow_version, row.shown)
        yield ws


def test_a_rebuilt_catalog_equals_the_lost_one_row_by_row(worked, new_catalog):
    before = rows(worked.catalog)
    assert all(before.values()) and len(before["versions"]) == 3
    with beside(worked, new_catalog) as other:
        assert not any(rows(other.catalog).values())
        found = reindex(other)
        assert rows(other.catalog) == before
        assert (found.records, found.versions, found.heads, found.names) == (len(before["records"]), 3, 1, 1) and found.corrupt == []
        reindex(other)
        assert rows(other.catalog) == before  # again, over itself


def test_a_rebuilt_catalog_goes_on_where_the_old_one_was(worked, new_catalog, tiny_pictures):
    with beside(worked, new_catalog) as other:
        reindex(other)
        spec = parse_spec("name: some\nbudget: 5\n")
        again = run_pipeline([str(tiny_pictures)], other, spec=spec)
        assert again.records["ingest"].id == worked.catalog.get_name("batch", "today") and again.published.number == 2
        assert rows(other.catalog) == rows(worked.catalog)


def test_an_empty_catalog_over_an_old_root_takes_the_head_and_the_numbers_from_the_journal(worked, new_catalog, tiny_pictures):
    with beside(worked, new_catalog) as other:  # nobody ran reindex-catalog
        run_pipeline([str(tiny_pictures)], other, spec=parse_spec("name: some\nbudget: 4\n"))
        assert [row.number for row in other.catalog.versions("some")] == [3, 2, 1]
        assert other.catalog.heads() == worked.catalog.heads() and other.catalog.heads()[0].generation == 2  # which has these pictures already
    reindex(worked)
    assert [row.number for row in worked.catalog.versions("some")] == [3, 2, 1]


# small ones, on a folder and on S3


@pytest.fixture
def ws(place: Place) -> Iterator[Workspace]:
    with place.workspace() as opened:
        yield opened


def version(ws: Workspace, key: str, digest: str) -> DatasetVersion:
    return ws.commit(
        DatasetVersion(
            id=key, inputs=(), created_at=NOW, name="v", digest=digest, spec="{}", snapshot_id=A, encoder_id="e", assets=0, candidates=0,
            splits={}, optimality_bound=None, leaked=0, removed_for_leakage=0,
        )
    )  # fmt: skip


def test_two_catalogs_of_one_store_never_give_a_number_twice(ws, tmp_path):
    with beside(ws, f"sqlite:///{tmp_path / 'other.db'}") as other:
        assert ws.catalog.add_version("v", A, "d1", NOW).number == 1
        assert other.catalog.add_version("v", B, "d2", NOW).number == 2
        assert ws.catalog.add_version("v", B, "d2", NOW).number == 2  # the same thing is the same number
        assert ws.catalog.add_version("v", C, "d3", NOW).number == 3
        assert [row.digest for row in other.catalog.versions()] == ["d2", "d1"]  # until it asks, or is rebuilt
        assert other.catalog.add_version("v", C, "d3", NOW).number == 3


def test_of_two_catalogs_only_one_moves_the_head_and_the_other_learns_of_it(ws, tmp_path):
    with beside(ws, f"sqlite:///{tmp_path / 'other.db'}") as other:
        assert ws.catalog.swap_head("e", A, "") and ws.catalog.swap_head("e", B, A)
        assert other.catalog.swap_head("e", C, "") is False
        assert other.catalog.heads() == ws.catalog.heads()  # at B, and C can be made on top of it
        assert other.catalog.swap_head("e", C, B) is True
        assert ws.catalog.swap_head("e", A, B) is False and ws.catalog.snapshot_head("e") == C


def test_a_name_is_what_was_said_last_whichever_catalog_it_was_said_to(ws, tmp_path):
    for key in (A, B):
        ws.commit(shard(ws.store, key))
    with beside(ws, f"sqlite:///{tmp_path / 'other.db'}") as other:
        ws.catalog.set_name("k", "../a/ü", A)
        other.catalog.set_name("k", "../a/ü", B)
        reindex(ws)
        assert ws.catalog.get_name("k", "../a/ü") == other.catalog.get_name("k", "../a/ü") == B


def test_a_kill_between_journal_and_catalog_costs_nothing(ws):
    record = version(ws, A, "d1")
    ws.store.journal.claim(Topic.VERSIONS, "v", 1, {"version_id": A, "digest": "d1", "created_at": NOW})
    assert ws.catalog.versions() == []
    assert ws.catalog.add_version("v", B, "d2", NOW).number == 2  # another one comes first
    assert ws.catalog.add_version("v", record.id, "d1", NOW).number == 1


def test_a_digest_that_the_journal_has_twice_keeps_its_first_number_and_stops_nobody(ws):
    for number in (1, 2):
        ws.store.journal.claim(Topic.VERSIONS, "v", number, {"version_id": A, "digest": "d1", "created_at": NOW})
    assert ws.catalog.add_version("v", B, "d2", NOW).number == 3
    assert ws.catalog.add_version("v", A, "d1", NOW).number == 1


def test_what_was_entered_before_there_was_a_journal_is_kept_and_written_to_it(ws, tmp_path):
    version(ws, A, "d1")
    with ws.catalog.engine.begin() as connection:
        connection.execute(text(f"INSERT INTO versions VALUES ('v', 1, '{A}', 'd1', 'run', 'http://x', '{NOW}', 0, '3', 's')"))
        connection.execute(text(f"INSERT INTO standings VALUES ('v', 1, 'body', 'what', 'ana', '{NOW}')"))
        connection.execute(text(f"INSERT INTO names VALUES ('k', 'x', '{A}', 0), ('k', 'nowhere', '{B}', 0)"))  # the store has no B
    reindex(ws)
    assert [name.name for name in ws.catalog.names()] == ["x"]
    with beside(ws, f"sqlite:///{tmp_path / 'other.db'}") as other:
        reindex(other)
        assert rows(other.catalog) == rows(ws.catalog)
        assert other.catalog.get_version("v", 1).mlflow_run_id == "run" and other.catalog.standing("v").said_by == "ana"


def test_a_record_that_is_entered_while_the_store_is_read_stays(ws, monkeypatch):
    ws.commit(shard(ws.store, A))
    listed = ws.store.scan

    def meanwhile():
        yield from list(listed())
        ws.commit(shard(ws.store, B))

    monkeypatch.setattr(ws.store, "scan", meanwhile)
    reindex(ws)
    assert {record.id for record in ws.catalog.records("measure")} == {A, B}


def test_what_cannot_be_read_is_named_and_the_rest_is_entered(ws):
    for key in (A, B):
        ws.commit(shard(ws.store, key))
    for path in (f"artifacts/measure/{B}/record.json", f"artifacts/ingest/{A}/record.json"):
        ws.store.files.remove(path)
        ws.store.files.create(path, b"{")
    assert reindex(ws).corrupt == [f"artifacts/ingest/{A}/record.json", f"artifacts/measure/{B}/record.json"]
    assert [record.id for record in ws.catalog.records("measure")] == [A]


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"topic": "heads", "name": "e", "number": 1, "value": {}}'])
def test_a_damaged_journal_is_refused_before_anything_is_forgotten(ws, body):
    ws.catalog.set_name("k", "x", ws.commit(shard(ws.store, A)).id)
    before = rows(ws.catalog)
    ws.store.files.create("journal/heads/0/1.json", body)
    with pytest.raises(CorruptArtifact, match=r"journal/heads/0/1\.json"):
        reindex(ws)
    assert rows(ws.catalog) == before


def test_inputs_come_before_what_was_made_of_them_even_when_clocks_say_otherwise():
    from discovery.adapters.files import Entry

    def record(key: str, *inputs: str) -> MeasureShard:
        return MeasureShard(id=key, inputs=inputs, created_at=NOW, producer="p", assets=0)

    found = [(Entry("", 0, 1.0), record("b", "c")), (Entry("", 0, 2.0), record("c", "gone")), (Entry("", 0, 0.0), record("d", "b"))]
    assert [made.id for made in in_order(found)] == ["c", "b", "d"]
