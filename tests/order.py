"""The order in which workers take the files of the suite: the slowest first, so that none is left alone with one at the end."""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling

# by measured time, and alternating what computes with what waits for servers; files that are not named follow as they were collected
SLOWEST = (
    "tests/faults/test_s3.py",
    "tests/faults/test_kill.py",
    "tests/dags/test_stack_live.py",
    "tests/pages",  # one folder, one worker: its store is made once
    "tests/faults/test_disk.py",
    "tests/deploy/test_compose_live.py",
    "tests/faults/test_cancel.py",
    "tests/faults/test_at_once.py",
    "tests/dags/test_task_bodies.py",
    "tests/stages",
    "tests/ingest",
    "tests/adapters",
)


def rank(path: str) -> int:
    """The place of a file in the order."""
    return next((place for place, start in enumerate(SLOWEST) if path.startswith(start)), len(SLOWEST))


class SlowestFirst(LoadFileScheduling):
    """One file a worker at a time, but for the pages, which share a store."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.split("::", 1)[0]
        return "tests/pages" if path.startswith("tests/pages/") else path
