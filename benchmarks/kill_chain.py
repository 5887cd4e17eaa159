"""The whole chain killed at random moments, again and again: after each kill it is run to its end, and nothing may differ or be lost.

Every round starts from an empty root, kills the run's process group after a random time, runs again (with a second kill in a third of
the rounds), and then compares: the version's digest with that of an undisturbed run, `verify` clean, every asset embedded once,
one version. The seed decides the moments as shares of an undisturbed run's time.
    python benchmarks/kill_chain.py --kills 200 --seed 7
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from discovery.config import Config
from discovery.stages.verify import verify
from discovery.workspace import open_workspace

PICTURES = 48
ENVIRONMENT = {"DISCOVERY_DASK__SCHEDULER": "inline", "DISCOVERY_DASK__SHARD_ASSETS": "8"}


def make_pictures(folder: Path) -> Path:
    """A few textures, one of them twice, and a broken file."""
    rng = np.random.default_rng(8)
    for number in range(PICTURES):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 7, 3), np.uint8))
        coarse.resize((300, 200), Image.Resampling.BICUBIC).save(folder / f"{number:02}.png")
    (folder / "copy.png").write_bytes((folder / "00.png").read_bytes())
    (folder / "broken.png").write_bytes((folder / "00.png").read_bytes()[:500])
    return folder


def start(pictures: Path, root: Path) -> subprocess.Popen[str]:
    """The command a user types, in a process group of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "discovery.cli", "run", str(pictures), "--root", str(root), "--json"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | ENVIRONMENT, start_new_session=True
    )  # fmt: skip


def finish(pictures: Path, root: Path) -> dict[str, object]:
    """Run to the end; its answer."""
    process = start(pictures, root)
    out, err = process.communicate(timeout=600)
    if process.returncode:
        sys.exit(f"A run after a kill failed with exit code {process.returncode}:\n{err}")
    answer: dict[str, object] = json.loads(out)
    return answer


def kill_after(seconds: float, pictures: Path, root: Path) -> str:
    """Start, kill after so many seconds; the last line of progress, or 'ended' when it was faster."""
    process = start(pictures, root)
    time.sleep(seconds)
    ended = process.poll() is not None
    if not ended:
        os.killpg(process.pid, signal.SIGKILL)
    _, err = process.communicate()
    lines = [line.split(" s  ", 1)[-1] for line in err.splitlines() if " s  " in line]
    return "ended" if ended else (lines[-1].split(":")[0] if lines else "starting")


def faults(root: Path, answer: dict[str, object], expected: dict[str, object]) -> list[str]:
    """What is wrong after the last run; empty when nothing is."""
    wrong = [f"{name}: {answer[name]} instead of {expected[name]}" for name in ("digest", "assets", "rejected", "version") if answer[name] != expected[name]]
    with open_workspace(Config(root=str(root))) as ws:
        found = verify(ws)
        wrong += [f"verify: corrupt {found.corrupt}, missing {found.missing}"] if found.corrupt or found.missing else []
        embedded = Counter(
            asset_id
            for shard in ws.store.records(["embed_shard"])
            for asset_id in ws.store.read_table(shard, columns=["asset_id"])["asset_id"].to_pylist()
        )
        wrong += [f"embedded twice: {i}" for i, times in embedded.items() if times > 1]
        wrong += [] if len(ws.catalog.versions()) == 1 else ["more than one version"]
    return wrong


def main() -> None:
    """Kill, run, compare, and print how it went by stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    where: Counter[str] = Counter()
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        (Path(folder) / "photos").mkdir()
        pictures = make_pictures(Path(folder) / "photos")
        started = time.monotonic()
        expected = finish(pictures, Path(folder) / "undisturbed")
        whole = time.monotonic() - started
        kills = rounds = 0
        while kills < options.kills:
            rounds += 1
            root = Path(folder) / f"round-{rounds}"
            for _ in range(1 if chance.random() < 2 / 3 else 2):
                place = kill_after(chance.uniform(0.05, 1.0) * whole, pictures, root)
                where[place] += 1
                kills += place != "ended"
            wrong = faults(root, finish(pictures, root), expected)
            failures += [f"round {rounds}: {text}" for text in wrong]
            print(f"round {rounds}, {kills} kills, last while {place}: {'; '.join(wrong) or 'the same'}", flush=True)
            subprocess.run(["rm", "-rf", str(root)], check=True)
    print(f"\n{kills} kills in {rounds} rounds (seed {options.seed}); last progress before the kill: {dict(where.most_common())}")
    print(f"rounds with a difference or a loss: {len(failures)}")
    sys.exit("\n".join(failures) if failures else 0)


if __name__ == "__main__":
    main()
