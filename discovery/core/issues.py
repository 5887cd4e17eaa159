"""What may be wrong with a picture, told from its measures: for each issue a score, 1 is good, and the threshold under which it is flagged.

Adding an issue is a score function and an entry in ISSUES. Thresholds marked PLANTED were chosen by benchmarks/quality_issues.py on faults planted in one
half of its photographs, at the best F1; the figures of docs/decisions/0019 are those of the other half.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from discovery.errors import InvalidInput

Values = NDArray[np.float64]  # (n,)
Columns = Mapping[str, Values]  # a measure, width_px or height_px: (n,) float64, one value a picture of a batch

PLANTED = "benchmarks/quality_issues.py, half 'choose'"
GREY_CHROMA = 0.005  # mean difference of channels that JPEG's rounding and one odd pixel in a hundred may make
SIZE_FACTOR, SIZE_SPREAD = 2.2, 1.5  # odd_size: the least factor that a side must differ by, and the least in interquartile ranges


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing that may be wrong. `score` takes the columns it `reads` and returns (n,) in [0, 1]; a score under `threshold`, or NaN, is flagged.

    source: where the threshold is from. meaning: what a flagged picture is, in words. is_relative: the score depends on the other pictures of
    the batch, so that it is not one of the picture alone.
    """

    name: str
    reads: tuple[str, ...]
    score: Callable[[Columns], Values]
    threshold: float
    source: str
    meaning: str
    is_relative: bool = False


@dataclass(frozen=True, slots=True)
class FoundIssues:
    """For each issue, in the order of ISSUES: (n,) float64 scores in [0, 1] and (n,) bool flags."""

    scores: dict[str, Values]
    flags: dict[str, NDArray[np.bool_]]


def find_issues(columns: Columns) -> FoundIssues:
    """Score and flag every picture of a batch for every issue. Raises InvalidInput when a column is missing.

    columns: what the issues read; others are ignored. A NaN flags its picture: what could not be measured is not good.

    >>> columns = {name: np.zeros(2) for issue in ISSUES.values() for name in issue.reads}
    >>> found = find_issues({**columns, "width_px": np.array([400.0, 4000.0]), "height_px": np.array([300.0, 300.0])})
    >>> found.flags["odd_aspect"].tolist(), found.scores["odd_aspect"].round(3).tolist()
    ([False, True], [0.75, 0.075])
    """
    scores, flags = {}, {}
    for issue in ISSUES.values():
        if missing := [name for name in issue.reads if name not in columns]:
            raise InvalidInput(f"Issue {issue.name} reads {', '.join(missing)}, which the table lacks. Measure the pictures again: discovery check.")
        score = np.asarray(issue.score(columns), np.float64)
        scores[issue.name] = score
        flags[issue.name] = ~(score >= issue.threshold)
    return FoundIssues(scores, flags)


def dark_score(columns: Columns) -> Values:
    """The tone that 99 % of the picture does not exceed, or half as much again as that of 95 %, when that is less: then there is a lamp."""
    return np.asarray(np.clip(np.minimum(columns["bright_tone"], 1.5 * columns["lit_tone"]), 0.0, 1.0))


def bright_score(columns: Columns) -> Values:
    """1 less half of what is blown, where blown in one or two channels counts three times: paper and snow are white in all three at once."""
    blown, white = columns["blown_fraction"], columns["white_fraction"]
    return np.asarray(1.0 - np.clip(blown + 2.0 * (blown - white), 0.0, 2.0) / 2.0)


def clipped_score(columns: Columns) -> Values:
    """The share of the picture that is clipped at neither end."""
    return np.asarray(1.0 - np.clip(columns["crushed_fraction"] + columns["white_fraction"], 0.0, 1.0))


def low_contrast_score(columns: Columns) -> Values:
    """Standard deviation of luma, of the largest there is."""
    return np.asarray(np.clip(columns["contrast"] * 2.0, 0.0, 1.0))


def blurry_score(columns: Columns) -> Values:
    """What a second blur takes away."""
    return np.asarray(1.0 - columns["blur"])


def noisy_score(columns: Columns) -> Values:
    """1 less a tenth of the noise (of 255) when the colours have it too, or the picture has none."""
    is_sensor = (columns["colour_noise"] >= 0.25) | (columns["chroma"] < GREY_CHROMA) | np.isnan(columns["colour_noise"])
    return np.asarray(np.where(is_sensor, 1.0 - np.clip(columns["noise"] / 10.0, 0.0, 1.0), 1.0))


def blocky_score(columns: Columns) -> Values:
    """1 at no step on the grid, 0 at steps half as large again."""
    return np.asarray(1.0 - np.clip(columns["blockiness"] * 2.0, 0.0, 1.0))


def low_information_score(columns: Columns) -> Values:
    """The share of the picture in which there is something to see."""
    return columns["detail"]


def grey_score(columns: Columns) -> Values:
    """Colour, of a twentieth of the scale."""
    return np.asarray(np.clip(columns["chroma"] * 20.0, 0.0, 1.0))


def bordered_score(columns: Columns) -> Values:
    """The share of the picture that is no frame."""
    return np.asarray(1.0 - columns["border"])


def screenshot_score(columns: Columns) -> Values:
    """1 less the sharpness of edges, where some of them lie between flat areas."""
    return np.asarray(np.where(columns["drawn_edges"] > 0.0, 1.0 - columns["edge_step"], 1.0) + 0.0 * columns["drawn_edges"])


def odd_aspect_score(columns: Columns) -> Values:
    """The shorter side, of the longer."""
    width, height = columns["width_px"], columns["height_px"]
    return np.asarray(np.minimum(width, height) / np.maximum(np.maximum(width, height), 1.0))


def odd_size_score(columns: Columns) -> Values:
    """How near the side of a square of equal area is to the batch's median: 1 at it, .5 where it becomes odd, towards 0.

    Sides are compared by their ratio, so that half and double are as odd. It becomes odd at 1.5 interquartile ranges of the logarithms, and at a
    factor of 2.2 at least, since in a batch of one size every other would be.
    """
    side = np.log(np.maximum(columns["width_px"] * columns["height_px"], 1.0)) / 2.0
    if not len(side):
        return side
    low, middle, high = np.nanquantile(side, [0.25, 0.5, 0.75]) if not np.isnan(side).all() else (0.0, 0.0, 0.0)
    far = max(float(np.log(SIZE_FACTOR)), SIZE_SPREAD * float(high - low))
    return np.asarray(0.5 ** (np.abs(side - middle) / far))


ISSUES: dict[str, Issue] = {
    issue.name: issue
    for issue in (
        Issue("dark", ("bright_tone", "lit_tone"), dark_score, 0.40, PLANTED, "underexposed by three stops or more, but for a lamp"),
        Issue("bright", ("blown_fraction", "white_fraction"), bright_score, 0.505, PLANTED, "overexposed: highlights are blown, one channel before another"),
        Issue("clipped", ("crushed_fraction", "white_fraction"), clipped_score, 0.5, "a plain majority", "half of it is pure black or pure white"),
        Issue("low_contrast", ("contrast",), low_contrast_score, 0.08, PLANTED, "grey in grey: fog, a lens cap, a faded scan"),
        Issue("blank", ("contrast",), low_contrast_score, 0.02, "check.min_contrast: under 2.6 of 255 no eye sees a thing", "one flat colour"),
        Issue("low_information", ("detail",), low_information_score, 0.14, PLANTED, "almost nothing in it: a plain page, a placeholder, a wall"),
        Issue("blurry", ("blur",), blurry_score, 0.551, PLANTED, "out of focus or shaken, visible at 512 px"),
        Issue("noisy", ("chroma", "colour_noise", "noise"), noisy_score, 0.60, PLANTED, "grain of a sensor in its flattest parts, at the original scale"),
        Issue("blocky", ("blockiness",), blocky_score, 0.82, PLANTED, "the squares of JPEG show, at the original scale"),
        Issue("grey", ("chroma",), grey_score, GREY_CHROMA * 20.0, "JPEG's rounding, see GREY_CHROMA", "no colour"),
        Issue("bordered", ("border",), bordered_score, 0.99, PLANTED, "bars or a frame in one tone"),
        Issue("screenshot", ("drawn_edges", "edge_step"), screenshot_score, 0.224, PLANTED, "drawn by a program: windows, letters, diagrams"),
        Issue("odd_aspect", ("height_px", "width_px"), odd_aspect_score, 0.3, "panoramas of 3:1 are common, strips beyond are not", "a strip"),
        Issue(
            "odd_size", ("height_px", "width_px"), odd_size_score, 0.5, PLANTED, "far smaller or larger than its batch", is_relative=True
        ),
    )
}  # fmt: skip
