"""SeaweedFS, the S3 server of deploy/compose.yaml, as a process of its own: a store that writes to disk and answers several at once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from tests.contracts.s3_server import CREDENTIALS

WEED = Path(sys.executable).with_name("weed")
PORTS = ("s3", "s3.port.grpc", "master", "master.port.grpc", "volume", "volume.port.grpc", "filer", "filer.port.grpc")


def on_loopback(arguments: list[str], s3_port: int) -> list[str]:
    """The command of a server with these arguments, every port of it free and on 127.0.0.1."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in PORTS[1:]]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        numbers = [s3_port, *(probe.getsockname()[1] for probe in probes)]
    ports = [f"-{name if '.' in name else name + '.port'}={number}" for name, number in zip(PORTS, numbers, strict=True)]
    quiet = ["-volume.max=0", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=512"]
    return [str(WEED), *arguments, *quiet, *ports]


def answers(url: str) -> bool:
    """Whether the S3 gateway answers, if only to refuse."""
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False
    return True


class SeaweedFS:
    """A server whose data is in `folder`, at one address from its first start on; it is dead outside `with`, and after `kill`."""

    def __init__(self, folder: Path, environ: Mapping[str, str] = CREDENTIALS) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.folder = folder
        self._command = on_loopback(["server", "-s3", f"-dir={folder}"], port)
        self._environ = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | dict(environ)

    def start(self) -> None:
        """Run until it answers."""
        with (self.folder / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environ, cwd=self.folder)
        deadline = time.monotonic() + 60
        while not answers(self.url):
            assert self._process.poll() is None and time.monotonic() < deadline, (self.folder / "weed.log").read_text()[-2000:]
            time.sleep(0.2)

    def kill(self) -> None:
        """SIGKILL, by its process id; what it had promised must be on the disk."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> SeaweedFS:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
