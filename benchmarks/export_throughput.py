"""Bytes a second that `discovery export` writes to a local folder, against a loop that copies the same files with shutil.copyfile.

The signal is the ratio; 1 means as fast as the copy. Both read files that the kernel has in memory. The export also hashes what it reads, hashes
what it writes, and syncs each file to the disk before it tells of it; the copy loop does none of it, so a second loop that syncs each file is
measured too. The chain that fills the store is not measured. Usage: python benchmarks/export_throughput.py [--pictures 400] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from discovery.adapters.exports import FORMATS
from discovery.config import Config
from discovery.pipeline import run_pipeline
from discovery.spec import parse_spec
from discovery.stages.curate import curate
from discovery.stages.export import export
from discovery.workspace import Workspace, open_workspace

SPEC = "name: photos\nbudget: 100000\nduplicates: keep\nsplits: {train: 0.8, test: 0.2}\n"


def make_pictures(folder: Path, count: int) -> None:
    """JPEGs of about 350 kB of noise on soft colour, which no codec makes small."""
    rng = np.random.default_rng(5)
    for number in range(count):
        soft = Image.fromarray(rng.integers(0, 256, (4, 6, 3), np.uint8)).resize((720, 480), Image.Resampling.BICUBIC)
        noisy = np.asarray(soft, np.int16) + rng.integers(-40, 41, (480, 720, 3))
        place = folder / f"label {number % 7}" / f"{number:05}.jpg"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(place, quality=93)


def copied(files: list[Path], out: Path, *, synced: bool) -> None:
    """The plain loop."""
    out.mkdir()
    for number, file in enumerate(files):
        target = out / f"{number}.jpg"
        shutil.copyfile(file, target)
        if synced:
            with open(target, "rb") as opened:
                os.fsync(opened.fileno())


def seconds(work: Callable[[], object]) -> float:
    """That the work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def rounds(files: list[Path], folder: Path, count: int, ws: Workspace) -> dict[str, list[float]]:
    """Seconds of each way, in turn, so that what else the machine does meets all of them."""
    found: dict[str, list[float]] = {}
    for number in range(count):
        found.setdefault("copy", []).append(seconds(partial(copied, files, folder / f"copy {number}", synced=False)))
        found.setdefault("copy, each file synced", []).append(seconds(partial(copied, files, folder / f"synced {number}", synced=True)))
        for name in FORMATS:
            if name != "list":
                once = partial(export, "photos@1", name, str(folder / f"{name} {number}"), ws)
                found.setdefault(name, []).append(seconds(once))
                found.setdefault(f"{name}, again", []).append(seconds(once))
        for out in folder.iterdir():
            shutil.rmtree(out)
    return found


def main() -> None:
    """Fill a store, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, help="where to work; default: the temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        pictures, outs = Path(folder, "pictures"), Path(folder, "outs")
        pictures.mkdir()
        outs.mkdir()
        make_pictures(pictures, options.pictures)
        files = sorted(pictures.rglob("*.jpg"))
        with open_workspace(Config(root=str(Path(folder, "store"))).replace(dask={"scheduler": "inline"})) as ws:
            run_pipeline([str(pictures)], ws, curate_default=False)
            curate(parse_spec(SPEC), ws)
            planning = statistics.median(seconds(partial(export, "photos@1", "list", str(outs / f"list {n}"), ws)) for n in range(3))
            shutil.rmtree(outs)
            outs.mkdir()
            found = rounds(files, outs, options.rounds, ws)
        size = sum(file.stat().st_size for file in files)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    print(f"commit   {commit}\nmachine  {os.cpu_count()} cores, {platform.system()}, load {os.getloadavg()[0]:.1f}")
    print(f"command  python benchmarks/export_throughput.py --pictures {options.pictures} --rounds {options.rounds}\n")
    print(f"{len(files)} pictures, {size / 1e6:.0f} MB; medians of {options.rounds}, in turn; planning (a list alone) takes {planning:.2f} s of each export\n")
    base = statistics.median(found["copy"])
    print(f"{'':26} {'seconds':>8} {'MB/s':>8} {'copy = 1':>9}")
    for name, times in found.items():
        middle = statistics.median(times)
        print(f"{name:26} {middle:8.2f} {size / 1e6 / middle:8.0f} {base / middle:9.2f}")


if __name__ == "__main__":
    main()
