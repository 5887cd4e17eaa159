"""Bytes under names, in a local folder or an S3 bucket: whole reads, exclusive atomic creation, listing.

Creating is the one write: it makes the whole object appear at once or not at all, and says whether this caller made it. Both places
keep one contract, tests/contracts/test_files_contract.py. Other stores have no exclusive creation through fsspec, so no root is there.
"""

from __future__ import annotations

import errno
import os
import shutil
import tarfile
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from stat import S_ISREG
from typing import Any, BinaryIO, NamedTuple, Protocol, TypeVar
from urllib.parse import unquote_to_bytes

from tenacity import Retrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_random_exponential

from discovery.adapters.naming import make_folder, sync_folders, take_name
from discovery.config import S3Config
from discovery.errors import AccessDenied, ConfigError, CorruptArtifact, DiscoveryError, SourceNotFound, StorageError, StorageFull

T = TypeVar("T")
BROKEN_ARCHIVE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError)
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
TEMPORARY = ".tmp-"  # prefix of local files that are being written; no reader sees them, a killed writer may leave one
COPY_BYTES = 2**20  # read and written at once where a file is copied
PART_BYTES = 16 * 2**20  # of a multipart upload, which a file of two parts or more becomes; S3 wants at least 5 MiB
PUT_BYTES = 5 * 2**30  # in one request; S3 takes no more
PARTS = 10_000  # S3 takes no more
PAGE = 1000  # objects in one answer of a listing; S3 gives no more
ATTEMPTS = 5  # at a transfer, for each of which botocore makes up to four requests
PAUSE_S = 0.2  # the first pause at most; each next is twice as long
PATIENCE_S = 60.0  # no attempt begins later than that after the first
DENIED_CODES = frozenset(
    {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "403", "AllAccessDisabled"}
)


class Entry(NamedTuple):
    """One object: its path under the root, and the POSIX time of its last change by the clock of the storage."""

    path: str
    size_bytes: int
    changed: float


class Files(Protocol):
    """What the store needs of a place; paths are relative, with `/`."""

    def read(self, path: str) -> bytes:
        """All bytes; FileNotFoundError when there is no such object."""
        ...

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """The bytes from `start`, which lies within the object, up to `end`, or to its end; FileNotFoundError when there is no such object."""
        ...

    def read_into(self, path: str, target: Path) -> None:
        """All bytes into a local file, at most COPY_BYTES of them in memory; FileNotFoundError when there is no such object."""
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Make the whole object unless it exists; whether this call made it."""
        ...

    def create_from(self, path: str, source: Path) -> bool:
        """Make an object that is named by its own hash, from a local file, whose bytes are never all in memory; whether it was not there.

        Of several callers at once, more than one may be told that it made it.
        """
        ...

    def stat(self, path: str) -> Entry | None:
        """The object without its bytes, or None when there is none (a folder is none)."""
        ...

    def walk(self, prefix: str) -> Iterator[Entry]:
        """Every object below a folder, one folder after the other."""
        ...

    def renew(self, path: str) -> bool:
        """Set the time of the last change to now; False when there is no such object."""
        ...

    def remove(self, path: str) -> None:
        """Delete; nothing happens when it is gone already."""
        ...

    def drop_unfinished(self, before: float, *, dry_run: bool = False) -> list[Entry]:
        """Delete what writers began before a POSIX time and did not finish, which no reader ever sees; what that was."""
        ...


def translate(error: BaseException, what: str) -> DiscoveryError:
    """The platform's error for a foreign one, with what was tried and the next step; the caller raises it `from` the cause."""
    response = getattr(error, "response", None)  # a dictionary of botocore's, None when nothing came, or an object of another library
    code = str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
    number = getattr(error, "errno", None)
    name = type(error).__name__
    if number in FULL:
        return StorageFull(f"{what}: no space left. Nothing half-written is visible; free some space and run again.")
    if isinstance(error, PermissionError) or code in DENIED_CODES or number == errno.EROFS:
        return AccessDenied(
            f"{what}: access denied ({code or error}). Check the credentials and rights; `discovery doctor` shows them."
        )
    if name in ("NoCredentialsError", "PartialCredentialsError"):
        return AccessDenied(f"{what}: no credentials found. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile.")
    if isinstance(error, FileNotFoundError) or code in ("NoSuchBucket", "NoSuchKey", "404"):
        return SourceNotFound(f"{what}: does not exist ({code or error}). Check the spelling; `s3://bucket/prefix` for a bucket.")
    if name in ("EndpointConnectionError", "ConnectTimeoutError", "ConnectionClosedError", "ClientConnectorError"):
        return StorageError(f"{what}: the storage server does not answer ({error}). Check s3.endpoint_url and that it runs.")
    if isinstance(error, BROKEN_ARCHIVE):
        return CorruptArtifact(f"{what}: the archive is damaged ({error}). Put a whole copy of it there.")
    if isinstance(error, (ImportError, ValueError)):
        return ConfigError(f"{what}: {error}. Use a folder, a glob or an fsspec URI such as s3://bucket/prefix.")
    return StorageError(f"{what}: {name}: {error}.")


@contextmanager
def translated(what: str, passing: type[OSError] | tuple[()] = ()) -> Iterator[None]:
    """Foreign storage errors become ours, cause kept; those of type `passing` are an answer to the caller and pass."""
    try:
        yield
    except DiscoveryError:
        raise
    except passing:
        raise
    except (OSError, ImportError, ValueError, *BROKEN_ARCHIVE) as error:
        raise translate(error, what) from error
    except Exception as error:
        if type(error).__module__.split(".")[0] in ("botocore", "aiobotocore", "aiohttp", "s3fs", "fsspec"):
            raise translate(error, what) from error
        raise


def patiently(work: Callable[[], T]) -> T:
    """The result of `work`; a StorageError that may pass is tried again after growing pauses. Only for what may be done twice.

    botocore repeats requests that were refused, but neither those whose body breaks off nor those that meet another conditional write
    of the same name.
    """
    pauses = wait_random_exponential(multiplier=PAUSE_S, max=10)
    stop = stop_after_attempt(ATTEMPTS) | stop_after_delay(PATIENCE_S)
    return Retrying(stop=stop, wait=pauses, retry=retry_if_exception(_may_pass), reraise=True)(work)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, StorageError) and not isinstance(error, (SourceNotFound, AccessDenied, ConfigError, StorageFull, CorruptArtifact))


class LocalFiles:
    """A folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, path: str) -> bytes:
        """All bytes; FileNotFoundError when there is no such object."""
        with translated(f"Reading {self.folder / path}", FileNotFoundError):
            return (self.folder / path).read_bytes()

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """The bytes from `start`, which lies within the object, up to `end`."""
        with translated(f"Reading {self.folder / path}", FileNotFoundError), (self.folder / path).open("rb") as handle:
            handle.seek(start)
            return handle.read(end - start)

    def read_into(self, path: str, target: Path) -> None:
        """All bytes into a local file; FileNotFoundError when there is no such object."""
        what = f"Copying {self.folder / path} to {target}"
        with translated(what, FileNotFoundError), open(self.folder / path, "rb") as source, open(target, "wb") as copy:
            shutil.copyfileobj(source, copy, COPY_BYTES)

    def create(self, path: str, data: bytes) -> bool:
        """Make the object unless it exists; whether this call made it. Its bytes, its name and new folders are on the disk then."""
        return self._create(path, lambda handle: handle.write(data))

    def create_from(self, path: str, source: Path) -> bool:
        """The same from a local file, copied 1 MiB at a time."""

        def copy(handle: BinaryIO) -> None:
            with open(source, "rb") as opened:
                shutil.copyfileobj(opened, handle, COPY_BYTES)

        return self._create(path, copy)

    def _create(self, path: str, write: Callable[[BinaryIO], Any]) -> bool:
        target = self.folder / path
        if target.is_file():
            return False
        temporary = target.parent / f"{TEMPORARY}{uuid.uuid4().hex}"
        with translated(f"Writing {target}"):
            changed = make_folder(target.parent)
            try:
                with open(temporary, "xb") as handle:
                    write(handle)
                    handle.flush()
                    os.fsync(handle.fileno())
                take_name(temporary, target)
            except FileExistsError:
                if not target.is_file():
                    raise
                sync_folders([target.parent])  # who made it may not have come to that yet
                return False
            finally:
                temporary.unlink(missing_ok=True)
            sync_folders([target.parent, *changed])  # all at the end, when the disk has most of it: the file's sync wrote the journal
        return True

    def stat(self, path: str) -> Entry | None:
        """The object without its bytes, or None when there is none."""
        file = self.folder / path
        with translated(f"Looking at {file}"):
            try:
                found = file.stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            return Entry(path, found.st_size, found.st_mtime) if S_ISREG(found.st_mode) else None

    def walk(self, prefix: str) -> Iterator[Entry]:
        """Every object below a folder; not what is still being written."""
        return (entry for entry in self._walk(prefix) if not _is_temporary(entry))

    def _walk(self, prefix: str) -> Iterator[Entry]:
        for folder, _, names in os.walk(self.folder / prefix):
            for name in names:
                entry = self.stat(Path(folder, name).relative_to(self.folder).as_posix())
                if entry is not None:  # else another process removed it
                    yield entry

    def renew(self, path: str) -> bool:
        """Set the time of the last change to now; False when there is no such object."""
        with translated(f"Renewing {self.folder / path}"):
            try:
                os.utime(self.folder / path)
            except FileNotFoundError:
                return False
        return True

    def remove(self, path: str) -> None:
        """Delete; nothing happens when it is gone already."""
        with translated(f"Removing {self.folder / path}"):
            (self.folder / path).unlink(missing_ok=True)

    def drop_unfinished(self, before: float, *, dry_run: bool = False) -> list[Entry]:
        """Delete the temporary files that killed writers left before a POSIX time; what they were."""
        left = [entry for entry in self._walk("") if _is_temporary(entry) and entry.changed < before]
        for entry in () if dry_run else left:
            self.remove(entry.path)
        return left


def _is_temporary(entry: Entry) -> bool:
    return entry.path.rpartition("/")[2].startswith(TEMPORARY)


class S3Files:
    """A prefix of a bucket. Creation is one conditional PUT, which decides between writers.

    Files go in parts, with a conditional completion. That decides nothing: SeaweedFS 4.48 lets two at once win.
    """

    def __init__(self, filesystem: Any, prefix: str) -> None:
        self.filesystem = filesystem
        self.prefix = prefix.rstrip("/")
        self.bucket, _, self.folder = self.prefix.partition("/")

    def probe(self) -> None:
        """Raises AccessDenied, SourceNotFound or StorageError when nothing can be listed there."""
        self._call(f"Opening root s3://{self.prefix}", "list_objects_v2", {"Bucket": self.bucket, "MaxKeys": 1}, passing=())

    def _full(self, path: str) -> str:
        return f"{self.prefix}/{path}"

    def _key(self, path: str) -> str:
        return f"{self.folder}/{path}" if self.folder else path

    def read(self, path: str) -> bytes:
        """All bytes; FileNotFoundError when there is no such object."""
        full = self._full(path)  # max_concurrency: else s3fs asks for the size first, a second request for every small object
        return self._try(f"Reading {full}", lambda: bytes(self.filesystem.cat_file(full, max_concurrency=1)), FileNotFoundError)

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """The bytes from `start`, which lies within the object, up to `end`, in one request."""
        full = self._full(path)
        return self._try(f"Reading {full}", lambda: bytes(self.filesystem.cat_file(full, start=start, end=end, max_concurrency=1)), FileNotFoundError)

    def read_into(self, path: str, target: Path) -> None:
        """All bytes into a local file, in one stream; FileNotFoundError when there is no such object."""
        full = self._full(path)
        self._try(f"Copying {full} to {target}", lambda: self.filesystem.get_file(full, str(target), max_concurrency=1), FileNotFoundError)

    def _try(self, what: str, work: Callable[[], T], passing: type[OSError] | tuple[()] = ()) -> T:
        def once() -> T:
            with translated(what, passing):
                return work()

        return patiently(once)

    def _call(self, what: str, operation: str, ask: dict[str, Any], passing: type[OSError] | tuple[()] = FileNotFoundError) -> Any:
        return self._try(what, lambda: self.filesystem.call_s3(operation, **ask), passing)

    def create(self, path: str, data: bytes) -> bool:
        """Make the object unless it exists; whether this call made it."""
        return self._create(path, lambda full: self.filesystem.pipe_file(full, data, mode="create", chunksize=PUT_BYTES))

    def create_from(self, path: str, source: Path) -> bool:
        """The same of a local file, named by its hash; four parts of it are in memory at once."""
        with translated(f"Reading {source}"):
            parts = _parts(source.stat().st_size)
        return self._create(path, lambda full: self.filesystem.put_file(str(source), full, mode="create", **parts))

    def _create(self, path: str, upload: Callable[[str], Any]) -> bool:
        full = self._full(path)
        if self.stat(path) is not None:  # most often so when a run is repeated; it spares sending the bytes
            return False

        def once() -> bool:
            try:
                upload(full)
            except Exception as error:
                if _already_exists(error):
                    return False  # or this call made it and the answer was lost: the bytes are the same, or the caller compares
                raise
            return True

        return self._try(f"Writing {full}", once)

    def stat(self, path: str) -> Entry | None:
        """The object without its bytes, or None when there is none; one request."""
        ask = {"Bucket": self.bucket, "Key": self._key(path)}
        try:
            head = self._call(f"Looking at {self._full(path)}", "head_object", ask)
        except FileNotFoundError:
            return None
        return Entry(path, int(head["ContentLength"]), head["LastModified"].timestamp())

    def walk(self, prefix: str) -> Iterator[Entry]:
        """Every object below a folder, in order of path, one page of the listing in memory."""
        top = self._key(prefix).rstrip("/") + "/"
        ask: dict[str, Any] = {"Bucket": self.bucket, "Prefix": "" if top == "/" else top, "MaxKeys": PAGE}
        while True:
            page = self._call(f"Listing {self._full(prefix)}", "list_objects_v2", ask, passing=())
            for found in page.get("Contents", ()):
                yield Entry(found["Key"].removeprefix(self._key("")), int(found["Size"]), found["LastModified"].timestamp())
            if not page.get("IsTruncated"):
                return
            ask["ContinuationToken"] = page["NextContinuationToken"]

    def renew(self, path: str) -> bool:
        """Set the time of the last change to now, by a copy onto itself; False when there is no such object."""
        full = self._full(path)
        try:
            self._try(f"Renewing {full}", lambda: self.filesystem.cp_file(full, full, MetadataDirective="REPLACE"), FileNotFoundError)
        except FileNotFoundError:
            return False
        return True

    def remove(self, path: str) -> None:
        """Delete; nothing happens when it is gone already."""
        with suppress(FileNotFoundError):
            self._try(f"Removing {self._full(path)}", lambda: self.filesystem.rm_file(self._full(path)), FileNotFoundError)

    def drop_unfinished(self, before: float, *, dry_run: bool = False) -> list[Entry]:
        """Abort the multipart uploads that were begun before a POSIX time; what they were, their sizes unknown and so 0."""
        ask: dict[str, str] = {"Bucket": self.bucket, "Prefix": self._key("")}
        left: list[Entry] = []
        while True:
            page = self._call(f"Listing uploads to {self.prefix}", "list_multipart_uploads", ask, passing=())
            for found in page.get("Uploads", ()):
                entry = Entry(found["Key"].removeprefix(self._key("")), 0, found["Initiated"].timestamp())
                if entry.changed >= before or not found["Key"].startswith(self._key("")):
                    continue
                left.append(entry)
                if not dry_run:
                    self._abort(found["Key"], found["UploadId"])
            if not page.get("IsTruncated"):
                return left
            ask |= {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def _abort(self, key: str, upload_id: str) -> None:
        upload = {"Bucket": self.bucket, "Key": key, "UploadId": upload_id}
        with suppress(FileNotFoundError):  # aborted before, and the answer was lost
            self._call(f"Aborting an upload to {key}", "abort_multipart_upload", upload)


def _parts(size_bytes: int) -> dict[str, int]:
    """How s3fs shall cut an object of this size; it holds `max_concurrency` parts in memory."""
    return {"chunksize": max(PART_BYTES, -(-size_bytes // PARTS)), "max_concurrency": 4}


def _already_exists(error: Exception) -> bool:
    """Whether a conditional PUT was refused because the object is there; servers and s3fs versions say it in different ways."""
    return isinstance(error, FileExistsError) or getattr(error, "errno", None) == errno.EEXIST or is_precondition_failure(error)


def is_precondition_failure(error: Exception) -> bool:
    """Whether a bucket refused a request because its condition does not hold (412)."""
    return "PreconditionFailed" in repr(error) or "At least one of the pre" in str(error)


def open_filesystem(uri: str, s3: S3Config) -> tuple[Any, str]:
    """The fsspec file system of a URI and the path inside it; listings are never cached, since other processes write.

    A key of a bucket is taken as it is: it may hold `::`, which in all other URIs chains file systems. Raises ConfigError for an unknown protocol.
    """
    import fsspec

    with translated(f"Opening {uri}"):
        if not uri.startswith("s3://"):
            filesystem, path = fsspec.core.url_to_fs(uri)
            return filesystem, path
        client = {"endpoint_url": s3.endpoint_url, "region_name": s3.region}
        patience = {"connect_timeout": s3.timeout_s, "read_timeout": s3.timeout_s, "retries": {"mode": "standard", "total_max_attempts": 4}}
        given = {"client_kwargs": {k: v for k, v in client.items() if v}, "config_kwargs": patience, "use_listings_cache": False}
        filesystem = fsspec.filesystem("s3", **given, **_credentials(s3))
    filesystem.retries = 1  # botocore tries again already; s3fs on top of it would wait for a dead server five times as long
    if filesystem.session is None:  # not connected yet
        filesystem.session = _session(filesystem.kwargs)
    return filesystem, uri.removeprefix("s3://").rstrip("/")


def _session(options: Mapping[str, Any]) -> Any:
    """The session s3fs would make, with a faster reader of times: dateutil's takes over half of what a listing costs here."""
    from aiobotocore.session import AioSession
    from botocore.parsers import DEFAULT_TIMESTAMP_PARSER

    def read_time(text: Any) -> datetime:
        if isinstance(text, str) and text.endswith("Z"):
            with suppress(ValueError):
                return datetime.fromisoformat(text)
        found: datetime = DEFAULT_TIMESTAMP_PARSER(text)
        return found

    session = AioSession(**options)
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=read_time)
    return session


def _credentials(s3: S3Config) -> dict[str, str]:
    """What s3fs shall sign with; nothing leaves that to the usual chain. Raises ConfigError for half of a pair."""
    given = {"key": s3.access_key_id, "secret": s3.secret_access_key.get_secret_value(), "token": s3.session_token.get_secret_value()}
    if bool(given["key"]) != bool(given["secret"]):
        raise ConfigError("s3.access_key_id and s3.secret_access_key are given together or not at all.")
    if given["token"] and not given["key"]:
        raise ConfigError("s3.session_token needs the s3.access_key_id and s3.secret_access_key it was issued with.")
    return {name: value for name, value in given.items() if value}


def is_local(uri: str) -> bool:
    """Whether the URI is a path or a file:// URI."""
    return "://" not in uri or uri.startswith("file://")


def local_path(uri: str) -> Path:
    """The path of a local URI."""
    return Path(os.fsdecode(unquote_to_bytes(uri.removeprefix("file://"))) if uri.startswith("file://") else uri).expanduser()


def open_files(root: str, s3: S3Config) -> Files:
    """The place a root URI names; a local folder is made when missing. Raises AccessDenied, or ConfigError for other stores."""
    if is_local(root):
        folder = local_path(root).absolute()
        with translated(f"Opening root {folder}"):
            sync_folders(make_folder(folder))
        return LocalFiles(folder)
    filesystem, path = open_filesystem(root, s3)
    if not root.startswith("s3://"):
        raise ConfigError(f"Root {root} is neither a folder nor s3://bucket/prefix. Other stores cannot create a file exclusively.")
    files = S3Files(filesystem, path)
    files.probe()
    return files


def make_bucket(root: str, s3: S3Config) -> str:
    """Make the bucket (or the folder) a root lies in, unless it is there; says which. Raises AccessDenied or StorageError."""
    if is_local(root):
        open_files(root, s3)
        return f"{local_path(root)} is there"
    filesystem, path = open_filesystem(root, s3)
    bucket = path.split("/")[0]
    with translated(f"Making bucket {bucket}"):
        if filesystem.exists(bucket):
            return f"bucket {bucket} is there"
        filesystem.mkdir(bucket)
    return f"bucket {bucket} was made"
