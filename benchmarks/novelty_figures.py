"""The figures of docs/novelty.md, from real pictures: photographs as the novelty among the emoji of one vendor, which is an easy case.

    python -m benchmarks.novelty_figures          with the vectors that novelty_quality keeps; writes docs/images/novelty-*.svg, and prints what they say
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.novelty_quality import REFERENCE_SHARE, Drawn, Task, read
from discovery.core.conformal import benjamini_hochberg, conformal_p_values, shift_test

IMAGES = Path(__file__).parents[1] / "docs" / "images"
ORDINARY, NEW, LEVEL, SEED = 475, 25, 0.1, 7
KNOWN, USUAL, NOVEL, ALARM = "#8a97a8", "#2b5ca6", "#d9771f", "#b02a1f"


def style() -> None:
    """Plain axes, and the same file every time."""
    plt.rcParams.update({
        "svg.hashsalt": "novelty", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "figure.facecolor": "white", "svg.fonttype": "path",
    })  # fmt: skip


def save(figure: plt.Figure, name: str) -> None:
    """Without a date in it."""
    figure.savefig(IMAGES / name, bbox_inches="tight", metadata={"Date": None})


def main() -> None:
    """Draw and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, default=Path("/tmp/corpora"))
    parser.add_argument("--cache", type=Path, default=Path("/tmp/novelty-cache"))
    options = parser.parse_args()
    style()
    rows, vectors, ids = read(options.corpora, options.cache)
    emoji = np.array(["google" in row["path"] for row in rows])
    photos = np.array([row["source"] == "gcompris" for row in rows])
    task = Task("photos", vectors[emoji], ids[emoji], vectors[photos])
    rng = np.random.default_rng(SEED)
    drawn = Drawn.of(task, "knn", rng.permutation(len(task.known)), int(REFERENCE_SHARE * len(task.known)))
    usual = drawn.views.look(drawn.candidates[:ORDINARY]).novelty
    new_ones = drawn.views.look(task.novel[rng.permutation(len(task.novel))[:100]]).novelty
    new = new_ones[:NEW]
    scores = np.concatenate([usual, new])
    p = conformal_p_values(drawn.calibration, scores)
    called = benjamini_hochberg(p) <= LEVEL
    cut = np.quantile(drawn.calibration, 0.95)
    alarms = scores > cut
    is_new = np.arange(len(scores)) >= len(usual)
    print(f"{len(usual)} ordinary and {len(new)} new candidates, {len(drawn.calibration)} calibration rows")
    print(f"95th percentile: {alarms.sum()} alarms, {int((alarms & ~is_new).sum())} of them false; at q = {LEVEL}: {called.sum()} called, {int((called & ~is_new).sum())} of them false")

    figure, axes = plt.subplots(figsize=(8, 3.1))
    bins = np.linspace(0, float(scores.max()) * 1.02, 45)
    axes.hist(drawn.calibration, bins, weights=np.full(len(drawn.calibration), len(usual) / len(drawn.calibration)), color=KNOWN, alpha=0.45, label="calibration rows (known, held out)")
    axes.hist(usual, bins, histtype="step", color=USUAL, lw=1.6, label=f"{len(usual)} ordinary candidates")
    axes.plot(new, np.full(len(new), 1.5), "v", color=NOVEL, ms=8, label=f"{len(new)} new ones (photographs)")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.45)
    axes.axvline(cut, color=ALARM, ls=":", lw=1.4)
    axes.text(cut, axes.get_ylim()[1] * 0.96, f" 95th percentile: {alarms.sum()} alarms,\n {int((alarms & ~is_new).sum())} of them false", color=ALARM, va="top", fontsize=9)
    if called.any():
        axes.axvline(scores[called].min(), color=NOVEL, ls="--", lw=1.4)
        axes.text(scores[called].min(), axes.get_ylim()[1] * 0.55, f" FDR {LEVEL}: {called.sum()} called,\n {int((called & ~is_new).sum())} of them false", color=NOVEL, va="top", fontsize=9)
    axes.set(xlabel="novelty (mean cosine distance to the 5 nearest references)", ylabel="pictures")
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    save(figure, "novelty-scores.svg")

    mixed = np.concatenate([usual[: len(usual) - 45], new_ones[:45]])
    far = drawn.views.look(task.novel[rng.permutation(len(task.novel))[:400]]).novelty
    cases = [("an ordinary batch", usual), ("with a tenth that is new", mixed), ("another kind as a whole", far)]
    figure, row = plt.subplots(1, 3, figsize=(8, 2.4), sharex=True)
    for axes, (name, batch) in zip(row, cases, strict=True):
        values = conformal_p_values(drawn.calibration, batch)
        shift = shift_test(drawn.calibration, batch)
        found = int((benjamini_hochberg(values) <= LEVEL).sum())
        axes.hist(values, np.linspace(0, 1, 21), color=USUAL if not shift.is_shifted else ALARM)
        axes.set(title=name, xlabel="p-value")
        axes.title.set_fontsize(10)
        axes.set_ylim(0, axes.get_ylim()[1] * 1.25)
        verdict = "shifted: none is called" if shift.is_shifted else f"{found} called at q = {LEVEL}"
        axes.text(0.97, 0.95, verdict, transform=axes.transAxes, ha="right", va="top", fontsize=9)
        print(f"{name}: {verdict}; {found} would be called without the test")
    row[0].set_ylabel("pictures")
    figure.tight_layout()
    save(figure, "novelty-p-values.svg")


if __name__ == "__main__":
    main()
