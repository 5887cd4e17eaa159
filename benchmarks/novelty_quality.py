"""How many discoveries are false, how many are found, and how well each score ranks, on real pictures with a category held out as the novelty.

Tasks: pictures of one kind are the novelty, the others are known.
    deep sky    stellarium's nebulae among stamps, furniture, emoji and photos               far
    flags       flags among the other emoji of one vendor                                    near
    food        food among the other emoji of one vendor                                     near
    symbols     tuxpaint's symbols among its other stamps                                    near
    monuments   GCompris' photos of monuments among its other photos, stamps and furniture   near

Errors. Each resample draws the known pictures into a reference (two thirds) and candidates (the rest), then mixes in novelty at 1, 5 and 20 %. The product's own
functions score: held-out rows by salted hash, one index, p-values, Benjamini-Hochberg, the test for a shift. FDR is the mean share of false ones among
what is called (0 where nothing is), over the resamples whose shift test passes, with its standard error; power the mean share of the novelty that is called.
`set` is the same with calibration-conditional p-values, which `adaptive` has none of. A second table has whole batches of another kind, where all p-values would be wrong. A third has
bursts: thirty shots of one ordinary picture in an ordinary batch, near to each other or farther; what is called there is false.

Scores. AUROC and the false-positive rate at 95 % true positives, of each score and of PyOD's detectors, fitted on the same references, on the same candidates, all of
the novelty among them. Power: PyOD has no error control, so its scores are calibrated by our p-values on the same held-out rows; BATCHES batches of each split, the same for all.

    bash get_corpora.sh /tmp/corpora
    python -m venv /tmp/venv-pyod && /tmp/venv-pyod/bin/pip install -r benchmarks/requirements-novelty.txt
    python -m benchmarks.novelty_quality --peers /tmp/venv-pyod/bin/python          an hour on two cores the first time; vectors are kept in --cache
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from discovery.adapters.encoders import encode_pictures, load_encoder
from discovery.config import Config, IndexConfig, NoveltyConfig
from discovery.core.conformal import benjamini_hochberg, calibration_size, conditional_p_values, conformal_p_values, shift_test
from discovery.core.draws import draw
from discovery.core.knn import normalise
from discovery.stages.novelty_pool import look_together
from discovery.stages.novelty_views import Looked, NoveltyViews
from discovery.stages.open_index import MemorySegment, OpenIndex

SHARES, LEVELS = (0.01, 0.05, 0.20), (0.05, 0.1, 0.2)
SCORES = ("adaptive", "knn", "mahalanobis", "density", "combined")
REFERENCE_SHARE, CANDIDATES, DELTA = 2 / 3, 400, 0.1
SHOTS, SPREADS = 30, (0.25, 0.5)
RANKED, BATCHES = 10, 20  # splits of the table of scores, each with detectors fitted anew, and batches of each
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Task:
    """Vectors and S64 ids of known pictures and of the novelty, each picture once."""

    name: str
    known: Vectors
    known_ids: NDArray[np.bytes_]
    novel: Vectors


def read(corpora: Path, cache: Path) -> tuple[list[dict[str, str]], Vectors, NDArray[np.bytes_]]:
    """Rows of the manifest, vectors, content hashes; of equal files the first."""
    rows, seen, data = [], set(), []
    for row in csv.DictReader((corpora / "manifest.csv").open()):
        content = (corpora / row["path"]).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if digest not in seen:
            seen.add(digest)
            rows.append({**row, "id": digest})
            data.append(content)
    encoder = load_encoder(Config().encoder, Config().s3)
    file = cache / f"novelty-{encoder.spec.encoder_id}-{hashlib.sha256(''.join(row['id'] for row in rows).encode()).hexdigest()[:16]}.npy"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        np.save(file, encode_pictures(encoder, data))
    return rows, np.load(file), np.array([row["id"] for row in rows], "S64")


def tasks_of(rows: list[dict[str, str]], vectors: Vectors, ids: NDArray[np.bytes_]) -> list[Task]:
    """The five tasks; emoji are of one vendor, since another's are the same pictures drawn again."""
    source = np.array([row["source"].split(":")[0] for row in rows])
    label = np.array([row["label"] for row in rows])
    google = np.array(["google" in row["path"] for row in rows]) & (source == "emoji")
    others = (source != "emoji") & (source != "stellarium")

    def task(name: str, known: NDArray[np.bool_], novel: NDArray[np.bool_]) -> Task:
        mine = known & ~novel
        return Task(name, vectors[mine], ids[mine], vectors[novel])

    return [
        task("deep sky", others | google, label == "deep sky"),
        task("flags", google, google & (label == "emoji Flags")),
        task("food", google, google & (label == "emoji Food & Drink")),
        task("symbols", source == "tuxpaint", (source == "tuxpaint") & (label == "symbols")),
        task("monuments", others, (source == "gcompris") & (label == "monuments")),
    ]


@dataclass
class Drawn:
    """A split of a task's known pictures, made ready for one score."""

    views: NoveltyViews
    usual: Looked
    held_out: Vectors
    references: Vectors
    candidates: Vectors

    @property
    def calibration(self) -> Vectors:
        """Scores of the held-out rows, each by itself."""
        return self.usual.novelty

    def together(self, batch: Vectors, looked: Looked) -> tuple[Vectors, Vectors]:
        """Adaptive novelty of a batch, and of the held-out rows beside it."""
        vectors = np.concatenate([batch, self.held_out])
        names = np.array([hashlib.sha256(row.tobytes()).hexdigest() for row in vectors], "S64")
        pooled = Looked(*(np.concatenate([getattr(looked, name), getattr(self.usual, name)]) for name in Looked.__slots__))
        found = look_together(names, pooled, lambda places: [(places, vectors[places])], "benchmark")
        return found[: len(batch)], found[len(batch) :]

    @classmethod
    def of(cls, task: Task, score: str, order: NDArray[np.int64], size: int) -> Drawn:
        """The first `size` of the order are the reference."""
        mine, rest = order[:size], order[size:]
        index = OpenIndex([MemorySegment(task.known_ids[mine], task.known[mine])], task.known_ids[:0], task.known.shape[1], 50, IndexConfig())
        rows = np.arange(index.rows)
        held_out = np.sort(draw(index.all_ids(), calibration_size(len(rows), NoveltyConfig().calibration_rows), f"{order[0]}"))
        views = NoveltyViews(index, rows, held_out, NoveltyConfig(score=score))  # type: ignore[arg-type]
        proper = np.setdiff1d(rows, held_out)
        return cls(views, views.look_at_rows(held_out), index.vectors(held_out), index.vectors(proper), task.known[rest])


def part_of(looked: Looked, rows: NDArray[np.int64]) -> Looked:
    """Some rows of what was found, density apart."""
    return Looked(looked.novelty[rows], looked.density, looked.closest[rows], looked.nearest[rows], looked.nearest_distance[rows])


def joined(one: Looked, other: Looked) -> Looked:
    """Rows of both."""
    return Looked(*(np.concatenate([getattr(one, name), getattr(other, name)]) for name in Looked.__slots__))


@dataclass
class Tally:
    """Per resample and level: the share of what was called that is false, and of the novelty that was called; NaN when shifted."""

    false: list[list[float]]
    found: list[list[float]]
    shifted: int = 0

    def add(self, p: NDArray[np.float64], ordinary: int, is_shifted: bool) -> None:
        """Of one batch, of which the first `ordinary` are known."""
        self.shifted += is_shifted
        if is_shifted:
            return
        q = benjamini_hochberg(p)
        called = [q <= level for level in LEVELS]
        self.false.append([float(one[:ordinary].sum() / max(one.sum(), 1)) for one in called])
        self.found.append([float(one[ordinary:].mean()) for one in called])


def errors(task: Task, score: str, resamples: int, seed: int) -> None:
    """Print realised FDR and power."""
    rng = np.random.default_rng(seed)
    size = int(REFERENCE_SHARE * len(task.known))
    kinds = ("batch",) if score == "adaptive" else ("batch", "set")
    tallies = {(share, kind): Tally([], []) for share in SHARES for kind in kinds}
    for _ in range(resamples):
        drawn = Drawn.of(task, score, rng.permutation(len(task.known)), size)
        ordinary, novel = drawn.views.look(drawn.candidates), drawn.views.look(task.novel)
        for share in SHARES:
            n = min(CANDIDATES, int(len(drawn.candidates) / (1 - share)), int(len(task.novel) / share))
            new = max(1, round(n * share))
            old_rows, new_rows = rng.permutation(len(drawn.candidates))[: n - new], rng.permutation(len(task.novel))[:new]
            looked = joined(part_of(ordinary, old_rows), part_of(novel, new_rows))
            scores, calibration = looked.novelty, drawn.calibration
            is_shifted = shift_test(calibration, scores).is_shifted
            if score == "adaptive" and not is_shifted:
                beside, usual = drawn.together(np.concatenate([drawn.candidates[old_rows], task.novel[new_rows]]), looked)
                if not shift_test(usual, beside).is_shifted:  # as in stages.score; else by knn
                    scores, calibration = beside, usual
            p = conformal_p_values(calibration, scores)
            tallies[share, "batch"].add(p, n - new, is_shifted)
            if "set" in kinds:
                tallies[share, "set"].add(conditional_p_values(p, len(calibration), DELTA), n - new, is_shifted)
    for (share, kind), tally in tallies.items():
        false, found = np.array(tally.false), np.array(tally.found)
        line = [f"{task.name:9} {score:11} {share:4.0%} {kind:5} {tally.shifted / resamples:7.3f}"]
        for column, level in enumerate(LEVELS):
            mean, error = (float(false[:, column].mean()), float(false[:, column].std(ddof=1) / np.sqrt(len(false)))) if len(false) > 1 else (np.nan, np.nan)
            mark = " OVER" if mean > level + 2 * error else ""
            power = float(found[:, column].mean()) if len(found) else np.nan
            line.append(f"  {mean:.3f} ±{error:.3f} {power:.2f}{mark}")
        print("".join(line), flush=True)


def shifts(task: Task, moved: dict[str, Vectors], resamples: int, seed: int) -> None:
    """Print how often whole batches that moved are called shifted, and the false discoveries if they were not."""
    rng = np.random.default_rng(seed)
    size = int(REFERENCE_SHARE * len(task.known))
    for name, vectors in moved.items():
        held, wrong, slipped = 0, 0, 0
        for _ in range(resamples):
            order = rng.permutation(len(task.known))
            drawn = Drawn.of(task, "knn", order, size)
            batch = vectors[rng.permutation(order[size:])[:CANDIDATES]] if len(vectors) == len(task.known) else rng.permutation(vectors)[:CANDIDATES]
            scores = drawn.views.look(batch).novelty
            is_shifted = shift_test(drawn.calibration, scores).is_shifted
            called = bool((benjamini_hochberg(conformal_p_values(drawn.calibration, scores)) <= 0.1).any())
            held, wrong, slipped = held + is_shifted, wrong + called, slipped + (called and not is_shifted)
        print(f"{task.name:9} {name:32} called shifted {held / resamples:.2f}, something called without the test {wrong / resamples:.2f}, with it {slipped / resamples:.2f}", flush=True)


def bursts(task: Task, resamples: int, seed: int) -> None:
    """Print how often something is called in an ordinary batch that has thirty shots of one of its pictures."""
    rng = np.random.default_rng(seed)
    size = int(REFERENCE_SHARE * len(task.known))
    for spread in SPREADS:
        called = {"adaptive": 0, "knn": 0}
        fell_back = 0
        for _ in range(resamples):
            drawn = Drawn.of(task, "knn", rng.permutation(len(task.known)), size)
            n = min(CANDIDATES - SHOTS, len(drawn.candidates) - 1)
            noise = rng.normal(size=(SHOTS, task.known.shape[1]))
            shots = drawn.candidates[n] + spread * noise / np.linalg.norm(noise, axis=1, keepdims=True)
            batch = np.concatenate([drawn.candidates[:n], normalise(shots.astype(np.float32))])
            looked = drawn.views.look(batch)
            if shift_test(drawn.calibration, looked.novelty).is_shifted:
                continue
            scores, usual = drawn.together(batch, looked)
            in_bursts = shift_test(usual, scores).is_shifted
            fell_back += in_bursts
            one_by_one = bool((benjamini_hochberg(conformal_p_values(drawn.calibration, looked.novelty)) <= 0.1).any())
            called["knn"] += one_by_one
            called["adaptive"] += one_by_one if in_bursts else bool((benjamini_hochberg(conformal_p_values(usual, scores)) <= 0.1).any())
        print(
            f"{task.name:9} {SHOTS} shots about {spread**2 / (1 + spread**2):.2f} from it: something called by adaptive {called['adaptive'] / resamples:.3f}, "
            f"by knn {called['knn'] / resamples:.3f}; taken one by one {fell_back / resamples:.2f}", flush=True
        )  # fmt: skip


def auroc(ordinary: NDArray[np.floating], novel: NDArray[np.floating]) -> float:
    """Chance that a novel one is above an ordinary one, ties half."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([ordinary, novel]))[len(ordinary) :]
    return float((ranks.sum() - len(novel) * (len(novel) + 1) / 2) / (len(novel) * len(ordinary)))


def fpr95(ordinary: NDArray[np.floating], novel: NDArray[np.floating]) -> float:
    """Share of the ordinary at or above the score that 95 % of the novel reach."""
    return float((ordinary >= np.quantile(novel, 0.05)).mean())


def ranking(tasks: list[Task], peers: str, seed: int) -> None:
    """Print AUROC, FPR95 and power of every score and detector."""
    for task in tasks:
        rng = np.random.default_rng(seed)
        found: dict[str, list[tuple[float, ...]]] = {}
        size = int(REFERENCE_SHARE * len(task.known))
        for _ in range(RANKED):
            order = rng.permutation(len(task.known))
            scored: dict[str, tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]] = {}  # of held-out rows, ordinary and novel candidates
            for score in SCORES[1:]:
                drawn = Drawn.of(task, score, order, size)
                looked = drawn.views.look(np.concatenate([drawn.candidates, task.novel]))
                scored[f"ours {score}"] = drawn.calibration, *np.split(looked.novelty, [len(drawn.candidates)])
            drawn = Drawn.of(task, "knn", order, size)
            looked = drawn.views.look(np.concatenate([drawn.candidates, task.novel]))
            beside, usual = drawn.together(np.concatenate([drawn.candidates, task.novel]), looked)
            scored["ours adaptive"] = usual, *np.split(beside, [len(drawn.candidates)])
            if peers:
                with tempfile.TemporaryDirectory() as folder:
                    np.savez(f"{folder}/in.npz", references=drawn.references, asked=np.concatenate([drawn.held_out, drawn.candidates, task.novel]))
                    subprocess.run([peers, str(Path(__file__).with_name("novelty_peers.py")), folder], check=True)
                    for name, values in np.load(f"{folder}/out.npz").items():
                        scored[name] = tuple(np.split(values, [len(drawn.held_out), len(drawn.held_out) + len(drawn.candidates)]))
            powers = {name: np.zeros((BATCHES, len(SHARES))) for name in scored}
            for batch in range(BATCHES):
                for column, share in enumerate(SHARES):
                    n = min(CANDIDATES, int(len(drawn.candidates) / (1 - share)), int(len(task.novel) / share))
                    new = max(1, round(n * share))
                    old_rows, new_rows = rng.permutation(len(drawn.candidates))[: n - new], rng.permutation(len(task.novel))[:new]
                    rows = np.concatenate([old_rows, len(drawn.candidates) + new_rows])
                    for name, (calibration, ordinary, novel) in scored.items():
                        scores = np.concatenate([ordinary[old_rows], novel[new_rows]])
                        if name == "ours adaptive":  # of this batch
                            scores, calibration = drawn.together(np.concatenate([drawn.candidates[old_rows], task.novel[new_rows]]), part_of(looked, rows))
                        q = benjamini_hochberg(conformal_p_values(np.asarray(calibration, np.float32), np.asarray(scores, np.float32)))
                        powers[name][batch, column] = (q[n - new :] <= 0.1).mean()
            for name, (_, ordinary, novel) in scored.items():
                found.setdefault(name, []).append((auroc(ordinary, novel), fpr95(ordinary, novel), *powers[name].mean(axis=0)))
        for name, values in found.items():
            mean, error = np.mean(values, axis=0), np.std(values, axis=0, ddof=1) / np.sqrt(len(values))
            power = "  ".join(f"{one:.3f} ±{wide:.3f}" for one, wide in zip(mean[2:], error[2:], strict=True))
            print(f"{task.name:9} {name:17} AUROC {mean[0]:.3f} ±{error[0]:.3f}   FPR95 {mean[1]:.3f} ±{error[1]:.3f}   power {power}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, default=Path("/tmp/corpora"))
    parser.add_argument("--cache", type=Path, default=Path("/tmp/novelty-cache"))
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--scores", nargs="+", choices=SCORES, default=list(SCORES))
    parser.add_argument("--peers", default="", help="python that has pyod")
    parser.add_argument("--only", choices=("errors", "shifts", "bursts", "ranking"))
    options = parser.parse_args()
    rows, vectors, ids = read(options.corpora, options.cache)
    tasks = tasks_of(rows, vectors, ids)
    print("\n".join(f"{task.name:9} {len(task.known):5} known, {len(task.novel):4} novel" for task in tasks), flush=True)
    if options.only in (None, "ranking"):
        print(f"\nscores, mean of {RANKED} splits ± standard error; power at q = .1 with 1, 5 and 20 % novelty")
        ranking(tasks, options.peers, options.seed)
    if options.only in (None, "shifts"):
        print("\nwhole batches that moved, q = .1")
        everything, google = tasks[0], tasks[1]
        shifts(everything, {"all of it deep sky": everything.novel}, min(50, options.resamples), options.seed)
        shifts(google, {"all of it flags": google.novel}, min(50, options.resamples), options.seed)
    if options.only in (None, "bursts"):
        print("\nbursts, q = .1")
        for task in tasks:
            bursts(task, options.resamples, options.seed)
    if options.only in (None, "errors"):
        print(f"\nerrors, {options.resamples} resamples: task, score, share of novelty, guarantee, share called shifted, then for q = .05, .1, .2: FDR ± standard error, power")
        for score in options.scores:
            for task in tasks:
                errors(task, score, options.resamples, options.seed)


if __name__ == "__main__":
    main()
