"""A run that is cancelled leaves a clean state: no process, no lease, nothing half-written; the next run goes on where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.kill_chain import SHARD, differences, finish, start
from discovery.config import Config
from discovery.workspace import open_workspace

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]

ON_WORKERS = {"DISCOVERY_DASK__SCHEDULER": "", "DISCOVERY_DASK__WORKERS": "2"}


def interrupted(process: subprocess.Popen[str], number: int, whole_group: bool) -> list[psutil.Process]:
    """Signal the run when its first vectors are there; the processes it had then. A terminal's Ctrl-C goes to the whole group."""
    assert process.stderr is not None
    for line in process.stderr:
        if f"embed_shard: {SHARD} of" in line:
            had = psutil.Process(process.pid).children(recursive=True)
            if whole_group:
                os.killpg(process.pid, number)
            else:
                os.kill(process.pid, number)
            return had
    raise AssertionError("the run ended before it embedded anything")


@pytest.mark.parametrize(("number", "whole_group", "code"), [(signal.SIGINT, True, 130), (signal.SIGTERM, False, 143)])
def test_a_cancelled_run_leaves_no_process_and_is_finished_by_the_next(
    number: int, whole_group: bool, code: int, chain_pictures: Path, undisturbed: dict[str, object], tmp_path: Path
) -> None:
    process = start(chain_pictures, tmp_path, ON_WORKERS)
    had = interrupted(process, number, whole_group)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code and "Traceback" not in err, err
    assert "What was finished is kept" in err
    assert len(had) >= 2  # the workers were there
    gone_by = time.monotonic() + 20
    while any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in had):
        assert time.monotonic() < gone_by, [each for each in had if each.is_running()]
        time.sleep(0.1)
    with open_workspace(Config(root=str(tmp_path))) as ws:
        assert [path for path, _, _ in ws.store.files.walk("leases")] == []
        kept = sum(record.assets for record in ws.store.records(["embed_shard"]))
    assert kept >= SHARD
    answer = finish(chain_pictures, tmp_path, ON_WORKERS)
    assert differences(Config(root=str(tmp_path)), answer, undisturbed) == []
