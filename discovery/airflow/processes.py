"""Child processes that can be found again: each service in a session of its own, its environment marked, swept without orphans.

Both are needed. Airflow's API server, executors and tasks and Dask's processes rename themselves (setproctitle), which erases the
environment that /proc shows, so that the mark is gone and only the session is left; a process that makes its own session has
only the mark.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import psutil

from discovery.errors import DiscoveryError

MARKER = "DISCOVERY_STACK"  # environment variable that every process of one stack inherits, tasks included
PORT_RANGE = 200


class ServiceDied(DiscoveryError):
    """A component ended although it should run; the message has the end of its log."""


class Service:
    """One component: its command, its log, and its process."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path, folder: Path) -> None:
        self.name = name
        self.log = log
        self._made_of = (name, command, environment, log, folder)
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as output:
            self.process = subprocess.Popen(
                list(command), env=dict(environment), cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        self.started = psutil.Process(self.process.pid).create_time()

    def again(self) -> Service:
        """The same service, started anew."""
        return Service(*self._made_of)

    def require_alive(self) -> None:
        """Raises ServiceDied when it ended."""
        code = self.process.poll()
        if code is not None:
            raise ServiceDied(f"{self.name} ended with code {code}. The end of {self.log}:\n{tail(self.log)}")

    def terminate(self) -> None:
        """Ask it to end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> bool:
        """Whether it ended in time."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log."""
    text = log.read_text(errors="replace") if log.is_file() else ""
    return "\n".join(text.splitlines()[-lines:])


def find_processes(mark: str, sessions: Collection[int] = ()) -> list[psutil.Process]:
    """Every living process that carries the mark or is in one of the sessions, except this one and its own session."""
    theirs = set(sessions) - {os.getsid(0)}
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if os.getsid(process.pid) in theirs or process.environ().get(MARKER) == mark:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError, PermissionError):
            continue
    return found


def sweep_marked(mark: str, grace_s: float = 3.0, sessions: Collection[int] = ()) -> int:
    """End every process that carries the mark or is in one of the sessions; how many there were."""
    found = find_processes(mark, sessions)
    for process in found:
        _signal(process, signal.SIGTERM)
    _, alive = psutil.wait_procs(found, timeout=grace_s)
    for process in alive:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=grace_s)
    return len(found)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def free_port(preferred: int) -> int:
    """The first port from `preferred` on, at most 200 further, that nobody on 127.0.0.1 listens on."""
    port, claim = claim_port(preferred)
    claim.close()
    return port


def claim_port(preferred: int) -> tuple[int, socket.socket]:
    """A free port that no other launcher gets while the returned claim is open; several seconds pass before a service binds it.

    The claim is an abstract Unix socket named after the port: exclusive at once, and gone with its process however that ends.
    """
    for port in range(preferred, min(preferred + PORT_RANGE, 65536)):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0discovery-port-{port}")
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
            return port, claim
        except OSError:
            claim.close()
    raise DiscoveryError(
        f"No free port from {preferred} to {preferred + PORT_RANGE - 1} on 127.0.0.1. End something that listens there."
    )


def wait_until(ready: object, services: Sequence[Service], timeout_s: float, what: str) -> None:
    """Poll `ready()` until it is true. Raises ServiceDied when a service ends first, DiscoveryError after the time."""
    assert callable(ready)
    deadline = time.monotonic() + timeout_s
    while True:
        is_ready = ready()
        for service in services:  # also when ready: somebody else's server may have answered on the port of one that died
            service.require_alive()
        if is_ready:
            return
        if time.monotonic() > deadline:
            logs = "\n".join(f"--- {service.log}\n{tail(service.log, 5)}" for service in services)
            raise DiscoveryError(f"{what} was not ready after {timeout_s:g} s.\n{logs}")
        time.sleep(0.3)
