"""A run killed at any moment is finished by running it again: same digest, clean store, nothing embedded twice."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from discovery.config import Config
from discovery.stages.verify import verify
from discovery.workspace import open_workspace

pytestmark = pytest.mark.live
PICTURES, SHARD = 48, 8


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(8)
    for number in range(PICTURES):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 7, 3), np.uint8))
        coarse.resize((300, 200), Image.Resampling.BICUBIC).save(folder / f"{number:02}.png")
    return folder


def start(pictures: Path, root: Path) -> subprocess.Popen:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DISCOVERY_")}
    environ |= {"DISCOVERY_DASK__SCHEDULER": "inline", "DISCOVERY_DASK__SHARD_ASSETS": str(SHARD), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "discovery.cli", "run", str(pictures), "--root", str(root), "--json"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ, start_new_session=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip


def finish(pictures: Path, root: Path) -> dict:
    process = start(pictures, root)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out)


def killed_after(mark: str, pictures: Path, root: Path) -> bool:
    """Run until a progress line holds the mark, then SIGKILL the whole process group; whether the mark was seen."""
    process = start(pictures, root)
    seen = False
    for line in process.stderr:
        if mark in line:
            os.killpg(process.pid, signal.SIGKILL)
            seen = True
            break
    process.communicate(timeout=300)
    assert process.returncode == (-signal.SIGKILL if seen else 0)
    return seen


@pytest.fixture(scope="module")
def undisturbed(pictures, tmp_path_factory):
    return finish(pictures, tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.parametrize(
    "mark", ["ingest: 48 listed", "ingest: 48 of 48", f"measure: {SHARD} of", f"embed_shard: {2 * SHARD} of", "dedupe:", "index: building"]
)
def test_a_killed_run_is_finished_by_the_next(mark, pictures, undisturbed, tmp_path):
    assert killed_after(mark, pictures, tmp_path), f"no progress line says {mark!r}"
    result = finish(pictures, tmp_path)
    assert result["digest"] == undisturbed["digest"] and result["assets"] == PICTURES
    with open_workspace(Config(root=str(tmp_path))) as ws:
        found = verify(ws)
        assert found.corrupt == [] and found.missing == []
        rows = Counter(
            asset_id
            for shard in ws.store.records(["embed_shard"])
            for asset_id in ws.store.read_table(shard, columns=["asset_id"])["asset_id"].to_pylist()
        )
        assert len(rows) == PICTURES and set(rows.values()) == {1}
        assert len(ws.catalog.versions()) == 1
