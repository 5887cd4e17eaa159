"""The SQL catalog of records, lineage, names, index heads and versions; SQLite or PostgreSQL, one schema, never vectors or bytes.

The statements are in sql/queries, the schema in sql/migrations: forward-only, each applied in one transaction together with the
hash of its file, so that a changed or unknown migration is noticed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, OperationalError

from discovery.addressing import sha256_hex
from discovery.errors import CatalogError, ConfigError, UnknownRecord
from discovery.types import RECORDS, Record, record_from_json

T = TypeVar("T")
ATTEMPTS = 8  # of a transaction that lost against another writer
QUERY_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def sql_folder() -> Path:
    """sql/ inside an installed package, else of the checkout."""
    inside = Path(__file__).parents[1] / "sql"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "sql"


@cache
def load_queries() -> Mapping[str, str]:
    """Every named statement of sql/queries; CatalogError when a name stands twice."""
    found: dict[str, str] = {}
    for file in sorted((sql_folder() / "queries").glob("*.sql")):
        parts = QUERY_NAME.split(file.read_text())[1:]
        for name, body in zip(parts[::2], parts[1::2], strict=True):
            if name in found:
                raise CatalogError(f"{file}: query {name} is defined twice.")
            found[name] = body.strip().rstrip(";")
    return found


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One numbered version of a collection; `mlflow_run_id` is None until it is published."""

    name: str
    number: int
    version_id: str
    digest: str
    mlflow_run_id: str | None
    mlflow_url: str | None
    created_at: str


@dataclass(frozen=True, slots=True)
class Head:
    """The current index snapshot of one encoder; generation counts the swaps."""

    encoder_id: str
    snapshot_id: str
    generation: int


class Catalog:
    """One database. Methods are transactions; those that lose against another writer are tried again."""

    def __init__(self, url: str) -> None:
        self.engine = _open_engine(url)
        self._ready = False

    def close(self) -> None:
        """Give back the connections."""
        self.engine.dispose()

    # migrations

    def migrate(self) -> list[str]:
        """Apply the migrations that are missing; their names. CatalogError when an applied one was changed or is unknown."""
        return self._retry(self._migrate_once)

    def _migrate_once(self, connection: Connection) -> list[str]:
        if self.engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(7229312045)"))  # any constant: one migrator at a time
        if not inspect(connection).has_table("migrations"):
            connection.execute(text("CREATE TABLE migrations (name TEXT NOT NULL PRIMARY KEY, sha256 TEXT NOT NULL)"))
        applied = {row.name: row.sha256 for row in connection.execute(text("SELECT name, sha256 FROM migrations"))}
        files = {file.name: file.read_text() for file in sorted((sql_folder() / "migrations").glob("*.sql"))}
        if unknown := sorted(set(applied) - set(files)):
            raise CatalogError(
                f"The catalog has migrations {unknown} that this version does not know. Use a newer version of discovery."
            )
        done = []
        for name, body in files.items():
            digest = sha256_hex(body.encode())
            if name in applied:
                if applied[name] != digest:
                    raise CatalogError(
                        f"Migration {name} was changed after it was applied. Restore the file; add a new one instead."
                    )
                continue
            for statement in body.split(";\n"):
                if statement.strip():
                    connection.execute(text(statement))
            connection.execute(
                text("INSERT INTO migrations (name, sha256) VALUES (:name, :sha256)"), {"name": name, "sha256": digest}
            )
            done.append(name)
        return done

    # records

    def add_record(self, record: Record) -> None:
        """Enter a record and its lineage; nothing changes when it is there."""

        def add(connection: Connection) -> None:
            values = {"id": record.id, "stage": record.stage, "created_at": record.created_at, "body": record.to_json()}
            self._run(connection, "add_record", values)
            for parent in sorted(set(record.inputs)):
                self._run(connection, "add_lineage", {"child_id": record.id, "parent_id": parent})

        self._transaction(add)

    def get_record(self, record_id: str) -> Record:
        """The record of a full id; UnknownRecord when there is none."""
        rows = self._rows("get_record", {"id": record_id})
        if not rows:
            raise UnknownRecord(f"No record {record_id[:16]}… in the catalog. `discovery versions` lists what there is.")
        return record_from_json(rows[0].body)

    def find_record(self, prefix: str) -> Record:
        """The one record whose id starts with `prefix` (hex digits); UnknownRecord when there is none or several."""
        if not re.fullmatch(r"[0-9a-f]{4,64}", prefix):
            raise UnknownRecord(f"{prefix[:80]!r} is not an id: give at least 4 of its hexadecimal digits.")
        rows = self._rows("find_by_prefix", {"low": prefix, "high": prefix + "g"})
        if len(rows) != 1:
            raise UnknownRecord(
                f"{'No' if not rows else 'More than one'} record starts with {prefix!r}. Give more digits, or another id."
            )
        return record_from_json(rows[0].body)

    def records(self, stage: str, limit: int = 1_000_000) -> list[Record]:
        """Records of a stage, newest first."""
        if stage not in RECORDS:
            raise UnknownRecord(f"No stage {stage!r}. Known: {', '.join(RECORDS)}.")
        return [record_from_json(row.body) for row in self._rows("list_records", {"stage": stage, "limit": limit})]

    def parents(self, record_id: str) -> list[str]:
        """Ids of the records it was made from."""
        return [row.parent_id for row in self._rows("get_parents", {"id": record_id})]

    def children(self, record_id: str) -> list[str]:
        """Ids of the records made from it."""
        return [row.child_id for row in self._rows("get_children", {"id": record_id})]

    # names and heads

    def set_name(self, kind: str, name: str, record_id: str) -> None:
        """Let a name of one kind point at a record."""
        self._transaction(lambda c: self._run(c, "set_name", {"kind": kind, "name": name, "record_id": record_id}))

    def get_name(self, kind: str, name: str) -> str | None:
        """The record id a name points at, or None."""
        rows = self._rows("get_name", {"kind": kind, "name": name})
        return str(rows[0].record_id) if rows else None

    def snapshot_head(self, encoder_id: str) -> str | None:
        """Id of the current index snapshot of an encoder, or None."""
        rows = self._rows("get_head", {"encoder_id": encoder_id})
        return str(rows[0].snapshot_id) if rows else None

    def heads(self) -> list[Head]:
        """The current snapshot of every encoder."""
        return [Head(*row) for row in self._rows("list_heads", {})]

    def swap_head(self, encoder_id: str, snapshot_id: str, parent_id: str) -> bool:
        """Make a snapshot current if its parent still is (empty: if there is none yet); whether it is current now."""

        def swap(connection: Connection) -> bool:
            values = {"encoder_id": encoder_id, "snapshot_id": snapshot_id, "parent_id": parent_id}
            self._run(connection, "move_head" if parent_id else "create_head", values)
            rows = self._run(connection, "get_head", {"encoder_id": encoder_id})
            return bool(rows and rows[0].snapshot_id == snapshot_id)

        return self._transaction(swap)

    # versions

    def add_version(self, name: str, version_id: str, digest: str, created_at: str) -> VersionRow:
        """The numbered version of a digest; the next number when the digest is new to the collection."""

        def add(connection: Connection) -> VersionRow:
            values = {"name": name, "version_id": version_id, "digest": digest, "created_at": created_at}
            self._run(connection, "add_version", values)
            return VersionRow(*self._run(connection, "get_version_by_digest", {"name": name, "digest": digest})[0])

        return self._transaction(add)

    def get_version(self, name: str, number: int) -> VersionRow:
        """`name@number`; UnknownRecord when there is none."""
        rows = self._rows("get_version_by_number", {"name": name, "number": number})
        if not rows:
            raise UnknownRecord(f"No version {name}@{number}. `discovery versions` lists what there is.")
        return VersionRow(*rows[0])

    def versions(self, name: str | None = None) -> list[VersionRow]:
        """Versions, newest first; of one collection when named."""
        rows = [VersionRow(*row) for row in self._rows("list_versions", {})]
        return [row for row in rows if name in (None, row.name)]

    def set_version_run(self, name: str, number: int, mlflow_run_id: str, mlflow_url: str) -> None:
        """Keep where a version was published."""
        values = {"name": name, "number": number, "mlflow_run_id": mlflow_run_id, "mlflow_url": mlflow_url}
        self._transaction(lambda connection: self._run(connection, "set_version_run", values))

    # plumbing

    def _rows(self, query: str, values: Mapping[str, Any]) -> list[Any]:
        return self._transaction(lambda connection: self._run(connection, query, values))

    def _run(self, connection: Connection, query: str, values: Mapping[str, Any]) -> list[Any]:
        result = connection.execute(text(load_queries()[query]), dict(values))
        return list(result) if result.returns_rows else []

    def _transaction(self, work: Callable[[Connection], T]) -> T:
        if not self._ready:
            self.migrate()
            self._ready = True
        return self._retry(work)

    def _retry(self, work: Callable[[Connection], T]) -> T:
        for attempt in range(ATTEMPTS):
            try:
                with self._connection() as connection:
                    return work(connection)
            except (IntegrityError, OperationalError) as error:
                if attempt == ATTEMPTS - 1 or not _lost_a_race(error):
                    raise _refusal(error, self.engine) from error
                time.sleep(0.02 * 2**attempt)
            except DBAPIError as error:
                raise _refusal(error, self.engine) from error
        raise AssertionError("unreachable")

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        with self.engine.begin() as connection:
            yield connection


def _lost_a_race(error: DBAPIError) -> bool:
    """Whether another writer was the cause: a locked SQLite file, two inserts of one number, a serialization failure."""
    return isinstance(error, IntegrityError) or "locked" in str(error) or "deadlock" in str(error)


def _refusal(error: DBAPIError, engine: Engine) -> CatalogError:
    place = engine.url.render_as_string(hide_password=True)
    return CatalogError(f"The catalog {place} refused: {error.orig}. Check catalog.url; `discovery doctor` tries it.")


def _open_engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        engine = create_engine(parsed, pool_pre_ping=parsed.drivername.startswith("postgresql"))
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise ConfigError(f"catalog.url is not usable: {error}. Example: postgresql://user@host/discovery.") from error
    if engine.dialect.name not in ("sqlite", "postgresql"):
        raise ConfigError(f"catalog.url names {engine.dialect.name}; SQLite and PostgreSQL are supported.")
    if engine.dialect.name == "sqlite":
        try:
            if parsed.database:
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CatalogError(
                f"The folder of the catalog {parsed.database} cannot be made: {error}. Choose another root."
            ) from error

        @event.listens_for(engine, "connect")
        def _settings(connection: Any, record: Any) -> None:
            connection.isolation_level = None  # SQLAlchemy's begin below opens the transaction; the driver must not
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA busy_timeout=30000")

        @event.listens_for(engine, "begin")
        def _begin(connection: Any) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # a read that later writes would fail instead of waiting

    return engine
