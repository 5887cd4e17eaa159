"""What a drift report found, in sentences."""

from __future__ import annotations

from discovery.core.drift import ColumnDrift, in_words
from discovery.types import DriftReport, SetSide

HARDLY, CLEARLY = 0.55, 0.7  # AUC under which two sets are hardly told apart, and from which on they are clearly
MOST_NAMED = 5
ROUNDING = 1.0001


def verdict(report: DriftReport) -> str:
    """One sentence: whether b differs from a."""
    if report.p_value is None or report.auc is None:
        return "A and B are too small to be told apart by their vectors."
    if not report.is_drifted:
        return "No difference between A and B was found."
    if (report.auc_low or 0) < HARDLY and report.auc < HARDLY:
        return "B differs from A, but hardly: the difference is real and small."
    return "B clearly differs from A." if report.auc >= CLEARLY else "B differs somewhat from A."


def told_apart(report: DriftReport, floor: float) -> str:
    """The classifier's figure, with its interval and p-value; the note where there is none. floor: the lowest p-value there is."""
    if report.p_value is None or report.auc is None or report.auc_low is None or report.auc_high is None or not report.compared_a:
        return report.note
    if report.auc_low == report.auc_high:
        return report.note
    said = (
        f"Shown one picture of each, neither seen before, a classifier tells which is B's {percent(report.auc)} of the time "
        f"(interval {percent(report.auc_low)} to {percent(report.auc_high)}; guessing is 50 %). "
        f"Sets of one kind would differ so much in {'at most ' if report.p_value <= floor * ROUNDING else ''}{percent(report.p_value)} of cases "
        f"({p_text(report.p_value, floor)}; {report.compared_a:,} and {report.compared_b:,} pictures were compared)."
    )
    return f"{said} {report.note}".strip()


def moved_sentence(columns: tuple[ColumnDrift, ...]) -> str:
    """Which measures moved, the most moved first, then what the sets are made of."""
    measures = [one for one in columns if one.is_moved and one.is_number]
    made_of = [one for one in columns if one.is_moved and not one.is_number]
    if not measures and not made_of:
        return "No measure moved, and neither did what EXIF and lists say." if columns else ""
    said = []
    if measures:
        named = ", ".join(f"{in_words(one)} ({plain(one.name)}: PSI {one.psi:.2f})" for one in measures[:MOST_NAMED])
        said.append(f"Compared with A, B is mostly {named}{_and_more(len(measures))}.")
    if made_of:
        named = "; ".join(f"{plain(one.name)}, {in_words(one)}" for one in made_of[:MOST_NAMED])
        said.append(f"It is made up differently: {named}{_and_more(len(made_of))}.")
    return " ".join(said)


def lacking_sentence(side: SetSide, name: str, other: str) -> str:
    """How much of one set has nothing like it in the other."""
    if not side.asked:
        return f"{other} is too small to say what of {name} it lacks."
    if not side.lacking:
        return f"Every picture of {name} has one like it in {other}."
    share = side.lacking / side.asked
    said = f"{side.lacking:,} of {name}'s {side.asked:,} pictures ({percent(share)}) have nothing like them in {other}, in {counted(side.themes, 'theme')}"
    chance = f"about {percent(side.by_chance)} would be by chance"
    return f"{said}; {chance}." if side.is_more_than_chance else f"{said}; that is not more than chance ({chance})."


def plain(name: str) -> str:
    """A column's name for people: `width_px` is `width (px)`."""
    for ending in ("_px", "_bytes", "_s", "_mm"):
        if name.endswith(ending):
            return f"{plain(name.removesuffix(ending))} ({ending[1:]})"
    return name.replace("_", " ")


def counted(count: int, noun: str) -> str:
    """`1 theme`, `3 themes`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def percent(share: float) -> str:
    """In whole percent, with one digit near the ends.

    >>> percent(0.714), percent(0.003), percent(0.99), percent(1.0)
    ('71 %', '0.3 %', '99 %', '100 %')
    """
    digits = 0 if share in (0, 1) or 0.0095 < share < 0.985 or round(100 * share, 1) == round(100 * share) else 1
    return f"{100 * share:.{digits}f} %"


def p_text(p_value: float, floor: float) -> str:
    """A p-value; at the floor of a permutation test it is an upper bound."""
    return f"p ≤ {p_value:.3g}" if p_value <= floor * ROUNDING else f"p = {p_value:.2g}"


def _and_more(count: int) -> str:
    return f" and {count - MOST_NAMED} more" if count > MOST_NAMED else ""
