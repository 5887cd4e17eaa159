"""Ingest: list the sources, read only what is new or changed, and account for every listed object as assets or rejections."""

from __future__ import annotations

import queue
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa

from discovery import schemas
from discovery.adapters.archives import Member, archive_kind, member_uri, members, split_address
from discovery.adapters.byte_budget import ByteBudget
from discovery.adapters.cores import available_cores
from discovery.adapters.decoder_pool import DecodeLimits, DecoderPool
from discovery.adapters.files import is_local, translated
from discovery.adapters.ingest_tables import Counts, IngestTables
from discovery.adapters.listing import GLOB_CHARACTERS, Listed, batches, fixed_head
from discovery.adapters.metadata import GPS_NAMES
from discovery.adapters.sidecars import is_sidecar, read_sidecar
from discovery.adapters.sources import check_unchanged, folder_of, list_sources, local_copy, read_object
from discovery.adapters.storage import table_to_parquet
from discovery.adapters.videos import Sampling, video_suffix
from discovery.addressing import canonical_json, content_id, file_sha256, sha256_hex, stage_key
from discovery.config import IngestConfig
from discovery.errors import SourceNotFound, StorageError, StorageFull
from discovery.stages.asset_table import column_names
from discovery.types import IngestPart, Manifest, Reason, Record
from discovery.workspace import Workspace

T = TypeVar("T")
R = TypeVar("R")
Row = dict[str, Any]
ROWS_VERSION = 3  # raise it when the same bytes give another row; everything is then read again
LISTING_PAGE = 10_000  # objects handed to the tables at once
WINDOW = 64  # objects under way: keeps the reading threads busy; their bytes have a limit of their own
ROWS_AT_ONCE = 1_000  # of an archive or a video; its others are on disk meanwhile
CHECKPOINT_S = 30.0  # what a kill may cost, besides what is under way
TICK_S = 1.0
GIVE_UP_AFTER = 50  # objects in a row that could not be read: their source is down, and they are no rejections
STALE_SCRATCH_S = 86_400.0


def ingest(sources: Sequence[str], ws: Workspace) -> Manifest:
    """Make the manifest of what the sources list now.

    An unchanged listing returns the manifest it already has, unless rows in it failed for a reason that may pass (`unreadable`,
    `vanished`), which are then tried again. Unchanged objects are taken over from earlier manifests without reading a byte; a killed
    ingest goes on where it was, and so does one whose source went down in the middle. Memory above the start: about `ingest.listing_memory_bytes`, plus at
    most `ingest.max_bytes` of pictures and archive members under way, plus the decoder processes, however long the listing. Raises SourceNotFound,
    AccessDenied, StorageError, StorageFull. Tally: ingest.unchanged, ingest.objects_read, ingest.bytes_read, ingest.new_assets,
    ingest.removed, ingest.moved.
    """
    settings = ws.config.ingest
    stores = sorted({ws.config.root, str(ws.config.local_folder)})
    history = _History.of(sources, ws)
    previous = history.previous
    with _scratch(ws) as folder, IngestTables(folder, settings.listing_memory_bytes) as tables:
        for page in batches(list_sources(sources, ws.config.s3, stores, column_names(), ws.config.privacy.keep_gps), LISTING_PAGE):
            tables.add_listed(page)
        listed, listing = tables.end_listing()
        same = previous is not None and (previous.listing, previous.settings) == (listing, history.settings)
        if previous is not None and same and not any(Reason(name).is_transient for name in previous.rejections):
            ws.tally["ingest.unchanged"] += listed
            return previous
        decided = {"rules": history.rules, "video_rules": history.video_rules}
        key = ws.key(Manifest, [settings], [], listing=listing, previous=previous.id if previous else "", **decided)
        if (found := ws.find(Manifest, key)) is not None:
            return found

        history.load_into(tables, folder, settings, ws)
        missing = tables.find_unread()
        ws.report(f"ingest: {listed:,} listed, {listed - missing:,} unchanged, {missing:,} to read")
        _read_missing(tables, history, missing, ws)
        previous_table = folder / previous.id if previous is not None else None
        counts = tables.count(previous_table, settings.burst_gap_s)
        ws.tally.update({f"ingest.{name}": getattr(counts, name) for name in ("new_assets", "unchanged", "removed", "moved")})
        return _commit(tables, counts, history, key, listing, same, ws)


@dataclass(frozen=True)
class _History:
    """What earlier ingests left that this one can use."""

    sources: tuple[str, ...]
    settings: str
    rules: str
    video_rules: str
    previous: Manifest | None  # the newest of the same sources
    manifests: tuple[Manifest, ...]  # the newest of each set of sources that may list the same objects, newest first
    parts: tuple[IngestPart, ...]  # of an ingest of these sources that did not end, newest first

    @classmethod
    def of(cls, sources: Sequence[str], ws: Workspace) -> _History:
        wanted = tuple(sorted(set(sources)))
        rules = content_id([ROWS_VERSION, schemas.MANIFEST.names, ws.config.ingest.thumbnail_px, ws.config.privacy.keep_gps])
        video_rules = content_id(ws.config.video.identity())
        newest: dict[tuple[str, ...], Manifest] = {}
        for record in ws.catalog.records(Manifest.stage):
            if isinstance(record, Manifest):
                newest.setdefault(record.sources, record)
        previous = newest.get(wanted)
        near = [m for m in newest.values() if m.rules == rules and _may_overlap(m.sources, wanted)]
        parts = [
            part
            for part in ws.catalog.records(IngestPart.stage)
            if isinstance(part, IngestPart) and (part.sources, part.rules) == (wanted, content_id([rules, video_rules]))
            if part.previous == (previous.id if previous else "")
        ]
        settings = content_id([rules, video_rules, ws.config.ingest.identity()])
        return cls(wanted, settings, rules, video_rules, previous, tuple(near), tuple(parts))

    def load_into(self, tables: IngestTables, folder: Path, settings: IngestConfig, ws: Workspace) -> None:
        """Fill the table of what is known, newest first; the previous manifest's table stays in `folder` under its id."""
        unsettled = [reason for reason in Reason if not reason.is_settled]
        records: list[Record] = [*self.parts, *self.manifests]
        for record in records:
            path = folder / record.id
            ws.store.copy_file(record, "table", path)
            has_frames = isinstance(record, IngestPart) or (isinstance(record, Manifest) and record.video_rules == self.video_rules)
            tables.add_known(path, unsettled, settings.max_bytes, settings.max_pixels, has_frames)
            if record is not self.previous:
                path.unlink()
        if self.previous is not None and self.previous not in self.manifests:  # made under other rules
            ws.store.copy_file(self.previous, "table", folder / self.previous.id)


def _may_overlap(some: Iterable[str], others: Iterable[str]) -> bool:
    heads = [fixed_head(uri) for uri in others]
    return any(a.startswith(b) or b.startswith(a) for a in map(fixed_head, some) for b in heads)


def _read_missing(tables: IngestTables, history: _History, missing: int, ws: Workspace) -> None:
    """Read what is not known, and enter its rows; what was read for more than CHECKPOINT_S is kept as a part."""
    if not missing:
        return
    settings = ws.config.ingest
    seconds = (settings.decode_seconds, ws.config.video.max_seconds)
    limits = DecodeLimits(settings.max_pixels, settings.thumbnail_px, seconds[0], settings.decode_memory_bytes, seconds[1])
    rows: list[Row] = []
    large: list[pa.Table] = []  # of objects that have ended and whose first rows came before their end
    begun: set[str] = set()
    done, failed, kept_at, said_at = 0, 0, time.monotonic(), time.monotonic()

    processes = settings.decoders or available_cores()
    with DecoderPool(processes, limits) as decoders, ThreadPoolExecutor(2 * processes) as inside, _scratch(ws) as folder:
        copies = ByteBudget(max(settings.max_archive_bytes, ws.config.video.max_bytes))
        reader = _Reader(ws, decoders, ByteBudget(settings.max_bytes), copies, inside, folder)
        unread = (item for page in tables.unread(LISTING_PAGE) for item in page)
        with closing(_as_finished(reader.read, unread, settings.read_threads, decoders.stop)) as reads:
            for read in reads:
                if read is not None and not read.is_last:
                    tables.add_begun(_table(read.rows))
                    begun.add(read.object_uri)
                elif read is not None:
                    if read.object_uri in begun:
                        begun.remove(read.object_uri)
                        first = tables.take_begun(read.object_uri)
                        large.extend([] if read.is_refused else [first])
                    rows.extend(read.rows)
                    ws.tally["ingest.objects_read"] += 1
                    ws.tally["ingest.bytes_read"] += read.bytes
                    done += 1
                    failed = failed + 1 if read.is_outage else 0
                now = time.monotonic()
                if now - said_at > 2:
                    ws.report(f"ingest: {done:,} of {missing:,} read")
                    said_at = now
                waiting = len(rows) + sum(map(len, large))
                if waiting and (now - kept_at > CHECKPOINT_S or waiting >= LISTING_PAGE or failed == GIVE_UP_AFTER):
                    table = pa.concat_tables([*large, _table(rows)])
                    _keep_part(table, history, ws)
                    tables.add_rows(table)
                    rows.clear()
                    large.clear()
                    kept_at = now
                if failed == GIVE_UP_AFTER and read is not None:
                    raise StorageError(
                        f"The last {failed} objects could not be read. {read.rows[0]['detail']} "
                        "What was read before is kept: run again when the source answers."
                    )
    tables.add_rows(pa.concat_tables([*large, _table(rows)]))
    ws.report(f"ingest: {done:,} of {missing:,} read")


def _table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=schemas.READ_ROWS)


class _Ended(NamedTuple):
    error: BaseException | None


def _as_finished(
    work: Callable[[T], Generator[R, None, None]], items: Iterable[T], threads: int, stop: Callable[[], None]
) -> Generator[R | None, None, None]:
    """What `work` yields of each item, as it comes, of at most WINDOW items at once; None when nothing came for TICK_S.

    One who leaves early, or meets an error of `work`, waits only for what is under way to get to its next yield; `stop` is called
    before, to hasten it.
    """
    found: queue.Queue[R | _Ended] = queue.Queue(threads)  # it fills when the one who takes is slow, and holds the others back
    is_left = threading.Event()

    def hand_over(result: R | _Ended) -> bool:
        while not is_left.is_set():
            with suppress(queue.Full):
                found.put(result, timeout=0.1)
                return True
        return False

    def run(item: T) -> None:
        error: BaseException | None = None
        try:
            with closing(work(item)) as results:
                all(map(hand_over, results))  # ends at the first that nobody wants
        except BaseException as caught:  # the one who takes raises it
            error = caught
        hand_over(_Ended(error))

    pool = ThreadPoolExecutor(threads)
    todo, under_way = iter(items), 0
    try:
        while True:
            for item in islice(todo, WINDOW - under_way):
                pool.submit(run, item)
                under_way += 1
            if not under_way:
                return
            try:
                result = found.get(timeout=TICK_S)
            except queue.Empty:
                yield None
                continue
            if not isinstance(result, _Ended):
                yield result
            elif result.error is not None:
                raise result.error
            else:
                under_way -= 1
    finally:
        is_left.set()
        if under_way:
            stop()
        pool.shutdown(cancel_futures=True)


def _windowed(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T], window: int) -> Iterator[R]:
    """Results of `work` in the order of the items, at most `window` of them under way; these run to their ends in any case."""
    waiting: deque[Future[R]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) == window:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@dataclass(frozen=True, slots=True)
class _Read:
    """What came of one object: its rows, the bytes that were read for them, whether its server did not serve it.

    is_last: false for rows of an archive or video that come before its end. is_refused: its rows before the last do not count.
    """

    object_uri: str
    rows: list[Row]
    bytes: int = 0
    is_outage: bool = False
    is_last: bool = True
    is_refused: bool = False


class _NotRead(Exception):
    """An object's bytes did not come; its `reason`, a `detail` for a person, and whether its server is at fault."""

    def __init__(self, reason: Reason, detail: str, is_outage: bool = False) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.is_outage = is_outage


@contextmanager
def _reading(uri: str) -> Iterator[None]:
    try:
        yield
    except StorageFull:
        raise
    except SourceNotFound as error:
        raise _NotRead(Reason.VANISHED, str(error)) from error
    except Exception as error:
        is_outage = isinstance(error, StorageError) and not is_local(uri)
        raise _NotRead(Reason.UNREADABLE, f"{type(error).__name__}: {error}", is_outage) from error


@dataclass(frozen=True)
class _Reader:
    """From a listed object to its rows. `inside` runs the members of archives.

    Archives and videos of a bucket lie in `folder` meanwhile; `copies` bounds how much of it they take together.
    """

    ws: Workspace
    decoders: DecoderPool
    budget: ByteBudget
    copies: ByteBudget
    inside: ThreadPoolExecutor
    folder: Path

    def read(self, item: Listed) -> Generator[_Read, None, None]:
        """One object: one row, unless it is an archive or a video."""
        kind, config = archive_kind(item.object_uri), self.ws.config
        moving = bool(video_suffix(item.object_uri))
        limit = config.ingest.max_archive_bytes if kind else config.video.max_bytes if moving else config.ingest.max_bytes
        if item.problem:
            yield self._not_read(item, Reason(item.problem_reason or Reason.UNREADABLE), item.problem)
        elif item.object_bytes > limit:
            yield self._not_read(item, Reason.TOO_LARGE, f"{item.object_bytes} bytes; the limit is {limit}")
        else:
            try:
                if kind or moving:
                    yield from self._large(item, kind)
                else:
                    yield self._picture(item)
            except _NotRead as error:  # one object that cannot be read must not end the run; a store that cannot be written must
                yield self._not_read(item, error.reason, error.detail, error.is_outage)

    def _not_read(self, item: Listed, reason: Reason, detail: str, is_outage: bool = False) -> _Read:
        return _Read(item.object_uri, [self._rejected(item, reason, detail)], is_outage=is_outage, is_refused=True)

    def _picture(self, item: Listed) -> _Read:
        with self.budget.hold(item.object_bytes):
            with _reading(item.object_uri):
                data = read_object(item.object_uri, self.ws.config.s3, item)
            return _Read(item.object_uri, [self._row(item, item.object_uri, data)], len(data))

    def _large(self, item: Listed, kind: str) -> Generator[_Read, None, None]:
        size = 0 if is_local(item.object_uri) else item.object_bytes
        with ExitStack() as stack:
            stack.enter_context(self.copies.hold(size))
            with _reading(item.object_uri):
                path = stack.enter_context(local_copy(item.object_uri, self.ws.config.s3, self.folder, item))
            rows: list[Row] = []
            for row in self._archive_rows(item, kind, path) if kind else self._video_rows(item, item.object_uri, path):
                rows.append(row)
                if len(rows) == ROWS_AT_ONCE:
                    yield _Read(item.object_uri, rows, is_last=False)
                    rows = []
            with _reading(item.object_uri):
                check_unchanged(item)
            yield _Read(item.object_uri, rows, item.object_bytes)

    def _archive_rows(self, item: Listed, kind: str, path: Path) -> Iterator[Row]:
        found = members(path, kind, self.ws.config.ingest.max_bytes, self.budget)
        for rows in _windowed(self.inside, lambda member: self._member_rows(item, kind, member), found, 8):
            yield from rows

    def _member_rows(self, item: Listed, kind: str, member: Member) -> list[Row]:
        uri = member_uri(kind, member.name, item.object_uri) if member.name else item.object_uri
        with ExitStack() as stack:
            with ExitStack() as held:
                held.callback(member.let_go, self.budget)
                if member.reason is not None:
                    return [self._rejected(item, member.reason, member.detail) | self._address(uri, member.size_bytes)]
                if not video_suffix(member.name):
                    return [self._row(item, uri, member.data)]
                file = stack.enter_context(tempfile.NamedTemporaryFile(dir=self.folder, suffix=Path(member.name).suffix))
                with translated(f"Unpacking {uri} into {self.folder}"):
                    file.write(member.data)
                    file.flush()
            return list(self._video_rows(item, uri, Path(file.name)))

    def _video_rows(self, item: Listed, uri: str, path: Path) -> Iterator[Row]:
        """A row for each frame that is taken, and one for what is missing at the end; frames are always kept, since only decoding finds them."""
        with _reading(item.object_uri), translated(f"Reading {uri}"):
            video_id, size_bytes = file_sha256(path), path.stat().st_size
        config = self.ws.config
        sampling = Sampling(config.video.sampling, config.video.interval_s, config.video.scene_threshold, config.video.max_frames)
        for facts, webp, jpeg in self.decoders.examine_video(path, video_id, sampling):
            if "reason" in facts:
                yield self._rejected(item, facts["reason"], facts["detail"]) | self._address(uri, size_bytes)
                continue
            row = self._empty(item) | self._address(frame_uri(uri, facts["frame_s"]), len(jpeg))
            self.ws.store.put_asset(facts["asset_id"], jpeg)
            is_new = self.ws.store.put_thumbnail(facts["asset_id"], config.ingest.thumbnail_px, webp)
            yield row | self._said(facts) | {"is_new": is_new}

    def _row(self, item: Listed, uri: str, data: bytes) -> Row:
        """The row of a picture's bytes, which are put into the store; or of what a sidecar says."""
        row = self._empty(item) | self._address(uri, len(data))
        name, _ = split_address(uri)
        if is_sidecar(name, len(data)):
            try:
                said = read_sidecar(name, data, self.ws.config.privacy.keep_gps)
                return row | {"sidecar": canonical_json(said)}
            except ValueError as error:
                return row | {"reason": Reason.UNSUPPORTED_FORMAT, "detail": f"no picture, and no sidecar: {error}"[:300]}
        facts, webp = self.decoders.examine(data)
        if "reason" in facts:
            return row | facts
        settings, store, asset_id = self.ws.config.ingest, self.ws.store, sha256_hex(data)
        if settings.store_bytes or uri != item.object_uri:  # a member of an archive could be found again only by reading all before it
            store.put_asset(asset_id, data)
        is_new = store.put_thumbnail(asset_id, settings.thumbnail_px, webp)
        return row | self._said(facts) | {"asset_id": asset_id, "is_new": is_new}

    def _said(self, facts: Row) -> Row:
        """Facts as a row has them: a place only where it may be kept."""
        taken_at = facts.get("taken_at")
        hidden = {} if self.ws.config.privacy.keep_gps else dict.fromkeys(GPS_NAMES)
        return facts | {"taken_at": datetime.fromisoformat(taken_at) if taken_at else None} | hidden

    def _rejected(self, item: Listed, reason: Reason, detail: str) -> Row:
        return self._empty(item) | self._address(item.object_uri, item.object_bytes) | {"reason": reason, "detail": detail[:300]}

    @staticmethod
    def _address(uri: str, size_bytes: int) -> Row:
        return {"source_uri": uri, "size_bytes": size_bytes, "folder": folder_of(uri)}

    @staticmethod
    def _empty(item: Listed) -> Row:
        known = {"object_uri": item.object_uri, "object_bytes": item.object_bytes, "modified_at": item.modified_at, "etag": item.etag}
        return dict.fromkeys(schemas.READ_ROWS.names) | known | {"is_new": False}


def frame_uri(uri: str, seconds: float) -> str:
    """Address of a video frame, by W3C Media Fragments; before the archive, when the video lies in one.

    >>> frame_uri("/clips/a.mp4", 2.5), frame_uri("zip://a.mp4::/clips.zip", 0.0)
    ('/clips/a.mp4#t=2.500', 'zip://a.mp4#t=0.000::/clips.zip')
    """
    inner, archive = split_address(uri)
    return f"{inner}#t={seconds:.3f}::{archive}" if archive else f"{inner}#t={seconds:.3f}"


def _keep_part(table: pa.Table, history: _History, ws: Workspace) -> None:
    previous = history.previous.id if history.previous else ""
    objects = content_id(table.select(["object_uri", "object_bytes", "modified_at", "etag"]).to_pylist())
    rules = content_id([history.rules, history.video_rules])
    identity = {"rules": rules, "sources": list(history.sources), "previous": previous, "objects": objects}
    key = stage_key(IngestPart.stage, IngestPart.version, identity, [])
    file = ws.put_file(IngestPart, key, "table", table_to_parquet(table), ".parquet", len(table))
    ws.commit(
        IngestPart(
            id=key, inputs=(), created_at=ws.clock(), files=(file,), sources=history.sources, rules=rules, previous=previous,
            rows=len(table),
        )
    )  # fmt: skip


def _commit(
    tables: IngestTables, counts: Counts, history: _History, key: str, listing: str, same_listing: bool, ws: Workspace
) -> Manifest:
    previous = history.previous
    table = tables.write_manifest()
    if previous is not None and same_listing and previous.file("table").sha256 == file_sha256(table):
        return previous  # what failed before failed again
    files = [ws.put_file(Manifest, key, "table", table, ".parquet", counts.rows)]
    if counts.removed:
        files.append(ws.put_file(Manifest, key, "removed", tables.write_removed(), ".parquet", counts.removed))
    return ws.commit(
        Manifest(
            id=key, inputs=(previous.id,) if previous else (), created_at=ws.clock(), files=tuple(files), sources=history.sources,
            listing=listing, settings=history.settings, rules=history.rules, previous=previous.id if previous else "", rows=counts.rows,
            assets=counts.assets, new_assets=counts.new_assets, unchanged=counts.unchanged, removed=counts.removed, moved=counts.moved,
            rejected=sum(counts.rejections.values()), rejections=counts.rejections, video_rules=history.video_rules, sidecars=counts.sidecars,
        )
    )  # fmt: skip


@contextmanager
def _scratch(ws: Workspace) -> Iterator[Path]:
    """A folder on local disk for this ingest alone; those that killed ones left are removed after a day."""
    top = ws.config.local_folder / "scratch"
    if GLOB_CHARACTERS & set(str(top)):
        top = Path(tempfile.gettempdir()) / "discovery-scratch"  # DuckDB takes every path for a pattern
    with translated(f"Making a scratch folder in {top}"):
        top.mkdir(parents=True, exist_ok=True)
        for left in top.glob("ingest-*"):
            if time.time() - left.stat().st_mtime > STALE_SCRATCH_S:
                shutil.rmtree(left, ignore_errors=True)
        folder = tempfile.TemporaryDirectory(prefix="ingest-", dir=top, ignore_cleanup_errors=True)
    with folder as name:
        yield Path(name)
