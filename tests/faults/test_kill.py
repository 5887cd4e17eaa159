"""A run killed at any moment is finished by running it again: same digest, clean store, nothing lost, nothing embedded twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import kill_chain
from benchmarks.kill_chain import LISTED, SHARD, differences, finish, start
from discovery.config import Config
from discovery.stages.verify import verify
from discovery.workspace import open_workspace

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]


def killed_after(mark: str, pictures: Path, root: Path) -> bool:
    """Run until a progress line holds the mark, then SIGKILL the whole process group; whether the mark was seen."""
    process = start(pictures, root)
    seen = False
    assert process.stderr is not None
    for line in process.stderr:
        if mark in line:
            os.killpg(process.pid, signal.SIGKILL)
            seen = True
            break
    process.communicate(timeout=300)
    assert process.returncode == (-signal.SIGKILL if seen else 0)
    return seen


@pytest.mark.parametrize(
    "marks",
    [
        [f"ingest: {LISTED} listed", f"measure: {SHARD} of", "dedupe:", "curate:"],
        [f"ingest: {LISTED} of {LISTED}", f"embed_shard: {2 * SHARD} of", "index: measuring", "publish: discovered@1"],
    ],
)
def test_a_killed_run_is_finished_by_the_next(marks: list[str], chain_pictures: Path, undisturbed: dict[str, object], tmp_path: Path) -> None:
    """Each run goes on from the one killed before it, until it is killed itself a stage or two further on; the last is not."""
    config = Config(root=str(tmp_path))
    for mark in marks:
        assert killed_after(mark, chain_pictures, tmp_path), f"no progress line says {mark!r}"
        with open_workspace(config) as ws:
            found = verify(ws)
        assert not found.corrupt and all(what.startswith("catalog row of") for what in found.missing)  # entered by the next
    assert differences(config, finish(chain_pictures, tmp_path), undisturbed) == []


def test_kills_at_random_moments_change_nothing() -> None:
    command = [sys.executable, "-W", "ignore", kill_chain.__file__, "--kills", "6", "--seed", "3", "--most", "6"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])})
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rounds with a difference or a loss: 0" in done.stdout
