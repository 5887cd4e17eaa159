"""The tables of one ingest, on local disk: what is listed, what is known, what was read; joined by DuckDB under a memory limit.

A listing of a bucket does not fit into memory, nor does the manifest of the last one. Every table here lives in files of a scratch
folder; sorting and joining spill beside them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from discovery import schemas
from discovery.adapters.sources import Listed
from discovery.errors import StorageError, StorageFull

ROW_GROUP = 2**16  # rows; part of the bytes of a manifest, so it is fixed
LISTING = pa.schema([(name, pa.int64() if name == "object_bytes" else pa.string()) for name in Listed._fields])
MANIFEST_COLUMNS = ", ".join(schemas.MANIFEST.names)
SAME_OBJECT = " AND ".join(f"known.{name} = listed.{name}" for name in ("object_uri", "object_bytes", "modified_at", "etag"))


@dataclass(frozen=True, slots=True)
class Counts:
    """Of a manifest to be: rows and their parts, distinct assets, objects that were taken over unread, gone, or found elsewhere."""

    listed: int
    accounted: int
    rows: int
    assets: int
    new_assets: int
    rejections: dict[str, int]
    unchanged: int
    removed: int
    moved: int


class IngestTables:
    """Filled in this order: the listing, what is known of it, the rows that were read; then counted and written."""

    def __init__(self, folder: Path, memory_bytes: int, threads: int = 2) -> None:
        """folder: an empty one on local disk that is thrown away afterwards, without characters of globs. memory_bytes: what DuckDB may hold."""
        settings = {"memory_limit": f"{memory_bytes // 2**20}MiB", "threads": str(threads), "preserve_insertion_order": "false"}
        self._db = duckdb.connect(str(folder / "ingest.duckdb"), config={**settings, "temp_directory": str(folder / "spill")})
        self._folder = folder
        for name, schema in (("pages", LISTING), ("known", schemas.MANIFEST), ("fresh", schemas.READ_ROWS)):
            self._db.from_arrow(schema.empty_table()).create(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._db.close()

    def add_listed(self, page: Sequence[Listed]) -> None:
        """A page of the listing, in any order; an object may come twice."""
        columns = dict(zip(Listed._fields, map(list, zip(*page, strict=True)), strict=True))
        self._insert("pages", pa.table(columns, schema=LISTING))

    def end_listing(self) -> tuple[int, str]:
        """(number of objects, digest): equal listings have equal digests, in whatever order their pages came."""
        self._run("CREATE TABLE listed AS SELECT DISTINCT ON (object_uri) * FROM pages ORDER BY object_uri, attributes DESC")
        self._run("DROP TABLE pages")
        digest = hashlib.sha256()
        lines = "SELECT concat_ws(chr(31), object_uri, object_bytes, modified_at, etag, problem, attributes) FROM listed ORDER BY object_uri"
        for batch in self._stream(lines):
            digest.update(("\n".join(batch.column(0).to_pylist()) + "\n").encode())
        return self._one("SELECT count(*) FROM listed"), digest.hexdigest()

    def add_known(self, manifest: Path, unsettled: Collection[str], max_bytes: int, max_pixels: int) -> None:
        """Rows of an earlier manifest, the newest one first: an object that is known already keeps the rows it has.

        unsettled: reasons after which an object is read again. max_bytes, max_pixels: today's limits; larger ones are looked at again.
        """
        self._run(
            f"CREATE OR REPLACE TABLE earlier AS SELECT {MANIFEST_COLUMNS} FROM read_parquet($1)", [str(manifest)]
        )  # fmt: skip
        self._run(
            """
            INSERT INTO known SELECT * FROM earlier
            ANTI JOIN (SELECT DISTINCT object_uri FROM known) USING (object_uri)
            ANTI JOIN (
                SELECT object_uri FROM earlier
                WHERE list_contains($1, reason) OR size_bytes > $2 OR width_px::BIGINT * height_px > $3
            ) USING (object_uri)
            """,
            [list(unsettled), max_bytes, max_pixels],
        )
        self._run("DROP TABLE earlier")

    def find_unread(self) -> int:
        """How many listed objects no known row stands for."""
        self._run(f"CREATE OR REPLACE TABLE missing AS SELECT * FROM listed ANTI JOIN known ON {SAME_OBJECT}")
        return self._one("SELECT count(*) FROM missing")

    def unread(self, page: int) -> Iterator[list[Listed]]:
        """What `find_unread` found, by URI, `page` at a time."""
        for batch in self._stream(f"SELECT {', '.join(Listed._fields)} FROM missing ORDER BY object_uri"):
            columns = [column.to_pylist() for column in batch.columns]
            rows = list(map(Listed, *columns))
            yield from (rows[start : start + page] for start in range(0, len(rows), page))

    def add_rows(self, rows: pa.Table) -> None:
        """Rows that were read, as schemas.READ_ROWS."""
        self._insert("fresh", rows)

    def count(self, previous: Path | None) -> Counts:
        """Counts over the union of known and read rows; `removed` and `moved` against the previous manifest of the same sources."""
        self._run(
            f"""
            CREATE OR REPLACE TABLE rows AS
            WITH found AS (SELECT {MANIFEST_COLUMNS} FROM fresh UNION ALL SELECT {MANIFEST_COLUMNS} FROM known SEMI JOIN listed ON {SAME_OBJECT})
            SELECT found.* REPLACE (nullif(listed.attributes, '') AS attributes) FROM found JOIN listed USING (object_uri)
            """  # attributes are the list's of today, without reading the object again
        )
        removed, moved = 0, 0
        if previous is not None:
            self._run(
                """
                CREATE OR REPLACE TABLE gone AS SELECT object_uri, source_uri, asset_id FROM read_parquet($1)
                ANTI JOIN listed USING (object_uri) WHERE asset_id IS NOT NULL
                """,
                [str(previous)],
            )
            removed = self._one("SELECT count(*) FROM gone")
            moved = self._one("SELECT count(DISTINCT asset_id) FROM gone SEMI JOIN fresh USING (asset_id)")
        reasons = self._run("SELECT reason, count(*) FROM rows WHERE reason IS NOT NULL GROUP BY 1 ORDER BY 1").fetchall()
        return Counts(
            listed=self._one("SELECT count(*) FROM listed"),
            accounted=self._one("SELECT count(DISTINCT object_uri) FROM rows SEMI JOIN listed USING (object_uri)"),
            rows=self._one("SELECT count(*) FROM rows"),
            assets=self._one("SELECT count(DISTINCT asset_id) FROM rows"),
            new_assets=self._one("SELECT count(DISTINCT asset_id) FROM fresh WHERE is_new"),
            rejections={str(reason): int(number) for reason, number in reasons},
            unchanged=self._one(f"SELECT count(*) FROM listed SEMI JOIN known ON {SAME_OBJECT}"),
            removed=removed, moved=moved,
        )  # fmt: skip

    def write_manifest(self) -> Path:
        """The rows that were counted, as one Parquet file sorted by source_uri (then asset_id: an archive may hold a name twice); equal rows give equal bytes."""
        path = self._folder / "manifest.parquet"
        with pq.ParquetWriter(path, schemas.MANIFEST, compression="zstd", write_statistics=True) as writer:
            waiting: list[pa.RecordBatch] = []
            for batch in self._stream(f"SELECT {MANIFEST_COLUMNS} FROM rows ORDER BY source_uri, asset_id, reason"):
                waiting.append(batch)
                while sum(map(len, waiting)) >= ROW_GROUP:
                    table = pa.Table.from_batches(waiting)
                    writer.write_table(table.slice(0, ROW_GROUP).cast(schemas.MANIFEST).combine_chunks(), row_group_size=ROW_GROUP)
                    waiting = table.slice(ROW_GROUP).to_batches()
            if waiting:
                writer.write_table(pa.Table.from_batches(waiting).cast(schemas.MANIFEST).combine_chunks(), row_group_size=ROW_GROUP)
        return path

    def removed_rows(self) -> pa.Table:
        """(source_uri, asset_id) of what the previous manifest of these sources had and the listing has no more, by URI."""
        return self._db.sql("SELECT source_uri, asset_id FROM gone ORDER BY source_uri, asset_id").to_arrow_table().cast(schemas.REMOVED)

    def _insert(self, name: str, table: pa.Table) -> None:
        with self._translated():
            self._db.from_arrow(table).insert_into(name)

    def _run(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        with self._translated():
            return self._db.execute(sql, list(parameters))

    def _one(self, sql: str) -> int:
        ((value,),) = self._run(sql).fetchall()
        return int(value)

    def _stream(self, sql: str) -> Iterator[pa.RecordBatch]:
        """Record batches of a query, on a cursor of its own: an open result blocks its connection."""
        with self._translated(), self._db.cursor() as cursor:
            yield from cursor.sql(sql).to_arrow_reader(ROW_GROUP)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
            what = f"Comparing the listing in {self._folder}: {str(error).splitlines()[0]}"
            full = isinstance(error, duckdb.OutOfMemoryException) or "space" in what or "too large" in what
            raise (StorageFull if full else StorageError)(f"{what}. Nothing was recorded; free some space there and run again.") from error
