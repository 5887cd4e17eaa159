"""The tables of one ingest, on local disk: what is listed, what is known, what was read; joined by DuckDB under a memory limit.

A listing of a bucket does not fit into memory, nor does the manifest of the last one. Every table here lives in files of a scratch
folder; sorting and joining spill beside them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from discovery import schemas
from discovery.adapters.archives import SUFFIXES as ARCHIVE_SUFFIXES
from discovery.adapters.files import translated
from discovery.adapters.lists import merge_said
from discovery.adapters.sources import Listed, bad_row
from discovery.adapters.videos import SUFFIXES as VIDEO_SUFFIXES
from discovery.errors import StorageError, StorageFull

ROW_GROUP = 2**16  # rows; part of the bytes of a manifest, so it is fixed
LISTING = pa.schema([(name, pa.int64() if name == "object_bytes" else pa.string()) for name in Listed._fields])
MANIFEST_COLUMNS = ", ".join(schemas.MANIFEST.names)
MACROS = (  # of a row's address: `zip://a/b.mov#t=1.000::/photos.zip` is b.mov in the folder a of an archive, at one second
    "inner_of(uri) AS regexp_replace(split_part(uri, '::', 1), '#t=[0-9.]+$', '')",
    "outer_of(uri) AS substr(uri, length(split_part(uri, '::', 1)) + 1)",
    "file_of(uri) AS inner_of(uri) || outer_of(uri)",
    "stem_of(uri) AS regexp_replace(inner_of(uri), '[.][A-Za-z0-9]{1,5}$', '') || outer_of(uri)",
    "place_of(uri) AS regexp_replace(inner_of(uri), '[^/]*$', '') || outer_of(uri)",
    "ends_with_any(uri, suffixes) AS len(list_filter(suffixes, lambda suffix: ends_with(lower(uri), suffix))) > 0",
    "is_raw(format) AS format IN ('DNG', 'RAW')",
)
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
    sidecars: int


class IngestTables:
    """Filled in this order: the listing, what is known of it, the rows that were read; then counted and written."""

    def __init__(self, folder: Path, memory_bytes: int, threads: int = 2) -> None:
        """folder: an empty one on local disk that is thrown away afterwards, without characters of globs. memory_bytes: what DuckDB may hold."""
        settings = {"memory_limit": f"{memory_bytes // 2**20}MiB", "threads": str(threads), "preserve_insertion_order": "false"}
        self._db = duckdb.connect(str(folder / "ingest.duckdb"), config={**settings, "temp_directory": str(folder / "spill")})
        self._folder = folder
        for name, schema in (("pages", LISTING), ("known", schemas.MANIFEST), ("fresh", schemas.READ_ROWS), ("begun", schemas.READ_ROWS)):
            self._db.from_arrow(schema.empty_table()).create(name)
        for macro in MACROS:
            self._db.execute(f"CREATE MACRO {macro}")

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
        self._merge_rows_of_lists()
        others = ", ".join(name for name in Listed._fields if name not in ("object_uri", "attributes"))
        self._run(f"CREATE TABLE listed AS SELECT DISTINCT ON (object_uri) * FROM pages ORDER BY object_uri, attributes DESC, {others}")
        self._run("DROP TABLE pages")
        digest = hashlib.sha256()
        lines = "SELECT concat_ws(chr(31), object_uri, object_bytes, modified_at, etag, problem, attributes) FROM listed ORDER BY object_uri"
        for batch in self._stream(lines):
            digest.update(("\n".join(batch.column(0).to_pylist()) + "\n").encode())
        return self._one("SELECT count(*) FROM listed"), digest.hexdigest()

    def _merge_rows_of_lists(self) -> None:
        """Give every page of an object that several rows name what all of them say, and list the first that contradicts as a bad row."""
        by_row = "regexp_replace(named_by, '[0-9]+$', ''), regexp_extract(named_by, '[0-9]+$')::BIGINT"
        several = "SELECT object_uri FROM pages WHERE attributes <> '' GROUP BY 1 HAVING count(DISTINCT attributes) > 1"
        rows = f"SELECT object_uri, named_by, attributes FROM pages SEMI JOIN ({several}) USING (object_uri) WHERE attributes <> ''"
        found = self._stream(f"{rows} ORDER BY object_uri, {by_row}")
        lines = (line for batch in found for line in zip(*batch.to_pydict().values(), strict=True))
        self._run("CREATE TABLE merged (object_uri VARCHAR, attributes VARCHAR)")
        merged = ((uri, *merge_said(line[1:] for line in group)) for uri, group in groupby(lines, key=lambda line: line[0]))
        while page := list(islice(merged, ROW_GROUP)):
            uris, attributes, addresses, problems = zip(*page, strict=True)
            self._insert("merged", pa.table({"object_uri": uris, "attributes": attributes}))
            if bad := [bad_row(address, problem) for address, problem in zip(addresses, problems, strict=True) if problem]:
                self.add_listed(bad)
        every = "merged.object_uri = pages.object_uri AND pages.attributes <> ''"
        self._run(f"UPDATE pages SET attributes = merged.attributes FROM merged WHERE {every}")
        self._run("DROP TABLE merged")

    def add_known(self, manifest: Path, unsettled: Collection[str], max_bytes: int, max_pixels: int, has_frames: bool = True) -> None:
        """Rows of an earlier manifest, the newest one first: an object that is known already keeps the rows it has.

        unsettled: reasons after which an object is read again. max_bytes, max_pixels: today's limits; larger ones are looked at again.
        has_frames: whether today the same frames would be taken of its videos; else these are left out, and archives, which may hold some.
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
                OR NOT $4 AND ends_with_any(object_uri, $5)
            ) USING (object_uri)
            """,
            [list(unsettled), max_bytes, max_pixels, has_frames, [*VIDEO_SUFFIXES, *ARCHIVE_SUFFIXES]],
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
        """Rows of objects that were read to their ends, as schemas.READ_ROWS."""
        self._insert("fresh", rows)

    def add_begun(self, rows: pa.Table) -> None:
        """Rows of objects that are still being read, and count only when these have ended."""
        self._insert("begun", rows)

    def take_begun(self, object_uri: str) -> pa.Table:
        """All rows of an object that `add_begun` got, which are here no longer."""
        with self._translated():
            found = self._db.sql("SELECT * FROM begun WHERE object_uri = $1", params=[object_uri])
            rows = found.to_arrow_table().cast(schemas.READ_ROWS)
        self._run("DELETE FROM begun WHERE object_uri = $1", [object_uri])
        return rows

    def count(self, previous: Path | None, burst_gap_s: float = 0.0) -> Counts:
        """Counts over the union of known and read rows; `removed` and `moved` against the previous manifest of the same sources.

        What a row owes to others of the same listing is found anew each time: its capture, its burst (pictures of one camera and
        folder at most burst_gap_s apart; 0: none), and what lists and sidecars say of it.
        """
        self._run(
            f"""
            CREATE OR REPLACE TABLE found AS
            SELECT {MANIFEST_COLUMNS} FROM fresh UNION ALL SELECT {MANIFEST_COLUMNS} FROM known SEMI JOIN listed ON {SAME_OBJECT}
            """
        )
        self._find_captures()
        self._find_bursts(burst_gap_s)
        self._find_sidecars()
        self._run(
            """
            CREATE OR REPLACE TABLE rows AS
            SELECT found.* REPLACE (
                captures.capture AS capture,
                bursts.burst AS burst,
                CASE WHEN near_by.said IS NULL AND by_name.said IS NULL THEN nullif(listed.attributes, '')
                     ELSE json_merge_patch(coalesce(near_by.said, '{}'), coalesce(by_name.said, '{}'), coalesce(nullif(listed.attributes, ''), '{}'))
                END AS attributes,
                CASE WHEN sidecar IS NULL THEN reason WHEN used.source_uri IS NULL THEN 'unsupported_format' END AS reason,
                CASE WHEN sidecar IS NULL THEN detail WHEN used.source_uri IS NULL THEN 'a sidecar of no picture here' END AS detail
            )
            FROM found JOIN listed USING (object_uri)
            LEFT JOIN captures ON captures.stem = lower(stem_of(found.source_uri)) AND found.asset_id IS NOT NULL
            LEFT JOIN bursts ON bursts.source_uri = found.source_uri
            LEFT JOIN sidecars AS near_by ON near_by.target = lower(stem_of(found.source_uri)) AND found.asset_id IS NOT NULL
            LEFT JOIN sidecars AS by_name ON by_name.target = lower(file_of(found.source_uri)) AND found.asset_id IS NOT NULL
            LEFT JOIN used ON used.source_uri = found.source_uri
            """
        )
        self._run("DROP TABLE found")
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
            removed=removed, moved=moved, sidecars=self._one("SELECT count(*) FROM rows WHERE asset_id IS NULL AND reason IS NULL"),
        )  # fmt: skip

    def _find_captures(self) -> None:
        """RAW and JPEG of one name, HEIC and JPEG, a Live Photo's still and clip: one press of the shutter."""
        self._run(
            """
            CREATE OR REPLACE TABLE captures AS
            SELECT lower(stem_of(source_uri)) AS stem, min(stem_of(source_uri)) AS capture FROM found WHERE asset_id IS NOT NULL GROUP BY 1
            HAVING bool_or(is_raw(format)) AND bool_or(video_id IS NULL AND NOT is_raw(format))
                OR bool_or(video_id IS NULL) AND bool_or(video_id IS NOT NULL)
                OR bool_or(format = 'HEIC') AND bool_or(format = 'JPEG')
            """
        )

    def _find_bursts(self, gap_s: float) -> None:
        """Of more than one press of the shutter; named by the first address."""
        self._run(
            """
            CREATE OR REPLACE TABLE bursts AS
            WITH shots AS (
                SELECT source_uri, taken_at, place_of(source_uri) AS place, coalesce(camera_model, '') AS camera, lower(stem_of(source_uri)) AS stem
                FROM found WHERE asset_id IS NOT NULL AND video_id IS NULL AND taken_at IS NOT NULL AND $1 > 0
            ), gaps AS (
                SELECT *, epoch_ms(taken_at) - lag(epoch_ms(taken_at)) OVER one_camera AS gap_ms FROM shots
                WINDOW one_camera AS (PARTITION BY place, camera ORDER BY taken_at, source_uri)
            ), runs AS (
                SELECT *, count_if(coalesce(gap_ms > 1000 * $1, true)) OVER one_camera AS run FROM gaps
                WINDOW one_camera AS (PARTITION BY place, camera ORDER BY taken_at, source_uri ROWS UNBOUNDED PRECEDING)
            ), several AS (SELECT place, camera, run, min(source_uri) AS burst FROM runs GROUP BY ALL HAVING count(DISTINCT stem) > 1)
            SELECT source_uri, burst FROM runs JOIN several USING (place, camera, run)
            """,
            [gap_s],
        )

    def _find_sidecars(self) -> None:
        """What sidecars say by the picture they name: `a.jpg.xmp` that file, `a.xmp` every file of that stem."""
        self._run(
            """
            CREATE OR REPLACE TABLE sidecars AS
            SELECT lower(stem_of(source_uri)) AS target, list_reduce(list(sidecar ORDER BY source_uri, sidecar), lambda a, b: json_merge_patch(a, b)) AS said
            FROM found WHERE sidecar IS NOT NULL GROUP BY 1
            """
        )
        self._run(
            """
            CREATE OR REPLACE TABLE used AS
            WITH pictures AS (
                SELECT lower(stem_of(source_uri)) AS target FROM found WHERE asset_id IS NOT NULL
                UNION SELECT lower(file_of(source_uri)) FROM found WHERE asset_id IS NOT NULL
            )
            SELECT source_uri FROM found SEMI JOIN pictures ON pictures.target = lower(stem_of(found.source_uri)) WHERE sidecar IS NOT NULL
            """
        )

    def write_manifest(self) -> Path:
        """The rows that were counted, as one Parquet file sorted by source_uri (then by the rest: an archive may hold a name twice); equal rows give equal bytes."""
        path = self._folder / "manifest.parquet"
        with translated(f"Writing {path}"), pq.ParquetWriter(path, schemas.MANIFEST, compression="zstd", write_statistics=True) as writer:
            waiting: list[pa.RecordBatch] = []
            for batch in self._stream(f"SELECT {MANIFEST_COLUMNS} FROM rows ORDER BY source_uri, asset_id, reason, detail, sidecar, size_bytes"):
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
