"""A disk that fills up at any point of the chain, or that may not be written: a clear error, and nothing lost once it is mended."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.kill_chain import Failed, differences, finish, start
from discovery.config import Config
from tests.faults.private_disk import NoPrivateDisk, PrivateDisk

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]
ENOUGH = 1 << 20  # KiB


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[PrivateDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        with PrivateDisk(folder, ENOUGH) as mounted:
            yield mounted
    except NoPrivateDisk as error:
        pytest.skip(f"no right to mount: {error}")


def says(root: Path, prefix: list[str], *command: str) -> subprocess.CompletedProcess[str]:
    """Another command on the root."""
    whole = [*prefix, sys.executable, "-W", "ignore", "-m", "discovery", *command, "--root", str(root)]
    return subprocess.run(whole, capture_output=True, text=True, timeout=300, check=False)


def wrong(disk: PrivateDisk, answer: dict[str, object], expected: dict[str, object]) -> list[str]:
    """Differences, looked for in a copy: SQLite does not open a file through another process's folder."""
    with tempfile.TemporaryDirectory() as copy:
        subprocess.run(["cp", "-a", f"{disk.seen}/root/.", copy], check=True)
        return differences(Config(root=copy), answer, expected)


def test_a_full_disk_at_any_point_of_the_chain_costs_nothing(
    chain_pictures: Path, undisturbed: dict[str, object], needed_kib: int, disk: PrivateDisk
) -> None:
    """Each run goes on from where the disk was full before, until it is full again; the last has room."""
    root = disk.folder / "root"
    places = []
    for share in (0.02, 0.3, 0.75, 0.96):
        disk.remount(f"size={int(needed_kib * share)}k")
        with pytest.raises(Failed) as refused:
            finish(chain_pictures, root, prefix=disk.prefix)
        places.append(last := str(refused.value).splitlines()[-1])
        assert last.startswith("discovery: ") and "no space left" in last and "run" in last, refused.value
        assert not [path for path in disk.seen.rglob("*") if path.name.startswith(".tmp-")]
        disk.remount(f"size={ENOUGH}k")
        found = json.loads(says(root, disk.prefix, "verify", "--json").stdout)
        assert not found["corrupt"] and all(what.startswith("catalog row of embed_shard") for what in found["missing"])  # of another worker: entered next
    assert wrong(disk, finish(chain_pictures, root, prefix=disk.prefix), undisturbed) == []
    assert len({place.partition(str(root))[2].split("/")[1] for place in places}) >= 3, places  # the catalog, assets, artifacts, MLflow


@pytest.mark.parametrize("size", ["4k", "16k", "64k", "280k"])
def test_a_disk_without_room_for_the_listing_is_told_at_whatever_point(chain_pictures: Path, disk: PrivateDisk, size: str) -> None:
    """DuckDB says so when it makes its file, writes it, or commits, each by another error."""
    disk.remount(f"size={size}")
    refused = says(disk.folder / "root", disk.prefix, "ingest", str(chain_pictures))
    last = refused.stderr.splitlines()[-1]
    assert refused.returncode == 1 and last.startswith("discovery: ") and "no space left" in last and "run" in last, refused.stderr


def test_a_file_size_limit_is_told_like_a_full_disk(chain_pictures: Path, undisturbed: dict[str, object], tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (250_000, before[1]))  # under the size of the index segment; inherited by the run
    try:
        process = start(chain_pictures, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1 and err.splitlines()[-1].startswith("discovery: "), err
    assert "no space left" in err.splitlines()[-1] or "could not be written" in err.splitlines()[-1]
    assert differences(Config(root=str(tmp_path)), finish(chain_pictures, tmp_path), undisturbed) == []


def test_a_root_that_becomes_read_only_is_still_read(chain_pictures: Path, undisturbed: dict[str, object], disk: PrivateDisk) -> None:
    root = disk.folder / "root"
    assert says(root, disk.prefix, "ingest", str(chain_pictures)).returncode == 0
    disk.remount("ro")
    for again in (False, True):
        if again:
            disk.remount("rw")
            answer = finish(chain_pictures, root, prefix=disk.prefix)
            assert wrong(disk, answer, undisturbed) == []
            disk.remount("ro")
        state = {path: path.stat().st_mtime_ns for path in disk.seen.rglob("*")}
        assert says(root, disk.prefix, "verify").returncode == 0
        versions = json.loads(says(root, disk.prefix, "versions", "--json").stdout)["versions"]
        assert [row["digest"] for row in versions] == ([undisturbed["digest"]] if again else [])
        if again:
            found = says(root, disk.prefix, "search", "--image", str(chain_pictures / "00.png"), "-k", "1", "--json")
            assert found.returncode == 0 and "/00.png" in found.stdout, found.stderr
        refused = start(chain_pictures, root, prefix=disk.prefix)
        _, err = refused.communicate(timeout=300)
        assert refused.returncode == 2 and err.splitlines()[-1].startswith("discovery: "), err
        assert {path: path.stat().st_mtime_ns for path in disk.seen.rglob("*")} == state


def test_a_read_only_catalog_with_an_open_log_is_refused(chain_pictures: Path, disk: PrivateDisk) -> None:
    root = disk.folder / "root"
    process = start(chain_pictures, root, prefix=disk.prefix)
    assert process.stderr is not None
    assert any("embed_shard: 16 of" in line for line in process.stderr)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    disk.remount("ro")
    refused = says(root, disk.prefix, "versions")
    assert refused.returncode == 2 and "was not closed by its last writer" in refused.stderr.splitlines()[-1]
    disk.remount("rw")
    assert says(root, disk.prefix, "versions").returncode == 0
    disk.remount("ro")
    assert says(root, disk.prefix, "versions").returncode == 0
