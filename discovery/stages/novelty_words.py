"""What a novelty report says in words: why nothing is called, what moved, what to look at next."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from discovery.config import NoveltyConfig
from discovery.core.conformal import ShiftTest
from discovery.core.drift import WORDS, in_words, moved
from discovery.types import NoveltyReport

MOST_MOVED = 6


def moved_words(reference: Mapping[str, NDArray[np.generic]], batch: Mapping[str, NDArray[np.generic]]) -> list[str]:
    """What the batch's columns are other in, such as `darker (brightness, PSI 1.31)`; empty where nothing is.

    Those that have everyday words come first, then the most moved: measures that say nearly the same all move together.
    """
    if not reference or not batch:
        return []
    found = sorted(moved(reference, batch), key=lambda one: one.is_number and one.name not in WORDS)  # stable
    return [f"{in_words(one)} ({one.name}, PSI {one.psi:.2f})" for one in found[:MOST_MOVED]]


def note_of(report: NoveltyReport, held_out: int, shift: ShiftTest, config: NoveltyConfig, *, is_in_bursts: bool = False) -> NoveltyReport:
    """The report with its note. held_out: rows that were, whether they were enough or not. is_in_bursts: so that `adaptive` was not used."""
    return dataclasses.replace(report, note=" ".join(_sentences(report, held_out, shift, config, is_in_bursts)))


def _sentences(report: NoveltyReport, held_out: int, shift: ShiftTest, config: NoveltyConfig, is_in_bursts: bool) -> list[str]:
    found = []
    if report.known:
        found.append(f"{report.known:,} assets of this batch are in the reference itself, so they are not compared with it.")
    if not report.reference_id:
        return ["First run: there is no reference yet, so nothing can be called novel."]
    if not report.candidates:
        return [*found, "No new assets: nothing to score."]
    if not held_out:
        return [*found, f"The reference has {report.references} assets, too few to compare with."]
    if not report.calibration_rows:
        return [*found, f"Only {held_out} calibration rows: ranked, but not called novel (novelty.min_calibration_rows)."]
    if report.shifted:
        why = (
            f"at most {shift.null_fraction_upper:.0%} of it looks like the reference (95 % confidence)"
            if shift.null_fraction_upper < 0.5
            else f"its ordinary pictures too are farther from the reference than the reference's own are (p {shift.bulk_p_value:.2g})"
        )
        direction = f" Its pictures are {'; '.join(report.moved)}." if report.moved else " No measure moved with it: the pictures show something else."
        return [*found, f"Shifted batch: {why}, so single discoveries cannot be told from the rest.{direction} Compare the sources, or take this batch into the reference."]
    if is_in_bursts:
        found.append(
            "The ordinary pictures of this batch are more alike among themselves than those of the reference are, as in bursts or at one event, "
            "so its pictures were scored one by one (knn), not beside their like (adaptive)."
        )
    if report.least_discoveries > report.candidates:
        found.append(
            f"With {report.calibration_rows:,} calibration rows and {report.candidates:,} candidates nothing can be called at q = {config.fdr:g}: "
            f"the least p-value is {report.least_p:.2g}. A larger reference, or a larger batch of what is new, is needed."
        )
    elif not report.novel:
        found.append(f"No discoveries at q = {config.fdr:g}; the ranked list is kept.")
        if report.least_discoveries > 1:
            found.append(f"It takes {report.least_discoveries:,} candidates at once that are more novel than every calibration row to call one.")
    if report.hidden:
        found.append(
            f"{report.far_out:,} references are far out themselves and may hide {report.hidden:,} discoveries. Look at them; what does not belong there, mark as junk."
        )
    return found
