"""Planted faults in real photographs: F1 of ours and of cleanvision for each issue, and pictures a second of both, in one run.

Thresholds were chosen on one half of the photographs (this prints which would be chosen now), and all figures are of the other half. cleanvision is
judged as it is installed, and again with thresholds chosen on the same first half in the same way. Every fault of another kind is a negative,
like the photographs as they are, but for those that may rightly be called by both names (quality_plants.OVERLAP).

    python -m benchmarks.quality_issues CORPORA --peer /tmp/peer/bin/python --work DIR [--screenshots DIR]

Both tools have one process and one thread (OMP_NUM_THREADS=1); pictures a second are those of CPU time, so that other work beside them counts little.
What DIR holds of cleanvision's answers is used again. --screenshots: a folder with what Debian's gimp-help-en and gnome-user-docs hold.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import subprocess
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.duplicates import ours as ours_with_copies
from benchmarks.quality_plants import OVERLAP, Planted, natural, photographs, plant, plant_copies
from discovery.adapters.allocator import keep_freed_memory
from discovery.adapters.decode import decode, shrink
from discovery.core.issues import ISSUES, find_issues
from discovery.core.measures import MEASURES, measure_image
from discovery.core.picture import cut_tiles
from discovery.stages.measure import DETAIL_PX, MEASURED_PX, measure_asset

THEIRS = {
    "dark": "dark", "bright": "light", "blurry": "blurry", "odd_size": "odd_size", "low_information": "low_information", "grey": "grayscale",
    "odd_aspect": "odd_aspect_ratio",
}  # fmt: skip
JUDGED = (*THEIRS, "noisy", "blocky", "bordered", "screenshot")
HASHES = [(kind, size) for kind in ("phash", "dhash", "ahash", "whash") for size in (4, 8)]


@dataclasses.dataclass(frozen=True)
class Judgement:
    """Hits, false flags and positives of one tool for one issue."""

    hits: int
    false: int
    wanted: int

    @property
    def f1(self) -> float:
        """2 * hits / (flagged + wanted)."""
        return 2 * self.hits / max(1, self.hits + self.false + self.wanted)

    def __str__(self) -> str:
        return f"{self.f1:.3f} ({self.hits / max(1, self.hits + self.false):.3f} / {self.hits / max(1, self.wanted):.3f})"


def sides(files: list[Planted], issue: str, natural_of: dict[str, tuple[str, ...]]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(n,) which files have the issue, and which do not; some are in neither."""
    positive = np.array([item.issue == issue for item in files])
    excused = np.array([issue in OVERLAP.get(item.issue, ()) or issue in natural_of.get(item.base, ()) for item in files])
    return positive, ~positive & ~excused


def judge(flags: NDArray[np.bool_], positive: NDArray[np.bool_], negative: NDArray[np.bool_]) -> Judgement:
    """Of the files that are judged."""
    return Judgement(int((flags & positive).sum()), int((flags & negative).sum()), int(positive.sum()))


def best_threshold(score: NDArray[np.float64], positive: NDArray[np.bool_], negative: NDArray[np.bool_]) -> float:
    """The threshold with the best F1, in the middle between the scores that it parts; what is under it has the issue."""
    values = np.unique(score[positive | negative])
    cuts = np.concatenate([(values[1:] + values[:-1]) / 2, values[-1:] + 1e-6])
    return max(((judge(score < cut, positive, negative).f1, float(cut)) for cut in cuts), key=lambda found: found[0])[1]


def measured(folder: Path, names: list[str]) -> tuple[dict[str, NDArray[np.float64]], float]:
    """Columns of the named files, and the CPU seconds that it took."""
    keep_freed_memory()  # as measure_shard does
    started = time.process_time()
    rows = []
    for name in names:
        data = (folder / name).read_bytes()
        row = measure_asset("0" * 64, data)
        rows.append({key: row[key] for key in MEASURES})
    seconds = time.process_time() - started
    for name, row in zip(names, rows, strict=True):
        size = decode((folder / name).read_bytes(), 2**62, at_least_px=1)  # ingest has read it; not part of measuring
        row |= {"width_px": size.width_px, "height_px": size.height_px}
    return {key: np.array([row[key] for row in rows], np.float64) for key in rows[0]}, seconds


def measures_alone(folder: Path, names: list[str]) -> float:
    """CPU seconds of the measures without what finds copies."""
    started = time.process_time()
    for name in names:
        image = decode((folder / name).read_bytes(), 2**62, at_least_px=DETAIL_PX).image
        measure_image(np.ascontiguousarray(shrink(image, MEASURED_PX)), cut_tiles(np.asarray(image)))
    return time.process_time() - started


def peer(python: Path, folder: Path, out: Path, *more: str) -> dict[str, dict[str, list[float]]]:
    """What cleanvision says of a folder, in its own environment."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    script = Path(__file__).with_name("quality_peer.py")
    if not out.exists():
        subprocess.run([python, "-W", "ignore", script, folder, out, *more], check=True, env=environment, stderr=subprocess.DEVNULL)
    return json.loads(out.read_text())  # type: ignore[no-any-return]


def in_order(found: dict[str, dict[str, list[float]]], part: str, kind: str, names: list[str]) -> NDArray[np.float64]:
    """One of cleanvision's columns in the order of our files."""
    by_name = dict(zip(found["files"], found[part][kind], strict=True))
    return np.array([by_name[Path(name).name] for name in names], np.float64)


def issues_table(files: list[Planted], work: Path, python: Path, natural_of: dict[str, tuple[str, ...]]) -> None:
    """F1 for each issue on the half for judging."""
    pictures = work / "pictures"
    halves = {half: [item for item in files if item.half == half] for half in ("choose", "judge")}
    columns, theirs = {}, {}
    for half, items in halves.items():
        names = [item.file for item in items]
        columns[half], seconds = measured(pictures, names)
        np.savez(work / f"measures-{half}.npz", **columns[half])
        alone = measures_alone(pictures, names)
        theirs[half] = peer(python, pictures / half, work / f"peer-{half}.json")
        spent = theirs[half]["seconds"]
        print(f"{half}: {len(items):,} files; one process each, pictures a second of CPU: ours {len(items) / alone:.1f} (measures), {len(items) / seconds:.1f} (measures, hashes and small pictures), "
              f"cleanvision {len(items) / spent['issues']:.1f} (issues), {len(items) / (spent['issues'] + spent['copies']):.1f} (issues and hashes)", flush=True)  # type: ignore[operator]
    found = {half: find_issues(columns[half]) for half in halves}
    print(f"\nhalf 'judge': F1 (precision / recall)\n{'issue':17}{'planted':>8}{'others':>8}  {'ours':26}{'cleanvision':26}{'cleanvision, chosen':26} ours: threshold, chosen now")
    for issue in JUDGED:
        choose, others = sides(halves["choose"], issue, natural_of), sides(halves["judge"], issue, natural_of)
        if not others[0].any():
            continue
        now = best_threshold(found["choose"].scores[issue], *choose)
        line = f"{issue:17}{others[0].sum():8}{others[1].sum():8}  {judge(found['judge'].flags[issue], *others)!s:26}"
        if issue in THEIRS:
            names = {half: [item.file for item in items] for half, items in halves.items()}
            flags = in_order(theirs["judge"], "flags", THEIRS[issue], names["judge"]).astype(bool)
            cut = best_threshold(in_order(theirs["choose"], "scores", THEIRS[issue], names["choose"]), *choose)
            line += f"{judge(flags, *others)!s:26}{judge(in_order(theirs['judge'], 'scores', THEIRS[issue], names['judge']) < cut, *others)!s:26}"
        else:
            line += f"{'not looked for':52}"
        print(f"{line} {ISSUES[issue].threshold:.3f}, {now:.3f}")
    print("\nhalf 'judge': share of the planted that is found, by strength: ours, cleanvision")
    for issue in JUDGED:
        by_strength: dict[str, list[int]] = defaultdict(list)
        for row, item in enumerate(halves["judge"]):
            if item.issue == issue:
                by_strength[item.strength].append(row)
        cells = []
        for strength, rows in sorted(by_strength.items()):
            both = f"{found['judge'].flags[issue][rows].mean():.2f}"
            if issue in THEIRS:
                both += f", {in_order(theirs['judge'], 'flags', THEIRS[issue], [item.file for item in halves['judge']])[rows].mean():.2f}"
            cells.append(f"{strength} ({len(rows)}): {both}")
        if cells:
            print(f"  {issue}: " + "; ".join(cells))
    clean = np.array([not item.issue for item in halves["judge"]])
    print(f"\nhalf 'judge': flags among the {clean.sum()} photographs as they are: ours " + ", ".join(f"{issue} {int(found['judge'].flags[issue][clean].sum())}" for issue in ISSUES))
    names = [item.file for item in halves["judge"]]
    print("  cleanvision " + ", ".join(f"{issue} {int(in_order(theirs['judge'], 'flags', kind, names)[clean].sum())}" for issue, kind in THEIRS.items()))


def copies_table(truth: dict[str, bool], work: Path, python: Path) -> None:
    """F1 of near-duplicates on the half for judging: the whole chain of ours, and cleanvision's hashes."""
    folder = work / "copies"

    def flagged(groups: list[list[str]], half: str) -> Judgement:
        inside = {name for group in groups if len(group) > 1 for name in group}
        names = [name for name in truth if name.startswith(half)]
        flags = np.array([Path(name).name in inside for name in names])
        has = np.array([truth[name] for name in names])
        return judge(flags, has, ~has)

    default = peer(python, folder / "judge", work / "peer-copies.json")
    chosen = max(HASHES, key=lambda named: flagged(peer(python, folder / "choose", work / f"peer-choose-{named[0]}-{named[1]}.json", named[0], str(named[1]))["sets"], "choose").f1)  # type: ignore[arg-type]
    tuned = peer(python, folder / "judge", work / f"peer-judge-{chosen[0]}-{chosen[1]}.json", chosen[0], str(chosen[1]))
    mine = ours_with_copies(folder / "judge", work / "store", work / "vectors.npz")
    files = sum(name.startswith("judge") for name in truth)
    print(f"\nnear-duplicates, half 'judge', {files} files of which {sum(has for name, has in truth.items() if name.startswith('judge'))} have a copy or are one: F1 (precision / recall)")
    print(f"  ours (ingest, check, embed, dedupe) {flagged(mine['groups'], 'judge')}, cleanvision {flagged(default['sets'], 'judge')}, "  # type: ignore[arg-type]
          f"cleanvision with {chosen[0]} of {chosen[1]} x {chosen[1]}, chosen {flagged(tuned['sets'], 'judge')}")  # type: ignore[arg-type]
    seconds = mine["seconds"]
    print(f"  seconds: ours {', '.join(f'{stage} {value:.0f}' for stage, value in seconds.items())}; cleanvision {sum(default['seconds'].values()):.0f}")  # type: ignore[attr-defined, arg-type]


def large_pictures(corpora: Path, work: Path, python: Path) -> None:
    """Pictures a second of wallpapers and photographs at the size in which a camera or a person left them."""
    folder = work / "large"
    folder.mkdir(exist_ok=True)
    paths = [path for path in photographs(corpora) if "mate" in path or "lomiri" in path or "kphotoalbum" in path]
    names = []
    for path in paths:
        name = f"{hashlib.sha256(path.encode()).hexdigest()[:12]}.jpg"
        if not (folder / name).exists():
            os.link(corpora / path, folder / name)
        names.append(name)
    columns, seconds = measured(folder, names)
    alone = measures_alone(folder, names)
    spent = peer(python, folder, work / "peer-large.json")["seconds"]
    pixels = np.median(columns["width_px"] * columns["height_px"]) / 1e6
    print(f"\n{len(names)} JPEG as they were taken, {pixels:.1f} megapixels in the median, pictures a second of CPU: ours {len(names) / alone:.1f} (measures), {len(names) / seconds:.1f} (measures, hashes and small pictures), cleanvision {len(names) / spent['issues']:.1f} (issues), "  # type: ignore[operator]
          f"{len(names) / (spent['issues'] + spent['copies']):.1f} (issues and hashes)")  # type: ignore[operator]


def main() -> None:
    """Plant, run both, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", type=Path)
    parser.add_argument("--peer", type=Path, required=True, help="python of cleanvision's environment (benchmarks/requirements-quality.txt)")
    parser.add_argument("--work", type=Path, required=True, help="folder for pictures and results; what it holds already is used again")
    parser.add_argument("--screenshots", type=Path)
    options = parser.parse_args()
    listed = options.work / "planted.json"
    if not listed.exists():
        options.work.mkdir(parents=True, exist_ok=True)
        planted = plant(options.corpora, options.work / "pictures", options.screenshots)
        truth = plant_copies(planted, options.corpora, options.work / "copies")
        listed.write_text(json.dumps({"files": [dataclasses.asdict(item) for item in planted], "copies": truth}))
    stored = json.loads(listed.read_text())
    files = [Planted(**item) for item in stored["files"]]
    natural_of = {hashlib.sha256(path.encode()).hexdigest()[:12]: natural(path) for path in photographs(options.corpora)}
    issues_table(files, options.work, options.peer, natural_of)
    large_pictures(options.corpora, options.work, options.peer)
    copies_table(stored["copies"], options.work, options.peer)


if __name__ == "__main__":
    main()
