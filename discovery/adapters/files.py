"""Bytes under names, on a local folder or any fsspec URI: whole reads, exclusive atomic creation, listing.

`create` is the one write: it makes the whole object appear at once or not at all, and says whether this caller made it.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

from discovery.config import S3Config
from discovery.errors import AccessDenied, ConfigError, DiscoveryError, SourceNotFound, StorageError, StorageFull

TEMPORARY = ".tmp-"  # prefix of files that no reader looks at; a killed writer may leave one
DENIED_CODES = frozenset(
    {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "403", "AllAccessDisabled"}
)


class Files(Protocol):
    """What the store needs of a place; paths are relative, with `/`."""

    def read(self, path: str) -> bytes:
        """All bytes; FileNotFoundError when there is no such object."""
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Make the whole object unless it exists; whether this call made it."""
        ...

    def size(self, path: str) -> int | None:
        """Bytes, or None when there is no such object."""
        ...

    def walk(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        """(path, bytes, POSIX time of the last change) of everything below."""
        ...

    def remove(self, path: str) -> None:
        """Delete; nothing happens when it is gone already."""
        ...


def translate(error: BaseException, what: str) -> DiscoveryError:
    """The platform's error for a foreign one, with what was tried and the next step; the caller raises it `from` the cause."""
    response = getattr(error, "response", None)  # a dictionary of botocore's, None when nothing came, or an object of another library
    code = str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
    number = getattr(error, "errno", None)
    name = type(error).__name__
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
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
    except (OSError, ImportError, ValueError) as error:
        raise translate(error, what) from error
    except Exception as error:
        if type(error).__module__.split(".")[0] in ("botocore", "aiobotocore", "aiohttp", "s3fs", "fsspec"):
            raise translate(error, what) from error
        raise


class LocalFiles:
    """A folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, path: str) -> bytes:
        """All bytes; FileNotFoundError when there is no such object."""
        with translated(f"Reading {self.folder / path}", FileNotFoundError):
            return (self.folder / path).read_bytes()

    def create(self, path: str, data: bytes) -> bool:
        """Make the object, fully written and synced, unless it exists; whether this call made it."""
        target = self.folder / path
        if target.exists():
            return False
        temporary = target.parent / f"{TEMPORARY}{uuid.uuid4().hex}"
        with translated(f"Writing {target}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with open(temporary, "xb") as handle:
                    handle.write(data)
                    handle.flush()
                    os.fsync(handle.fileno())
                os.link(temporary, target)  # fails when it exists, unlike rename: the first writer wins
            except FileExistsError:
                return False
            finally:
                temporary.unlink(missing_ok=True)
        return True

    def size(self, path: str) -> int | None:
        """Bytes of the object, None when there is none."""
        try:
            return (self.folder / path).stat().st_size
        except FileNotFoundError:
            return None

    def walk(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        """(path, size in bytes, age reference as a POSIX time) of everything below, temporary files included."""
        top = self.folder / prefix
        for folder, _, names in os.walk(top):
            for name in names:
                file = Path(folder, name)
                try:
                    stat = file.stat()
                except FileNotFoundError:
                    continue  # another process swept or renamed it
                yield file.relative_to(self.folder).as_posix(), stat.st_size, stat.st_mtime

    def remove(self, path: str) -> None:
        """Delete; nothing happens when it is gone already."""
        (self.folder / path).unlink(missing_ok=True)


class RemoteFiles:
    """A prefix of an fsspec file system; exclusive creation by a conditional PUT where the server has one (S3)."""

    def __init__(self, filesystem: Any, prefix: str) -> None:
        self.filesystem = filesystem
        self.prefix = prefix.rstrip("/")

    def _full(self, path: str) -> str:
        return f"{self.prefix}/{path}"

    def read(self, path: str) -> bytes:
        """All bytes; FileNotFoundError when there is no such object."""
        with translated(f"Reading {self._full(path)}", FileNotFoundError):
            return bytes(self.filesystem.cat_file(self._full(path)))

    def create(self, path: str, data: bytes) -> bool:
        """Make the object unless it exists; whether this call made it."""
        with translated(f"Writing {self._full(path)}"):
            if self.size(path) is not None:
                return False
            try:
                self.filesystem.pipe_file(self._full(path), data, mode="create")
            except FileExistsError:
                return False
            except Exception as error:
                if _already_exists(error):
                    return False
                raise
        return True

    def size(self, path: str) -> int | None:
        """Bytes of the object, None when there is none."""
        try:
            return int(self.filesystem.info(self._full(path))["size"])
        except FileNotFoundError:
            return None

    def walk(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        """(path, size in bytes, POSIX time of the last change) of everything below."""
        top = self._full(prefix)
        try:
            found = self.filesystem.find(top, detail=True)
        except FileNotFoundError:
            return
        for full, info in sorted(found.items()):
            changed = info.get("LastModified")
            yield full.removeprefix(self.prefix + "/"), int(info["size"]), changed.timestamp() if changed else 0.0

    def remove(self, path: str) -> None:
        """Delete; nothing happens when it is gone already."""
        try:
            self.filesystem.rm_file(self._full(path))
        except FileNotFoundError:
            return


def _already_exists(error: Exception) -> bool:
    """Whether a conditional PUT was refused because the object is there; servers and fsspec versions say it in different ways."""
    return (
        getattr(error, "errno", None) == errno.EEXIST
        or "PreconditionFailed" in repr(error)
        or "At least one of the pre" in str(error)
    )


def open_filesystem(uri: str, s3: S3Config) -> tuple[Any, str]:
    """The fsspec file system of a URI and the path inside it; listings are never cached, since other processes write.

    Raises ConfigError for an unknown protocol.
    """
    import fsspec

    options: dict[str, Any] = {}
    if uri.startswith("s3://"):
        client = {"endpoint_url": s3.endpoint_url, "region_name": s3.region}
        patience = {"connect_timeout": s3.timeout_s, "read_timeout": s3.timeout_s, "retries": {"mode": "standard", "total_max_attempts": 4}}
        options = {"client_kwargs": {k: v for k, v in client.items() if v}, "config_kwargs": patience, "use_listings_cache": False}
    with translated(f"Opening {uri}"):
        filesystem, path = fsspec.core.url_to_fs(uri, **options)
    if uri.startswith("s3://"):
        filesystem.retries = 1  # botocore tries again already; s3fs on top of it would wait for a dead server five times as long
    return filesystem, path


def is_local(uri: str) -> bool:
    """Whether the URI is a path or a file:// URI."""
    return "://" not in uri or uri.startswith("file://")


def local_path(uri: str) -> Path:
    """The path of a local URI."""
    return Path(os.fsdecode(unquote_to_bytes(uri.removeprefix("file://"))) if uri.startswith("file://") else uri).expanduser()


def open_files(root: str, s3: S3Config) -> Files:
    """The place a root URI names; a local folder is made when missing. Raises AccessDenied or ConfigError."""
    if is_local(root):
        folder = local_path(root).absolute()
        with translated(f"Opening root {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
        return LocalFiles(folder)
    filesystem, path = open_filesystem(root, s3)
    with translated(f"Opening root {root}"):
        filesystem.ls(path.split("/")[0])
    return RemoteFiles(filesystem, path)


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
