"""Child processes that can be found again: started in a session of their own, marked in their environment, swept without orphans."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from discovery.errors import DiscoveryError

MARKER = "DISCOVERY_STACK"  # environment variable that every process of one stack inherits, tasks included


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


def sweep_marked(mark: str, grace_s: float = 3.0) -> int:
    """End every process whose environment carries the mark; how many there were. This process is spared."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARKER) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
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
    for port in range(preferred, preferred + 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise DiscoveryError(f"No free port from {preferred} to {preferred + 199} on 127.0.0.1. End something that listens there.")


def wait_until(ready: object, services: Sequence[Service], timeout_s: float, what: str) -> None:
    """Poll `ready()` until it is true. Raises ServiceDied when a service ends first, DiscoveryError after the time."""
    assert callable(ready)
    deadline = time.monotonic() + timeout_s
    while not ready():
        for service in services:
            service.require_alive()
        if time.monotonic() > deadline:
            logs = "\n".join(f"--- {service.log}\n{tail(service.log, 5)}" for service in services)
            raise DiscoveryError(f"{what} was not ready after {timeout_s:g} s.\n{logs}")
        time.sleep(0.3)
