"""Processes that the contract tests race and kill: `python writer.py ROOT ENDPOINT race|stall|stream|job|jobs`."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any

from discovery.adapters import files as module
from discovery.adapters.files import LocalFiles, open_files
from discovery.adapters.storage import Store
from discovery.addressing import sha256_hex
from discovery.config import Config, S3Config
from discovery.types import MeasureShard
from discovery.workspace import open_workspace

RACES = 20
LARGE = 3 * 5 * 2**20 + 11  # three parts and a bit, when a part is 5 MiB
WITHOUT_LINKS = "WITHOUT_LINKS"  # the variable that makes this machine's folders like those of exFAT


def no_links(source: object, target: object) -> None:
    """os.link of a file system that has no hard links."""
    raise OSError(errno.EPERM, os.strerror(errno.EPERM), source, None, target)


def race(files: Any) -> None:
    """Create the same names as another process, each with content of its own; say which of them this one made."""
    print("ready", flush=True)
    sys.stdin.readline()
    body = str(os.getpid()).encode() * 2000
    print(",".join(str(n) for n in range(RACES) if files.create(f"race/{n}", body)), flush=True)


def stall(files: Any) -> None:
    """Begin a large object, and stop before its end: after the bytes, before the name."""
    if isinstance(files, LocalFiles):
        module.os.fsync = _stop  # type: ignore[assignment]
    else:
        answer = files.filesystem._call_s3

        async def call(method: str, *arguments: Any, **values: Any) -> Any:
            return _stop() if method == "complete_multipart_upload" else await answer(method, *arguments, **values)

        files.filesystem._call_s3 = call
    files.create_from("large", temporary(bytes(LARGE)))


def stream(files: Any) -> None:
    """One object after another, named by its hash, until killed."""
    print("ready", flush=True)
    for number in count():
        body = number.to_bytes(4, "big") * (LARGE // 4)
        files.create_from(f"stream/{sha256_hex(body)}", temporary(body))


def temporary(body: bytes) -> Path:
    """A file of these bytes; the same one each time."""
    path = Path(tempfile.gettempdir()) / f"writer-{os.getpid()}"
    path.write_bytes(body)
    return path


def shard(store: Store, key: str, data: bytes = b"rows") -> MeasureShard:
    """A record to come; its file is there."""
    file = store.put_file(MeasureShard.stage, key, "table", data, ".parquet", 1)
    return MeasureShard(id=key, inputs=(), created_at="2026-01-01T00:00:00+00:00", files=(file,), producer="p", assets=1)


def job(root: str, s3: S3Config) -> None:
    """A run that has written the files of a record, and commits it when told."""
    with open_workspace(Config(root=root, s3=s3), map_shards=map) as ws:
        record = shard(ws.store, "b" * 64)
        ws.store.put_asset(sha256_hex(b"picture"), b"picture")
        print("ready", flush=True)
        if sys.stdin.readline():
            ws.commit(record)
            print("committed", flush=True)


def jobs(root: str, s3: S3Config) -> None:
    """One record after another until told to stop, each first half-written, as a killed run leaves it, and taken over then."""
    with open_workspace(Config(root=root, s3=s3), map_shards=map) as ws:
        stop = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
        print("ready", flush=True)
        for number in count():
            if stop.is_set():
                return print(number, flush=True)
            key = sha256_hex(str(number).encode())
            shard(ws.store, key)
            ws.commit(shard(ws.store, key))


def _stop(*_: object) -> None:
    print("ready", flush=True)
    time.sleep(600)


if __name__ == "__main__":
    module.PART_BYTES = 5 * 2**20
    if os.environ.get(WITHOUT_LINKS):
        os.link = no_links  # type: ignore[assignment]
    root, endpoint, what = sys.argv[1:]
    s3 = S3Config(endpoint_url=endpoint)
    if what in ("job", "jobs"):
        {"job": job, "jobs": jobs}[what](root, s3)
    else:
        {"race": race, "stall": stall, "stream": stream}[what](open_files(root, s3))
