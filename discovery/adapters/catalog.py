"""The SQL catalog of records, lineage, names, index heads and versions; SQLite or PostgreSQL, one schema, never vectors or bytes.

The statements are in sql/queries, the schema in sql/migrations: forward-only, each applied in one transaction together with the
hash of its file, so that a changed or unknown migration is noticed. Nothing is only here: records are in the store, and names, heads,
versions, their runs, aliases and yanks are written to its journal before they are entered, so that `rebuild` brings a lost catalog back.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, OperationalError

from discovery.adapters.journal import Entry, Journal, Topic, Value
from discovery.addressing import sha256_hex
from discovery.errors import AccessDenied, CatalogError, ConfigError, DiscoveryError, StorageError, StorageFull, UnknownRecord
from discovery.types import RECORDS, Record, record_from_json

T = TypeVar("T")
DISK_FULL = "53100"  # SQLSTATE of PostgreSQL
ATTEMPTS = 8  # of a transaction that lost against another writer
PAGE = 10_000  # edges of lineage that are read at once: 1.6 MB of ids
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
    """One numbered version of a collection; `mlflow_run_id` is None until it is published, `run_number` counts its publications.

    mlflow_version: its number in MLflow's registry; shown: the state of it that MLflow shows. Both None for what waits to be published.
    """

    name: str
    number: int
    version_id: str
    digest: str
    mlflow_run_id: str | None
    mlflow_url: str | None
    created_at: str
    run_number: int = 0
    mlflow_version: str | None = None
    shown: str | None = None


@dataclass(frozen=True, slots=True)
class StandingRow:
    """What a collection's aliases and yanks became, by which step, who took it, and when."""

    name: str
    number: int
    body: str
    what: str
    said_by: str
    said_at: str


@dataclass(frozen=True, slots=True)
class Name:
    """What a name of one kind points at; `number` counts what it pointed at so far."""

    kind: str
    name: str
    record_id: str
    number: int


@dataclass(frozen=True, slots=True)
class Head:
    """The current index snapshot of one encoder; generation counts the swaps."""

    encoder_id: str
    snapshot_id: str
    generation: int


class Catalog:
    """One database. Methods are transactions; those that lose against another writer are tried again.

    journal: where the store keeps names, heads, versions and runs, whose numbers its exclusive creation gives out; without one they are
    only read.
    """

    def __init__(self, url: str, journal: Journal | None = None) -> None:
        self.engine = _open_engine(url)
        self.journal = journal
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
        if late := sorted(name for name in set(files) - set(applied) if name < max(applied, default="")):
            raise CatalogError(f"Migrations {late} come before ones that were applied. Give them a number after {max(applied)}.")
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
        self._transaction(lambda connection: self._enter_record(connection, record))

    def _enter_record(self, connection: Connection, record: Record) -> None:
        values = {"id": record.id, "stage": record.stage, "created_at": record.created_at, "body": record.to_json()}
        self._run(connection, "add_record", values)
        for parent in sorted(set(record.inputs)):
            self._run(connection, "add_lineage", {"child_id": record.id, "parent_id": parent})

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

    def lineage(self) -> Iterator[tuple[str, str]]:
        """Every edge, (child, parent), a child's together; a page of them in memory, each page a transaction of its own."""
        after = ("", "")
        while True:
            page = self._rows("list_lineage", {"child_id": after[0], "parent_id": after[1], "limit": PAGE})
            yield from ((row.child_id, row.parent_id) for row in page)
            if len(page) < PAGE:
                return
            after = (page[-1].child_id, page[-1].parent_id)

    # names, heads, versions: in the journal first

    def set_name(self, kind: str, name: str, record_id: str) -> None:
        """Let a name of one kind point at a record."""
        value = {"kind": kind, "name": name, "record_id": record_id}
        while True:
            found = self._name(kind, name)
            if found is not None and found.record_id == record_id:
                return
            if self._append(Topic.NAMES, f"{kind}/{name}", found.number + 1 if found else 1, value) == value:
                return

    def get_name(self, kind: str, name: str) -> str | None:
        """The record id a name points at, or None."""
        found = self._name(kind, name)
        return found.record_id if found else None

    def names(self) -> list[Name]:
        """Every name."""
        return [Name(*row) for row in self._rows("list_names", {})]

    def snapshot_head(self, encoder_id: str) -> str | None:
        """Id of the current index snapshot of an encoder, or None."""
        head = self._head(encoder_id)
        return head.snapshot_id if head else None

    def heads(self) -> list[Head]:
        """The current snapshot of every encoder."""
        return [Head(*row) for row in self._rows("list_heads", {})]

    def swap_head(self, encoder_id: str, snapshot_id: str, parent_id: str) -> bool:
        """Make a snapshot current if its parent still is (empty: if there is none yet); whether it is current now.

        What other catalogs of the same store made current is entered on the way.
        """
        head = self._head(encoder_id)
        if (head.snapshot_id if head else "") != parent_id:
            return head is not None and head.snapshot_id == snapshot_id
        generation = head.generation + 1 if head else 1
        value = {"snapshot_id": snapshot_id}
        if self._append(Topic.HEADS, encoder_id, generation, value) == value:
            return True
        while later := self._writable().get(Topic.HEADS, encoder_id, generation := generation + 1):
            self._append(Topic.HEADS, encoder_id, generation, later)
        return self.snapshot_head(encoder_id) == snapshot_id

    def add_version(self, name: str, version_id: str, digest: str, created_at: str) -> VersionRow:
        """The numbered version of a digest; the next number when the digest is new to the collection."""
        value = {"version_id": version_id, "digest": digest, "created_at": created_at}
        number = 0
        while True:
            (last,) = self._rows("last_version", {"name": name})  # before the digest is looked for, which else might come in between
            if found := self._rows("get_version_by_digest", {"name": name, "digest": digest}):
                return VersionRow(*found[0])
            number = max(number, last.number) + 1
            self._append(Topic.VERSIONS, name, number, value)

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

    def set_version_run(self, name: str, number: int, mlflow_run_id: str, mlflow_url: str, mlflow_version: str = "", shown: str = "") -> None:
        """Keep where a version was published, and what of it is shown there; UnknownRecord when there is no such version."""
        value = {"mlflow_run_id": mlflow_run_id, "mlflow_url": mlflow_url, "mlflow_version": mlflow_version, "shown": shown}
        while True:
            row = self.get_version(name, number)
            if _publication(row) == value:
                return
            if self._append(Topic.RUNS, f"{name}@{number}", row.run_number + 1, value) == value:
                return

    def standing(self, name: str) -> StandingRow | None:
        """What a collection's aliases and yanks are now; None when nothing was said of it."""
        rows = self._rows("last_standing", {"name": name})
        return StandingRow(*rows[0]) if rows else None

    def standings(self, name: str | None = None) -> list[StandingRow]:
        """Everything that was said of aliases and yanks, oldest first; of one collection when named."""
        rows = [StandingRow(*row) for row in self._rows("list_standings", {})]
        return [row for row in rows if name in (None, row.name)]

    def add_standing(self, row: StandingRow) -> bool:
        """Let a collection stand as the row says, if its number is the next one; whether it does. Else look again, and decide anew."""
        value = {"body": row.body, "what": row.what, "said_by": row.said_by, "said_at": row.said_at}
        return self._append(Topic.STANDINGS, row.name, row.number, value) == value

    def _name(self, kind: str, name: str) -> Name | None:
        rows = self._rows("get_name", {"kind": kind, "name": name})
        return Name(*rows[0]) if rows else None

    def _head(self, encoder_id: str) -> Head | None:
        rows = self._rows("get_head", {"encoder_id": encoder_id})
        return Head(*rows[0]) if rows else None

    def _append(self, topic: Topic, name: str, number: int, value: Value) -> Value:
        """Enter the `number`th thing said about a name, in the journal and then here; what stands, ours or the first writer's."""
        stands = self._writable().claim(topic, name, number, value)
        self._transaction(lambda connection: self._enter(connection, Entry(topic, name, number, stands)))
        return stands

    def _writable(self) -> Journal:
        if self.journal is None:
            raise CatalogError("This catalog was opened without the journal of a store, to be read. Write through open_workspace.")
        return self.journal

    def _enter(self, connection: Connection, entry: Entry) -> None:
        """Enter a line of the journal; one that is older than what is here changes nothing."""
        name, number = entry.name, entry.number
        match entry.topic:
            case Topic.HEADS:
                self._run(connection, "move_head", {"encoder_id": name, "generation": number, **entry.value})
            case Topic.NAMES:
                self._run(connection, "set_name", {"number": number, **entry.value})
            case Topic.VERSIONS:
                self._run(connection, "add_version", {"name": name, "number": number, **entry.value})
            case Topic.RUNS:
                collection, _, version = name.rpartition("@")
                values = {"name": collection, "number": int(version), "run_number": number, "mlflow_version": "", "shown": "", **entry.value}
                self._run(connection, "set_version_run", values)
            case Topic.STANDINGS:
                self._run(connection, "add_standing", {"name": name, "number": number, **entry.value})
            case Topic.SHOWN:
                pass  # who publishes asks the journal

    # rebuilding

    def rebuild(self, records: Iterable[Record], entries: Iterable[Entry], load: Callable[[str, str], Record | None]) -> list[Entry]:
        """Forget everything, then enter these records, in this order, and these lines of the journal, in one transaction.

        load: a record of a stage and id as the store has it now, for those that were entered after `records` was listed. Returns what
        was only here, as entries: names, heads and versions that a program without a journal had entered; they stay.
        """
        listed = list(records)
        journal = list(entries)

        def work(connection: Connection) -> list[Entry]:
            if self.engine.dialect.name == "postgresql":  # SQLite's transactions keep other writers waiting by themselves
                connection.execute(text("LOCK TABLE records, lineage, names, index_heads, versions, standings IN EXCLUSIVE MODE"))
            ids = {record.id for record in listed}
            newer = [load(row.stage, row.id) for row in self._run(connection, "list_ids", {}) if row.id not in ids]
            known = [*listed, *(record for record in newer if record is not None)]
            said = list(self._said(connection, {record.id for record in known}))
            for table in ("clear_records", "clear_lineage", "clear_names", "clear_heads", "clear_versions", "clear_standings"):
                self._run(connection, table, {})
            for record in known:
                self._enter_record(connection, record)
            for entry in [*journal, *said]:
                self._enter(connection, entry)
            written = {(entry.topic, entry.name, entry.number) for entry in journal}
            return [entry for entry in said if (entry.topic, entry.name, entry.number) not in written]

        return self._transaction(work)

    def _said(self, connection: Connection, known: set[str]) -> Iterator[Entry]:
        """What is entered beyond records, as lines of a journal; not what points at a record that is unknown."""
        for head in (Head(*row) for row in self._run(connection, "list_heads", {})):
            if head.snapshot_id in known:
                yield Entry(Topic.HEADS, head.encoder_id, head.generation, {"snapshot_id": head.snapshot_id})
        for name in (Name(*row) for row in self._run(connection, "list_names", {})):
            if name.record_id in known:
                value = {"kind": name.kind, "name": name.name, "record_id": name.record_id}
                yield Entry(Topic.NAMES, f"{name.kind}/{name.name}", max(name.number, 1), value)
        for row in (VersionRow(*row) for row in self._run(connection, "list_versions", {})):
            if row.version_id in known:
                value = {"version_id": row.version_id, "digest": row.digest, "created_at": row.created_at}
                yield Entry(Topic.VERSIONS, row.name, row.number, value)
                if row.mlflow_run_id is not None and row.mlflow_url is not None:
                    yield Entry(Topic.RUNS, f"{row.name}@{row.number}", max(row.run_number, 1), _publication(row))
        for said in (StandingRow(*row) for row in self._run(connection, "list_standings", {})):
            value = {"body": said.body, "what": said.what, "said_by": said.said_by, "said_at": said.said_at}
            yield Entry(Topic.STANDINGS, said.name, said.number, value)

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


def _publication(row: VersionRow) -> dict[str, str]:
    """A version's publication as the journal has it."""
    return {name: getattr(row, name) or "" for name in ("mlflow_run_id", "mlflow_url", "mlflow_version", "shown")}


def _lost_a_race(error: DBAPIError) -> bool:
    """Whether another writer was the cause: a locked SQLite file, two inserts of one number, a serialization failure."""
    return isinstance(error, IntegrityError) or "locked" in str(error) or "deadlock" in str(error)


def _refusal(error: DBAPIError, engine: Engine) -> DiscoveryError:
    """What the database said, with the next step."""
    place = engine.url.render_as_string(hide_password=True)
    what = str(error.orig)
    if "disk is full" in what or getattr(error.orig, "sqlstate", None) == DISK_FULL:
        return StorageFull(f"The catalog {place}: no space left. Nothing half-written is visible; free some space and run again.")
    name = getattr(error.orig, "sqlite_errorname", "")
    if name.startswith("SQLITE_IOERR") and _has_no_room(engine):  # the log's index is made by a call that says no more than "I/O error"
        return StorageFull(f"The catalog {place}: no space left ({what}). Nothing half-written is visible; free some space and run again.")
    if name == "SQLITE_IOERR_WRITE":
        return StorageError(f"The catalog {place} could not be written ({what}): the disk is full, limited or failing. Mend it and run again.")
    if "readonly database" in what or (engine.dialect.name == "sqlite" and "unable to open" in what):
        return AccessDenied(f"The catalog {place} cannot be written ({what}). Give the right to write there, or set catalog.url.")
    return CatalogError(f"The catalog {place} refused: {what}. Check catalog.url; `discovery doctor` tries it.")


def _has_no_room(engine: Engine) -> bool:
    """Whether the disk of a SQLite file has less room than the index of its log takes."""
    try:
        return shutil.disk_usage(Path(engine.url.database or ".").parent).free < 2**16
    except OSError:
        return False


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
    if engine.dialect.name == "sqlite" and parsed.database:
        file = Path(parsed.database)
        if file.is_file() and not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)):
            return create_engine(parsed, creator=lambda: _connect_read_only(file))
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AccessDenied(f"The folder of the catalog {file} cannot be made: {error}. Choose another root.") from error

    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def _settings(connection: Any, record: Any) -> None:
            connection.isolation_level = None  # SQLAlchemy's begin below opens the transaction; the driver must not
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA busy_timeout=30000")

        @event.listens_for(engine, "begin")
        def _begin(connection: Any) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # a read that later writes would fail instead of waiting

    return engine


def _connect_read_only(file: Path) -> sqlite3.Connection:
    """A database that this process may only read: without a lock, which would have to be written."""
    log = file.with_name(f"{file.name}-wal")
    if log.is_file() and log.stat().st_size:
        raise AccessDenied(f"The catalog {file} was not closed by its last writer. Open it once where it may be written, as with `discovery versions`.")
    return sqlite3.connect(f"file:{quote(str(file.absolute()))}?mode=ro&immutable=1", uri=True, check_same_thread=False)
