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
from discovery.adapters.archives import ADDRESS
from discovery.adapters.archives import SUFFIXES as ARCHIVE_SUFFIXES
from discovery.adapters.files import translated
from discovery.adapters.listing import Listed, bad_row
from discovery.adapters.lists import merge_said
from discovery.adapters.videos import SUFFIXES as VIDEO_SUFFIXES
from discovery.errors import DiscoveryError, StorageError, StorageFull
from discovery.types import Reason

ROW_GROUP = 2**16  # rows; part of the bytes of a manifest, so it is fixed
LISTING = pa.schema([(name, {"object_bytes": pa.int64(), "hides": pa.bool_()}.get(name, pa.string())) for name in Listed._fields])
KNOWN = pa.schema([*schemas.MANIFEST, ("is_due", pa.bool_())])  # due: something of its object is to be tried again, so that it is read when it can be
TRANSIENT = [str(reason) for reason in Reason if reason.is_transient]
BEST_FIRST = "problem <> '', attributes DESC, modified_at DESC, object_bytes DESC, etag DESC, problem, problem_reason, named_by, hides"  # of what several sources say of one object
MANIFEST_COLUMNS = ", ".join(schemas.MANIFEST.names)
MACROS = (  # of a row's address: `zip://a/b.mov#t=1.000::/photos.zip` is b.mov in the folder a of an archive, at one second
    f"outer_of(uri) AS CASE WHEN starts_with(uri, 'zip://') OR starts_with(uri, 'tar://') THEN regexp_extract(uri, '^{ADDRESS}$', 2) ELSE '' END",
    "inner_of(uri) AS regexp_replace(substr(uri, 1, length(uri) - length(outer_of(uri))), '#t=[0-9.]+$', '')",
    "file_of(uri) AS inner_of(uri) || outer_of(uri)",
    "stem_of(uri) AS regexp_replace(inner_of(uri), '[.][A-Za-z0-9]{1,5}$', '') || outer_of(uri)",
    "place_of(uri) AS regexp_replace(inner_of(uri), '[^/]*$', '') || outer_of(uri)",
    "ends_with_any(uri, suffixes) AS len(list_filter(suffixes, lambda suffix: ends_with(lower(uri), suffix))) > 0",
    "is_raw(format) AS format IN ('DNG', 'RAW')",
    "as_file_uri(path) AS 'file://' || replace(url_encode(path), '%2F', '/')",  # how names below it are written that are not Unicode
)
IDENTITY = ("object_uri", "object_bytes", "modified_at", "etag")
SAME_OBJECT = " AND ".join(["NOT known.is_due", *(f"known.{name} = listed.{name}" for name in IDENTITY)])


@dataclass(frozen=True, slots=True)
class Counts:
    """Of a manifest to be: rows and their parts, distinct assets, objects that were taken over unread, gone, or found elsewhere."""

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

    def __init__(self, folder: Path, memory_bytes: int) -> None:
        """folder: an empty one on local disk that is thrown away afterwards, without characters of globs. memory_bytes: of all this, about.

        DuckDB counts its pages and hash tables; what sorts, inserts and Arrow batches take besides was nearly as much again with a million rows,
        and grows with its threads.
        """
        settings = {"memory_limit": f"{memory_bytes // 2 // 2**20}MiB", "threads": "1", "preserve_insertion_order": "false"}
        self._folder = folder
        with self._translated():
            self._db = duckdb.connect(str(folder / "ingest.duckdb"), config={**settings, "temp_directory": str(folder / "spill")})
            for name, schema in (("pages", LISTING), ("known", KNOWN), ("fresh", schemas.READ_ROWS), ("begun", schemas.READ_ROWS)):
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
        self._run("CREATE TABLE several AS SELECT object_uri FROM pages GROUP BY 1 HAVING count(*) > 1")  # few or none: choosing holds all columns
        self._run(
            f"""
            CREATE TABLE listed AS
            SELECT * FROM pages ANTI JOIN several USING (object_uri)
            UNION ALL
            (SELECT * FROM pages SEMI JOIN several USING (object_uri) QUALIFY row_number() OVER (PARTITION BY object_uri ORDER BY {BEST_FIRST}) = 1)
            """
        )
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

        unsettled: reasons after which an object is read again, unless it cannot be looked at now: then what is known of it stands.
        max_bytes, max_pixels: today's limits; larger ones are looked at again.
        has_frames: whether today the same frames would be taken of its videos; else these are left out, and archives, which may hold some.
        """
        self._run(
            f"CREATE OR REPLACE TABLE earlier AS SELECT {MANIFEST_COLUMNS} FROM read_parquet($1)", [str(manifest)]
        )  # fmt: skip
        self._run(
            f"""
            INSERT INTO known SELECT earlier.*, due.object_uri IS NOT NULL FROM earlier
            LEFT JOIN (SELECT DISTINCT {', '.join(IDENTITY)} FROM earlier WHERE list_contains($1, reason)) AS due USING ({', '.join(IDENTITY)})
            ANTI JOIN (SELECT DISTINCT object_uri FROM known) USING (object_uri)
            ANTI JOIN (
                SELECT object_uri FROM earlier
                WHERE size_bytes > $2 OR width_px::BIGINT * height_px > $3 OR NOT $4 AND ends_with_any(object_uri, $5)
            ) USING (object_uri)
            WHERE reason IS NULL OR NOT list_contains($6, reason)
            """,
            [list(unsettled), max_bytes, max_pixels, has_frames, [*VIDEO_SUFFIXES, *ARCHIVE_SUFFIXES], TRANSIENT],
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

        Raises DiscoveryError when they do not add up: see `_check_accounts`. What a row owes to others of the same listing is found anew each
        time: its capture, its burst (pictures of one camera and folder at most burst_gap_s apart; 0: none), and what lists and sidecars say of it. What the previous manifest knew at or below an
        address that cannot be looked at now is kept, beside the rejection of that address, and is not counted as gone.
        """
        self._find_kept(previous)
        self._run(
            f"""
            CREATE OR REPLACE TABLE found AS
            SELECT {MANIFEST_COLUMNS} FROM fresh
            UNION ALL SELECT {MANIFEST_COLUMNS} FROM known SEMI JOIN listed ON {SAME_OBJECT}
            UNION ALL SELECT {MANIFEST_COLUMNS} FROM known SEMI JOIN kept USING (object_uri)
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
            FROM found LEFT JOIN listed USING (object_uri)
            LEFT JOIN captures ON captures.stem = lower(stem_of(found.source_uri)) AND found.asset_id IS NOT NULL
            LEFT JOIN bursts ON bursts.source_uri = found.source_uri AND bursts.asset_id = found.asset_id
            LEFT JOIN sidecars AS near_by ON near_by.target = lower(stem_of(found.source_uri)) AND found.asset_id IS NOT NULL
            LEFT JOIN sidecars AS by_name ON by_name.target = lower(file_of(found.source_uri)) AND found.asset_id IS NOT NULL
            LEFT JOIN used ON used.source_uri = found.source_uri
            """
        )
        self._check_accounts()
        self._run("DROP TABLE found")
        removed, moved = 0, 0
        kept = self._one("SELECT count(*) FROM kept SEMI JOIN known USING (object_uri)")
        if previous is not None:
            self._run(
                """
                CREATE OR REPLACE TABLE gone AS SELECT object_uri, source_uri, asset_id FROM read_parquet($1)
                ANTI JOIN (
                    SELECT object_uri FROM listed
                    ANTI JOIN (SELECT object_uri FROM fresh WHERE reason = 'vanished') USING (object_uri)
                    WHERE problem = '' OR hides
                ) USING (object_uri)
                ANTI JOIN kept USING (object_uri)
                WHERE asset_id IS NOT NULL
                """,
                [str(previous)],
            )
            removed = self._one("SELECT count(*) FROM gone")
            moved = self._one("SELECT count(DISTINCT asset_id) FROM gone SEMI JOIN fresh USING (asset_id)")
        reasons = self._run("SELECT reason, count(*) FROM rows WHERE reason IS NOT NULL GROUP BY 1 ORDER BY 1").fetchall()
        return Counts(
            rows=self._one("SELECT count(*) FROM rows"),
            assets=self._one("SELECT count(DISTINCT asset_id) FROM rows"),
            new_assets=self._one("SELECT count(DISTINCT asset_id) FROM fresh WHERE is_new"),
            rejections={str(reason): int(number) for reason, number in reasons},
            unchanged=self._one(f"SELECT count(*) FROM listed SEMI JOIN known ON {SAME_OBJECT}") + kept,
            removed=removed, moved=moved, sidecars=self._one("SELECT count(*) FROM rows WHERE asset_id IS NULL AND reason IS NULL"),
        )  # fmt: skip

    def _find_kept(self, previous: Path | None) -> None:
        """Objects of the previous manifest that may well be there, at or below an address that could not be looked at."""
        self._run("CREATE OR REPLACE TABLE kept (object_uri VARCHAR)")
        if previous is None or not self._one("SELECT count(*) FROM listed WHERE hides"):
            return
        self._run(
            """
            CREATE OR REPLACE TABLE hidden AS
            WITH plain AS (SELECT object_uri AS uri FROM listed WHERE hides)
            SELECT uri FROM plain UNION SELECT as_file_uri(uri) FROM plain WHERE starts_with(uri, '/')
            """
        )
        self._run(  # below a folder: what sorts from its name with / to its name with the character after /
            """
            INSERT INTO kept
            WITH before AS (SELECT DISTINCT object_uri FROM read_parquet($1))
            SELECT object_uri FROM before SEMI JOIN hidden ON uri = object_uri
            UNION SELECT object_uri FROM before JOIN hidden ON object_uri >= uri || '/' AND object_uri < uri || '0'
            EXCEPT SELECT object_uri FROM listed WHERE NOT hides
            """,
            [str(previous)],
        )

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
                SELECT source_uri, asset_id, taken_at, place_of(source_uri) AS place, coalesce(camera_model, '') AS camera, lower(stem_of(source_uri)) AS stem
                FROM found WHERE asset_id IS NOT NULL AND video_id IS NULL AND taken_at IS NOT NULL AND $1 > 0
            ), gaps AS (
                SELECT *, epoch_ms(taken_at) - lag(epoch_ms(taken_at)) OVER one_camera AS gap_ms FROM shots
                WINDOW one_camera AS (PARTITION BY place, camera ORDER BY taken_at, source_uri)
            ), runs AS (
                SELECT *, count_if(coalesce(gap_ms > 1000 * $1, true)) OVER one_camera AS run FROM gaps
                WINDOW one_camera AS (PARTITION BY place, camera ORDER BY taken_at, source_uri ROWS UNBOUNDED PRECEDING)
            ), several AS (SELECT place, camera, run, min(source_uri) AS burst FROM runs GROUP BY ALL HAVING count(DISTINCT stem) > 1)
            SELECT source_uri, asset_id, min(burst) AS burst FROM runs JOIN several USING (place, camera, run) GROUP BY 1, 2
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
            SELECT DISTINCT source_uri FROM found SEMI JOIN pictures ON pictures.target = lower(stem_of(found.source_uri)) WHERE sidecar IS NOT NULL
            """
        )

    def _check_accounts(self) -> None:
        """Laws of the chain, so not asserts that -O removes: no object is lost, no row is lost or doubled, each row is one thing."""
        listed = self._one("SELECT count(*) FROM listed")
        same = ", ".join(IDENTITY)
        accounted = self._one(
            f"""
            SELECT count(*) FROM listed
            LEFT JOIN (SELECT DISTINCT object_uri FROM fresh) AS read USING (object_uri)
            LEFT JOIN (SELECT DISTINCT {same} FROM known WHERE NOT is_due) AS unread USING ({same})
            WHERE (read.object_uri IS NULL) <> (unread.object_uri IS NULL)
            """
        )
        found, rows = self._one("SELECT count(*) FROM found"), self._one("SELECT count(*) FROM rows")
        several = self._one(
            "SELECT count(*) FROM rows WHERE (asset_id IS NOT NULL)::INT + (reason IS NOT NULL)::INT"
            " + (asset_id IS NULL AND reason IS NULL AND sidecar IS NOT NULL)::INT <> 1"
        )
        wrong = [
            f"{listed:,} objects were listed and {accounted:,} accounted for, as either read or unchanged" * (accounted != listed),
            f"{found:,} rows came in and {rows:,} came out" * (found != rows),
            f"{several:,} rows are not exactly one of asset, rejection and sidecar" * (several > 0),
        ]
        if any(wrong):
            raise DiscoveryError(f"{'; '.join(filter(None, wrong))}. Nothing was recorded. Please report this, with the kinds of files in the source.")

    def write_manifest(self) -> Path:
        """The rows that were counted, as one Parquet file; equal rows give equal bytes, whatever order they were read in.

        Sorted by source_uri, then by whatever tells rows of one address apart: an archive may hold a name twice.
        """
        order = "source_uri, asset_id, reason, detail, size_bytes, sidecar, object_uri"
        return self._write("manifest.parquet", schemas.MANIFEST, f"SELECT {MANIFEST_COLUMNS} FROM rows ORDER BY {order}")

    def write_removed(self) -> Path:
        """(source_uri, asset_id) of what the previous manifest of these sources had and the listing has no more, by URI, as a Parquet file."""
        return self._write("removed.parquet", schemas.REMOVED, "SELECT source_uri, asset_id FROM gone ORDER BY source_uri, asset_id")

    def _write(self, name: str, schema: pa.Schema, rows: str) -> Path:
        """A query's rows as a Parquet file of the scratch folder, ROW_GROUP of them in memory."""
        path = self._folder / name
        with translated(f"Writing {path}"), pq.ParquetWriter(path, schema, compression="zstd", write_statistics=True) as writer:
            waiting: list[pa.RecordBatch] = []
            for batch in self._stream(rows):
                waiting.append(batch)
                while sum(map(len, waiting)) >= ROW_GROUP:
                    table = pa.Table.from_batches(waiting)
                    writer.write_table(table.slice(0, ROW_GROUP).cast(schema).combine_chunks(), row_group_size=ROW_GROUP)
                    waiting = table.slice(ROW_GROUP).to_batches()
            if waiting:
                writer.write_table(pa.Table.from_batches(waiting).cast(schema).combine_chunks(), row_group_size=ROW_GROUP)
        return path

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
        except (duckdb.IOException, duckdb.OutOfMemoryException, duckdb.TransactionException) as error:  # the last when a commit is not written
            said = str(error).splitlines()[0]
            what = f"Comparing the listing in {self._folder}: {said}"
            if isinstance(error, duckdb.OutOfMemoryException) and "on disk" not in said and "directory" not in said:
                raise StorageFull(f"{what}. Nothing was recorded; raise ingest.listing_memory_bytes and run again.") from error
            if isinstance(error, duckdb.OutOfMemoryException) or "space" in said or "too large" in said:
                raise StorageFull(f"Comparing the listing in {self._folder}: no space left ({said}). Nothing was recorded; free some space there and run again.") from error
            raise StorageError(f"{what}. Nothing was recorded; mend it and run again.") from error
