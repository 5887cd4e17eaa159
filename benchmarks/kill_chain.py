"""The whole chain killed at random moments, again and again: after each kill it is run to its end, and nothing may differ or be lost.

Every round starts from an empty root, kills the run's process group after a random time, runs again (up to `--most` kills a round), and
then compares: the version's digest with that of an undisturbed run, `verify` clean, every asset embedded once, one version. The seed
decides the moments as shares of an undisturbed run's time. The test suite runs this very script with a dozen kills.
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
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from discovery.config import Config
from discovery.stages.verify import verify
from discovery.workspace import open_workspace

PICTURES, SHARD = 48, 8
SETTINGS = {"DISCOVERY_DASK__SCHEDULER": "inline", "DISCOVERY_DASK__SHARD_ASSETS": str(SHARD), "PYTHONUNBUFFERED": "1"}


class Failed(Exception):
    """A run ended with an error; the text is its stderr."""


def make_pictures(folder: Path) -> Path:
    """A few textures, one of them twice, and a broken file."""
    rng = np.random.default_rng(8)
    for number in range(PICTURES):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 7, 3), np.uint8))
        coarse.resize((300, 200), Image.Resampling.BICUBIC).save(folder / f"{number:02}.png")
    (folder / "copy.png").write_bytes((folder / "00.png").read_bytes())
    (folder / "broken.png").write_bytes((folder / "00.png").read_bytes()[:500])
    return folder


def start(source: object, root: object, environ: Mapping[str, str] | None = None, prefix: Sequence[str] = ()) -> subprocess.Popen[str]:
    """The command a user types, in a process group of its own. environ: more variables. prefix: what starts the command."""
    command = [*prefix, sys.executable, "-W", "ignore", "-m", "discovery.cli", "run", str(source), "--root", str(root), "--json"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DISCOVERY_")}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=inherited | SETTINGS | dict(environ or {}),
        start_new_session=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip


def finish(source: object, root: object, environ: Mapping[str, str] | None = None, prefix: Sequence[str] = ()) -> dict[str, object]:
    """Run to the end; its answer. Raises Failed."""
    process = start(source, root, environ, prefix)
    out, err = process.communicate(timeout=600)
    if process.returncode:
        raise Failed(f"exit code {process.returncode}\n{err}")
    answer: dict[str, object] = json.loads(out)
    return answer


def kill_after(seconds: float, source: object, root: object) -> str:
    """Start, kill after so many seconds; the last line of progress, or 'ended' when it was faster."""
    process = start(source, root)
    time.sleep(seconds)
    ended = process.poll() is not None
    if not ended:
        os.killpg(process.pid, signal.SIGKILL)
    _, err = process.communicate()
    lines = [line.split(" s  ", 1)[-1] for line in err.splitlines() if " s  " in line]
    return "ended" if ended else (lines[-1].split(":")[0] if lines else "starting")


def differences(config: Config, answer: Mapping[str, object], expected: Mapping[str, object]) -> list[str]:
    """What is wrong after the last run; empty when nothing is."""
    names = ("digest", "assets", "rejected", "version")
    wrong = [f"{name}: {answer[name]} instead of {expected[name]}" for name in names if answer[name] != expected[name]]
    with open_workspace(config) as ws:
        found = verify(ws)
        wrong += [f"verify: corrupt {found.corrupt}, missing {found.missing}"] if found.corrupt or found.missing else []
        embedded = Counter(
            asset_id
            for shard in ws.store.records(["embed_shard"])
            for asset_id in ws.store.read_table(shard, columns=["asset_id"])["asset_id"].to_pylist()
        )
        wrong += [f"embedded twice: {i}" for i, times in embedded.items() if times > 1]
        wrong += [] if len(embedded) == PICTURES else [f"{len(embedded)} assets embedded instead of {PICTURES}"]
        wrong += [] if len(ws.catalog.versions()) == 1 else ["not one version"]
    return wrong


def main() -> None:
    """Kill, run, compare, and print how it went by stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--most", type=int, default=3, help="kills in a round, at most")
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
            for _ in range(chance.randint(1, options.most)):
                place = kill_after(chance.uniform(0.05, 1.0) * whole, pictures, root)
                where[place] += 1
                kills += place != "ended"
            try:
                wrong = differences(Config(root=str(root)), finish(pictures, root), expected)
            except Failed as error:
                wrong = [f"the run after the kill failed: {error}"]
            failures += [f"round {rounds}: {text}" for text in wrong]
            print(f"round {rounds}, {kills} kills, last while {place}: {'; '.join(wrong) or 'the same'}", flush=True)
            subprocess.run(["rm", "-rf", str(root)], check=True)
    print(f"\n{kills} kills in {rounds} rounds (seed {options.seed}); last progress before the kill: {dict(where.most_common())}")
    print(f"rounds with a difference or a loss: {len(failures)}")
    sys.exit("\n".join(failures) if failures else 0)


if __name__ == "__main__":
    main()
