"""One contract for both databases: records once, names, heads swapped only from their parent, versions numbered once."""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import inspect, text

from discovery.adapters import catalog as catalog_module
from discovery.adapters.catalog import Catalog, StandingRow, load_queries, sql_folder
from discovery.adapters.files import LocalFiles
from discovery.adapters.journal import Journal
from discovery.errors import CatalogError, ConfigError, UnknownRecord
from tests.contracts import catalog_writer
from tests.contracts.catalog_writer import NOW, RECORDS, shard
from tests.contracts.postgres import postgres

A, B, C = ("a" * 64, "a" * 32 + "b" * 32, "c" * 64)
NAMES = [file.name for file in sorted((sql_folder() / "migrations").glob("*.sql"))]
WHOLE_TABLE = {  # what is asked for is every row
    "list_standings": "standings", "clear_standings": "standings", "list_ids": "records", "list_names": "names", "list_heads": "index_heads", "list_versions": "versions", "clear_records": "records",
    "clear_lineage": "lineage", "clear_names": "names", "clear_heads": "index_heads", "clear_versions": "versions",
}  # fmt: skip
READS_ALL = re.compile(r"^SCAN (?!CONSTANT)|Seq Scan|USE TEMP B-TREE|\bSort\b")


def at_once(catalog: Catalog, url: str, what: str) -> list[str]:
    """What two processes say that do this at the same time."""
    command = [sys.executable, "-W", "ignore", catalog_writer.__file__, url, str(catalog.journal.files.folder), what]
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    both = [
        subprocess.Popen([*command, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ) for number in (0, 1)
    ]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=120)[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    return answers


@pytest.fixture
def journal(tmp_path):
    return Journal(LocalFiles(tmp_path / "root"))


@pytest.fixture
def migrations(tmp_path, monkeypatch):
    """A copy of the migrations that a test may change."""
    shutil.copytree(sql_folder(), tmp_path / "sql")
    monkeypatch.setattr(catalog_module, "sql_folder", lambda: tmp_path / "sql")
    return tmp_path / "sql" / "migrations"


def fill(catalog: Catalog) -> None:
    """20,000 rows a table, of ten stages, so that reading one through costs more than asking its index; statistics are fresh."""
    catalog.migrate()
    rows = range(20_000)
    tables = {
        "records (id, stage, sequence, created_at, body)": [(f"{n:064x}", f"stage{n % 10}", n + 1, NOW, "{}" * 100) for n in rows],
        "lineage (child_id, parent_id)": [(f"{n:064x}", f"{n // 2:064x}") for n in rows],
        "names (kind, name, record_id, number)": [("k", f"n{n}", f"{n:064x}", 1) for n in rows],
        "index_heads (encoder_id, snapshot_id, generation)": [(f"e{n}", f"{n:064x}", 1) for n in rows],
        "standings (name, number, body, what, said_by, said_at)": [(f"v{n % 500}", n // 500, "{}", "what", "ana", NOW) for n in rows],
        "versions (name, number, version_id, digest, created_at)": [(f"v{n % 500}", n // 500, f"{n:064x}", f"d{n}", NOW) for n in rows],
    }
    with catalog.engine.begin() as connection:
        for table, values in tables.items():
            names = re.findall(r"\w+", table.split("(")[1])
            statement = f"INSERT INTO {table} VALUES ({', '.join(':' + name for name in names)})"
            connection.execute(text(statement), [dict(zip(names, row, strict=True)) for row in values])
    with catalog.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE"))


def plan(catalog: Catalog, name: str) -> list[str]:
    """How the database would answer a query, a line a step."""
    values = {
        "id": f"{7:064x}", "stage": "stage3", "sequence": 1, "created_at": NOW, "body": "{}", "child_id": f"{7:064x}", "parent_id": f"{3:064x}",
        "kind": "k", "name": "n7" if name.endswith("_name") else "v7", "record_id": f"{7:064x}", "number": 7, "encoder_id": "e7",
        "snapshot_id": f"{7:064x}", "generation": 2, "digest": "d7", "version_id": f"{7:064x}", "limit": 1, "low": "00ab", "high": "00abg",
        "mlflow_run_id": "r", "mlflow_url": "u", "run_number": 1, "mlflow_version": "1", "shown": "s", "what": "w", "said_by": "ana", "said_at": NOW,
    }  # fmt: skip
    query = load_queries()[name]
    used = {key: values[key] for key in re.findall(r"(?<!:):(\w+)", re.sub(r"--.*", "", query))}
    explain = "EXPLAIN QUERY PLAN" if catalog.engine.dialect.name == "sqlite" else "EXPLAIN"
    with catalog.engine.begin() as connection:
        found = connection.execute(text(f"{explain} {query}"), used)
        return [str(row[-1]) for row in found]


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
        catalog.set_version_run("v", 1, "run", "http://x", "7", "state")
        assert (catalog.get_version("v", 1).mlflow_version, catalog.get_version("v", 1).shown, catalog.get_version("v", 1).run_number) == ("7", "state", 2)

    def test_of_two_steps_from_one_standing_the_first_stands(self, catalog):
        assert catalog.standing("v") is None
        first, second, late = (StandingRow("v", number, body, "what", "ana", NOW) for number, body in ((1, "a"), (2, "b"), (2, "c")))
        assert [catalog.add_standing(row) for row in (first, second, late, second)] == [True, True, False, True]
        assert catalog.standing("v") == second and catalog.standings("v") == [first, second] and catalog.standings("w") == []

    def test_two_writers_at_once_lose_nothing(self, catalog):
        ids = [f"{number:064x}" for number in range(24)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda record_id: catalog.add_record(shard(record_id)), ids))
            rows = list(pool.map(lambda number: catalog.add_version("v", A, f"d{number % 6}", NOW), range(24)))
        assert sorted(record.id for record in catalog.records("measure")) == ids
        assert sorted({row.number for row in rows}) == [1, 2, 3, 4, 5, 6]

    # migrations

    def test_migrating_again_does_nothing(self, catalog):
        assert catalog.migrate() == NAMES
        assert catalog.migrate() == []

    def test_a_migration_that_was_changed_after_it_was_applied_is_refused(self, catalog, migrations):
        catalog.migrate()
        first = migrations / NAMES[0]
        first.write_text(first.read_text() + "-- a word more\n")
        with pytest.raises(CatalogError, match=f"{NAMES[0]} was changed after it was applied"):
            catalog.migrate()

    def test_the_schema_of_a_newer_program_is_refused(self, catalog, migrations):
        newer = migrations / "9999_later.sql"
        newer.write_text("CREATE TABLE later (x TEXT);\n")
        assert catalog.migrate() == [*NAMES, newer.name]
        newer.unlink()
        with pytest.raises(CatalogError, match=r"9999_later.*does not know. Use a newer version"):
            catalog.migrate()

    def test_a_migration_before_one_that_was_applied_is_refused(self, catalog, migrations):
        catalog.migrate()
        (migrations / "0000_earlier.sql").write_text("CREATE TABLE earlier (x TEXT);\n")
        with pytest.raises(CatalogError, match=r"0000_earlier.*come before"):
            catalog.migrate()

    def test_a_migration_that_fails_leaves_no_trace_and_can_be_tried_again(self, catalog, migrations):
        catalog.migrate()
        late = migrations / "9999_later.sql"
        late.write_text("CREATE TABLE later (x TEXT);\nCREATE TABLE later (x TEXT);\n")
        with pytest.raises(CatalogError, match="refused"):
            catalog.migrate()
        assert not inspect(catalog.engine).has_table("later")
        late.write_text("CREATE TABLE later (x TEXT);\n")
        assert catalog.migrate() == [late.name] and inspect(catalog.engine).has_table("later")

    def test_rows_of_an_older_schema_come_through(self, catalog, migrations):
        later = {name: (migrations / name).read_text() for name in NAMES[1:]}
        for name in later:
            (migrations / name).unlink()
        catalog.migrate()
        with catalog.engine.begin() as connection:
            connection.execute(text(f"INSERT INTO names VALUES ('k', 'x', '{A}')"))
            connection.execute(text(f"INSERT INTO versions VALUES ('v', 1, '{A}', 'd1', 'run', 'http://x', '{NOW}')"))
        for name, body in later.items():
            (migrations / name).write_text(body)
        assert catalog.get_name("k", "x") == A and catalog.get_version("v", 1).mlflow_run_id == "run"
        catalog.set_name("k", "x", B)
        catalog.set_version_run("v", 1, "later", "http://y")
        assert catalog.get_name("k", "x") == B and catalog.get_version("v", 1).mlflow_run_id == "later"

    # two processes

    def test_two_processes_migrate_at_once_and_one_does_it(self, catalog, url):
        assert sorted(at_once(catalog, url, "migrate")) == sorted(["[]", str(NAMES)])
        assert catalog.migrate() == []

    def test_two_processes_write_at_once_and_nothing_is_lost_or_twice(self, catalog, url):
        catalog.migrate()
        at_once(catalog, url, "write")
        ids = {f"{process if number % 3 else 9:02x}{number:062x}" for process in (0, 1) for number in range(RECORDS)}
        found = catalog.records("measure")
        assert len(found) == len(ids) == 100 and {record.id for record in found} == ids
        assert all(catalog.parents(record_id) == [f"{int(record_id[2:], 16):064x}"] for record_id in ids)
        assert sorted(row.number for row in catalog.versions("v")) == list(range(1, 13))
        assert {row.digest for row in catalog.versions("v")} == {f"d{number}" for number in range(12)}
        assert {name.name for name in catalog.names()} == {"n0", "n1", "n2", "n3"} and all(n.record_id in ids for n in catalog.names())
        with catalog.engine.begin() as connection:
            assert sorted(connection.execute(text("SELECT sequence FROM records")).scalars()) == list(range(1, 101))

    def test_of_two_processes_that_move_a_head_one_makes_each_step(self, catalog, url):
        catalog.migrate()
        moved = [int(answer) for answer in at_once(catalog, url, "heads")]
        assert min(moved) > 0 and sum(moved) == catalog.heads()[0].generation

    def test_without_a_journal_it_is_only_read(self, catalog, url):
        catalog.set_name("k", "x", A)
        reader = Catalog(url)
        assert reader.get_name("k", "x") == A
        with pytest.raises(CatalogError, match="opened without the journal"):
            reader.set_name("k", "x", B)
        reader.close()

    # plans

    @pytest.mark.parametrize("name", sorted(set(load_queries()) - set(WHOLE_TABLE)))
    def test_a_query_by_key_uses_an_index_and_reads_no_table_through(self, filled, name):
        assert not [line for line in plan(filled, name) if READS_ALL.search(line)]

    @pytest.mark.parametrize("name", sorted(WHOLE_TABLE))
    def test_a_query_for_everything_reads_no_other_table(self, filled, name):
        others = set(WHOLE_TABLE.values()) - {WHOLE_TABLE[name]}
        assert not [line for line in plan(filled, name) if any(re.search(rf"\b{other}\b", line) for other in others)]


class TestSqlite(CatalogContract):
    @pytest.fixture
    def url(self, tmp_path):
        return f"sqlite:///{tmp_path / 'a folder' / 'catalog.db'}"

    @pytest.fixture
    def catalog(self, url, journal):
        opened = Catalog(url, journal)
        yield opened
        opened.close()

    @pytest.fixture(scope="class")
    def filled(self, tmp_path_factory):
        opened = Catalog(f"sqlite:///{tmp_path_factory.mktemp('filled') / 'catalog.db'}")
        fill(opened)
        yield opened
        opened.close()

    def test_a_file_that_is_no_database_is_refused(self, tmp_path):
        (tmp_path / "catalog.db").write_bytes(b"not a database" * 100)
        with pytest.raises(CatalogError, match="refused"):
            Catalog(f"sqlite:///{tmp_path / 'catalog.db'}").migrate()


@pytest.fixture(scope="module")
def postgres_url():
    with postgres() as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE filled")
        yield url


@pytest.mark.live
class TestPostgres(CatalogContract):
    @pytest.fixture
    def url(self, postgres_url):
        return postgres_url

    @pytest.fixture
    def catalog(self, url, journal):
        opened = Catalog(url, journal)
        with opened.engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
        yield opened
        opened.close()

    @pytest.fixture(scope="class")
    def filled(self, postgres_url):
        opened = Catalog(postgres_url.rpartition("/")[0] + "/filled")
        fill(opened)
        yield opened
        opened.close()

    def test_the_server_is_reached_over_tcp(self, catalog):
        with catalog.engine.connect() as connection:
            assert connection.execute(text("SELECT host(inet_server_addr())")).scalar() == "127.0.0.1"  # NULL over a socket of Unix


@pytest.mark.parametrize("url", ["nonsense", "nonsense://x/y", "mysql://u@h/d", ":::"])
def test_an_unusable_url_is_refused(url):
    with pytest.raises(ConfigError, match=r"catalog\.url"):
        Catalog(url)
