"""The whole chain killed in each of its stages, again and again: after each kill it is run to its end, and nothing may differ or be lost.

Every round starts from an empty root, kills the run's process group in up to `--most` stages drawn at random (each as likely as another, in
their order), runs it to the end, and then compares: the version's digest with that of an
undisturbed run, `verify` clean, every asset embedded once, one version. A stage lasts from its first line of progress to that of the
next; the seed decides stages and moments, as shares of how long the stage took undisturbed. The test suite runs this very script.
    python -m benchmarks.kill_chain --kills 200 --seed 7
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from discovery.config import Config
from discovery.stages.verify import verify
from discovery.workspace import open_workspace
from tests.adapters.clips import clip

PICTURES, SHARD = 48, 8
ASSETS = PICTURES + 2 + 3  # in the archive; frames of the clip
LISTED = PICTURES + 4  # a copy, a broken file, the archive, the clip
SETTINGS = {"DISCOVERY_DASK__SCHEDULER": "inline", "DISCOVERY_DASK__SHARD_ASSETS": str(SHARD), "PYTHONUNBUFFERED": "1"}


class Failed(Exception):
    """A run ended with an error; the text is its stderr."""


def make_pictures(folder: Path) -> Path:
    """A few textures, one of them twice, a broken file, an archive of two more and a clip of three seconds."""
    rng = np.random.default_rng(8)

    def texture(place: Path) -> None:
        coarse = Image.fromarray(rng.integers(0, 256, (6, 7, 3), np.uint8))
        coarse.resize((300, 200), Image.Resampling.BICUBIC).save(place)

    for number in range(PICTURES):
        texture(folder / f"{number:02}.png")
    with zipfile.ZipFile(folder / "more.zip", "w") as archive, tempfile.TemporaryDirectory() as drafts:
        for name in ("x.png", "y.png"):
            texture(Path(drafts, name))
            archive.write(Path(drafts, name), name)
    clip(folder / "clip.mp4", scenes=3)
    (folder / "copy.png").write_bytes((folder / "00.png").read_bytes())
    (folder / "broken.png").write_bytes((folder / "00.png").read_bytes()[:500])
    return folder


def start(source: object, root: object, environ: Mapping[str, str] | None = None, prefix: Sequence[str] = ()) -> subprocess.Popen[str]:
    """The command a user types, in a process group of its own. environ: more variables. prefix: what starts the command."""
    command = [*prefix, sys.executable, "-W", "ignore", "-m", "discovery", "run", str(source), "--root", str(root), "--json"]
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


def stage_of(line: str) -> str:
    """Of a line of progress, `   2.9 s  ingest: 52 of 52 read`; empty of any other."""
    head, mark, text = line.partition(" s  ")
    return text.split(":")[0] if mark and head.strip().replace(".", "").isdigit() else ""


def spans(source: object, root: object) -> tuple[dict[str, float], dict[str, object]]:
    """Seconds of each stage of an undisturbed run, in their order, and its answer. Raises Failed."""
    process = start(source, root)
    assert process.stdout is not None and process.stderr is not None
    begun, lines = {"starting": time.monotonic()}, []
    for line in process.stderr:
        lines.append(line)
        if (stage := stage_of(line)) and stage not in begun:
            begun[stage] = time.monotonic()
    out = process.stdout.read()
    if process.wait():
        raise Failed("".join(lines))
    ends = [*list(begun.values())[1:], time.monotonic()]
    answer: dict[str, object] = json.loads(out)
    return {stage: end - moment for (stage, moment), end in zip(begun.items(), ends, strict=True)}, answer


def kill_in(stage: str, seconds: float, source: object, root: object) -> str:
    """Start, kill so many seconds after the first line of a stage; the stage it was in by its last line, or 'ended' when it was faster."""
    process = start(source, root)
    assert process.stderr is not None
    last = "starting"
    while last != stage and (line := process.stderr.readline()):
        last = stage_of(line) or last
    time.sleep(seconds)
    ended = process.poll() is not None
    if not ended:
        os.killpg(process.pid, signal.SIGKILL)
    _, err = process.communicate()
    for line in err.splitlines():
        last = stage_of(line) or last
    return "ended" if ended else last


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
        wrong += [] if len(embedded) == ASSETS else [f"{len(embedded)} assets embedded instead of {ASSETS}"]
        wrong += [] if len(ws.catalog.versions()) == 1 else ["not one version"]
    return wrong


def main() -> None:
    """Kill, run, compare, and print how it went by stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no round after so many")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--most", type=int, default=3, help="kills in a round, at most")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    where: Counter[str] = Counter()
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        (Path(folder) / "photos").mkdir()
        pictures = make_pictures(Path(folder) / "photos")
        lasted, expected = spans(pictures, Path(folder) / "undisturbed")
        print("an undisturbed run:", ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in lasted.items()), flush=True)
        stages = list(lasted)
        kills = rounds = 0
        until = time.monotonic() + 60 * options.minutes
        while kills < options.kills and time.monotonic() < until:
            rounds += 1
            root = Path(folder) / f"round-{rounds}"
            for stage in sorted(chance.choices(stages, k=chance.randint(1, options.most)), key=stages.index):
                place = kill_in(stage, chance.uniform(0.0, 1.0) * lasted[stage], pictures, root)
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
