"""The store: assets by their hash, thumbnails, and artifacts that become visible when their record.json is written.

    assets/ab/cd/<sha256>                      bytes by their own hash, written once
    thumbnails/<px>/ab/<sha256>.webp
    encoders/<key>.json                        what an encoder is, remembered so that it need not be loaded
    artifacts/<stage>/<key>/<role>-<sha256>.*  files of a record
    artifacts/<stage>/<key>/record.json        written last: its presence is the commit
    journal/<topic>/<sha256>/<number>.json     what the catalog knows beyond the records (journal.py)
    leases/<host>-<pid>-<id>/<number>          who is writing now (leases.py)
    cache/                                     of a local root: which files were checked (local_copies.py); may be deleted
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from discovery.adapters.files import Entry, open_files, translated
from discovery.adapters.journal import Journal
from discovery.adapters.leases import Lease
from discovery.adapters.local_copies import Check, LocalCopies
from discovery.adapters.range_file import RangeFile
from discovery.addressing import file_sha256, is_content_id, matches, sha256_hex
from discovery.config import S3Config, local_folder
from discovery.errors import CorruptArtifact, InvalidInput, StorageError
from discovery.types import FileRef, Record, record_from_json

RecordT = TypeVar("RecordT", bound=Record)
RECORD_NAME = "record.json"
OWN_FOLDERS = ("artifacts", "assets", "cache", "encoders", "journal", "leases", "mlartifacts", "scratch", "services", "thumbnails")  # under a root
SWEEP_AGE_S = 3600.0  # gc keeps what is younger, and what is that much older than the oldest live run


def asset_path(asset_id: str) -> str:
    """Where the bytes of an asset are; InvalidInput when the id is not a SHA-256, so that no path can be smuggled in."""
    return f"assets/{_checked(asset_id)[:2]}/{asset_id[2:4]}/{asset_id}"


def thumbnail_path(asset_id: str, size_px: int) -> str:
    """Where the thumbnail of an asset is."""
    return f"thumbnails/{int(size_px)}/{_checked(asset_id)[:2]}/{asset_id}.webp"


def artifact_folder(stage: str, key: str) -> str:
    """Folder of one record."""
    return f"artifacts/{stage}/{_checked(key)}"


def _checked(content_id: str) -> str:
    if not is_content_id(content_id):
        raise InvalidInput(f"{content_id[:80]!r} is not an id: expected 64 hexadecimal digits.")
    return content_id


def table_to_parquet(table: pa.Table, plain: Sequence[str] = ()) -> bytes:
    """Parquet bytes; equal tables give equal bytes with one pyarrow version. plain: columns that are neither compressed nor have statistics."""
    sink = io.BytesIO()
    packed: list[str] = [name for name in table.column_names if name not in plain]
    compression: str | dict[str, str] = {name: "none" if name in plain else "zstd" for name in table.column_names} if plain else "zstd"
    pq.write_table(table, sink, compression=compression, write_statistics=packed if plain else True, use_dictionary=packed if plain else True)
    return sink.getvalue()


class Store:
    """Reads and writes under one root URI. Everything it returns was checked against its recorded hash.

    leased: hold a lease from the first write until `close`, as a run does. A worker's store needs none: what it writes, it commits at
    once, and its driver has one.
    """

    def __init__(self, root: str, s3: S3Config | None = None, *, leased: bool = False) -> None:
        self.root = root
        self.s3 = s3 or S3Config()
        self.files = open_files(root, self.s3)
        self.journal = Journal(self.files)
        self.lease = Lease(self.files) if leased else None
        self.copies = LocalCopies(self.files, local_folder(root) / "cache")

    def close(self) -> None:
        """Tell that nothing more will be written."""
        if self.lease is not None:
            self.lease.release()

    def _keep(self, path: str, data: bytes | Path) -> bool:
        """Create, under this run's lease; what an older run left is made young, so that gc takes it for in use. Whether it was new."""
        if self.lease is not None:
            self.lease.take()
        while not (self.files.create_from(path, data) if isinstance(data, Path) else self.files.create(path, data)):
            entry = self.files.stat(path)
            if entry is not None and (time.time() - entry.changed < SWEEP_AGE_S / 2 or self.files.renew(path)):
                return False  # else gc removed it between: create it again
        return True

    # assets

    def put_asset(self, asset_id: str, data: bytes) -> bool:
        """Keep bytes under their hash; whether they were new. InvalidInput when the hash is another."""
        if not matches(data, asset_id):
            raise InvalidInput(f"Asset {asset_id} does not have the bytes that were given.")
        return self._keep(asset_path(asset_id), data)

    def has_asset(self, asset_id: str) -> bool:
        """Whether the bytes are in the store (an asset may also stay at its source)."""
        return self.files.stat(asset_path(asset_id)) is not None

    def get_asset(self, asset_id: str) -> bytes:
        """The bytes, checked; FileNotFoundError when they stay at their source, CorruptArtifact when they changed."""
        data = self.files.read(asset_path(asset_id))
        if not matches(data, asset_id):
            raise self._changed(asset_path(asset_id), asset_id, sha256_hex(data))
        return data

    def put_thumbnail(self, asset_id: str, size_px: int, webp: bytes) -> bool:
        """Keep a thumbnail, unless there is one; whether there was none."""
        return self._keep(thumbnail_path(asset_id, size_px), webp)

    def thumbnail(self, asset_id: str, size_px: int = 256) -> bytes:
        """WebP bytes; FileNotFoundError when there is none."""
        return self.files.read(thumbnail_path(asset_id, size_px))

    # artifacts

    def put_file(self, stage: str, key: str, role: str, data: bytes | Path, suffix: str, rows: int = 0) -> FileRef:
        """Write one file of a record to come, from bytes or from a local file; it is invisible until the record is committed."""
        if isinstance(data, Path):
            with translated(f"Reading {data}"):
                digest, size = file_sha256(data), data.stat().st_size
        else:
            digest, size = sha256_hex(data), len(data)
        name = f"{role}-{digest}{suffix}"
        self._keep(f"{artifact_folder(stage, key)}/{name}", data)
        return FileRef(role, name, digest, size, rows)

    def commit(self, record: RecordT) -> RecordT:
        """Write record.json: the record and its files are visible from here on. The first writer wins; theirs is returned.

        Raises StorageError when a file of it is not there: somebody removed it before it was committed.
        """
        folder = artifact_folder(record.stage, record.id)
        for ref in record.files:
            entry = self.files.stat(f"{folder}/{ref.name}")
            if entry is None or entry.size_bytes != ref.size_bytes:
                raise StorageError(f"{self.root}/{folder}/{ref.name} was removed or cut before it was committed. Run again.")
        path = f"{folder}/{RECORD_NAME}"
        if self.files.create(path, record.to_json().encode()):
            return record
        winner = self.load_record(type(record), record.id)
        if winner is None:
            raise CorruptArtifact(f"{self.root}/{path} vanished while it was committed. Run again.")
        return winner

    def load_record(self, kind: type[RecordT], key: str) -> RecordT | None:
        """The committed record, or None."""
        path = f"{artifact_folder(kind.stage, key)}/{RECORD_NAME}"
        try:
            data = self.files.read(path)
        except FileNotFoundError:
            return None
        record = record_from_json(data)
        if not isinstance(record, kind) or record.id != key:
            raise CorruptArtifact(f"{self.root}/{path} holds a record of {record.stage} {record.id}. Run `discovery verify`.")
        return record

    def read_file(self, record: Record, role: str) -> bytes:
        """The checked bytes of one file of a record."""
        path = self.file_path(record, role)
        try:
            return self._verified(path, record.file(role).sha256)
        except FileNotFoundError as error:
            raise self._missing(path) from error

    def copy_file(self, record: Record, role: str, target: Path) -> None:
        """The checked bytes of one file of a record in a local file; they are never all in memory."""
        path = self.file_path(record, role)
        try:
            self.files.read_into(path, target)
        except FileNotFoundError as error:
            raise self._missing(path) from error
        with translated(f"Reading {target}"):
            found = file_sha256(target)
        if found != record.file(role).sha256:
            raise self._changed(path, record.file(role).sha256, found)

    def local_file(self, record: Record, role: str, check: Check | None = None, limit: int = 0) -> Path:
        """A local file with one file of a record, hashed and looked through by `check` when it is not known to be unchanged since.

        limit: bytes that copies of remote files may take on this machine. Open it at once and do not write to it.
        """
        path, sha256 = self.file_path(record, role), record.file(role).sha256
        try:
            return self.copies.path(path, sha256, lambda found: self._changed(path, sha256, found), check, limit)
        except FileNotFoundError as error:
            raise self._missing(path) from error

    def read_table(self, record: Record, role: str = "table", columns: Sequence[str] | None = None) -> pa.Table:
        """One Parquet file of a record as a table."""
        return pq.read_table(io.BytesIO(self.read_file(record, role)), columns=list(columns) if columns else None)

    def peek_columns(self, record: Record, columns: Sequence[str], role: str = "table") -> pa.Table:
        """Some columns of a Parquet file, of which nothing else is read: ids beside vectors are a hundredth of the bytes.

        So the hash of the file is not checked. Only for what a changed byte cannot harm: who relies on a row reads it by `read_table`.
        """
        ref, path = record.file(role), self.file_path(record, role)
        try:
            with RangeFile(lambda start, end: self.files.read_range(path, start, end), ref.size_bytes) as source:
                return pq.read_table(pa.PythonFile(source, "r"), columns=list(columns), pre_buffer=True, use_threads=False)
        except FileNotFoundError as error:
            raise CorruptArtifact(
                f"{self.root}/{path} is missing though its record names it. Restore it, or delete its folder and run again."
            ) from error
        except pa.ArrowException as error:
            raise CorruptArtifact(f"{self.root}/{path} is no Parquet file any more ({error}). Run `discovery verify`.") from error

    def file_path(self, record: Record, role: str) -> str:
        """Path of a record's file, relative to the root."""
        return f"{artifact_folder(record.stage, record.id)}/{record.file(role).name}"

    def committed_keys(self, stage: str) -> list[str]:
        """Keys of every committed record of a stage, sorted, from the listing alone."""
        return sorted(
            path.split("/")[-2] for path, _, _ in self.files.walk(f"artifacts/{stage}") if path.endswith(f"/{RECORD_NAME}")
        )

    def records(self, stages: Sequence[str]) -> Iterator[Record]:
        """Every committed record of these stages, read from the store itself, in the order of their paths."""
        for stage in stages:
            for path in sorted(path for path, _, _ in self.files.walk(f"artifacts/{stage}")):
                if path.endswith(f"/{RECORD_NAME}"):
                    yield record_from_json(self.files.read(path))

    def scan(self) -> Iterator[tuple[Entry, Record | None]]:
        """Every record.json there is, and the record in it: None when it holds none, or that of another place."""
        for entry in self.files.walk("artifacts"):
            if entry.path.endswith(f"/{RECORD_NAME}"):
                try:
                    record = record_from_json(self.files.read(entry.path))
                except (CorruptArtifact, FileNotFoundError):
                    yield entry, None
                    continue
                is_its_place = is_content_id(record.id) and entry.path == f"{artifact_folder(record.stage, record.id)}/{RECORD_NAME}"
                yield entry, record if is_its_place else None

    def _verified(self, path: str, sha256: str) -> bytes:
        data = self.files.read(path)
        if (found := sha256_hex(data)) != sha256:
            raise self._changed(path, sha256, found)
        return data

    def _missing(self, path: str) -> CorruptArtifact:
        return CorruptArtifact(f"{self.root}/{path} is missing though its record names it. Restore it, or delete its folder and run again.")

    def _changed(self, path: str, sha256: str, found: str) -> CorruptArtifact:
        return CorruptArtifact(
            f"{self.root}/{path}: expected SHA-256 {sha256[:12]}…, found {found[:12]}…. "
            "The file was changed after it was written: run `discovery verify`, then restore it or delete its folder and run again."
        )
