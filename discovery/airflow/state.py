"""The state file of a stack: its sessions and addresses, so that the next launcher finds what a killed one left behind."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from discovery.airflow.environment import write_private

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
CLOCK_SLACK_S = 2.0  # psutil derives start times from the boot time, which moves with the clock


@dataclass(frozen=True, slots=True)
class Session:
    """A service's session: its leader's pid, which is also the session's id, and when the leader started (seconds since 1970)."""

    name: str
    pid: int
    started: float


@dataclass(frozen=True, slots=True)
class StackState:
    """What stack.json holds."""

    launcher_pid: int
    boot_id: str
    addresses: dict[str, str]
    services: tuple[Session, ...]


def write_state(file: Path, launcher_pid: int, addresses: Mapping[str, str], services: Iterable[Session]) -> None:
    """Keep the state, whole or not at all."""
    state = StackState(launcher_pid, _boot_id(), dict(addresses), tuple(services))
    write_private(file, json.dumps(asdict(state), indent=1))


def read_state(file: Path) -> StackState | None:
    """What a launcher kept last, or None when there is no readable file."""
    try:
        data: dict[str, Any] = json.loads(file.read_text())
        services = tuple(Session(**service) for service in data.pop("services"))
        return StackState(**data, services=services)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def sessions_left(state: StackState | None) -> set[int]:
    """Ids of the sessions that may still have processes; none after a reboot."""
    if state is None or state.boot_id != _boot_id():
        return set()
    return living_sessions(state.services)


def living_sessions(services: Iterable[Session]) -> set[int]:
    """Ids of those sessions whose number did not go to another process."""
    return {service.pid for service in services if not _is_recycled(service)}


def _is_recycled(service: Session) -> bool:
    # while a session has a member its id is given to no new process, so a leader with another start time is a stranger
    try:
        return bool(abs(psutil.Process(service.pid).create_time() - service.started) > CLOCK_SLACK_S)
    except psutil.NoSuchProcess:
        return False


def _boot_id() -> str:
    return BOOT_ID.read_text().strip() if BOOT_ID.is_file() else ""
