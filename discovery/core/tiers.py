"""When segments of an index are merged: a log-structured tail of exactly searched rows, and tiers of graphs above it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SPLIT_ROWS = 250_000  # a large batch becomes up to SPLITS graphs of at least this many rows, which are built at once
SPLITS = 4  # random shards cost no more at recall .99 than one graph; 16 cost twice as much (ALGORITHMS section 1)
TIER_FACTOR = 4  # rows of a tier's graphs lie within this factor


@dataclass(frozen=True, slots=True)
class Shape:
    """One segment: rows it holds, how many of them are dead (tombstones), and whether it has a graph or is searched exactly."""

    rows: int
    dead: int = 0
    has_graph: bool = False

    @property
    def live(self) -> int:
        """Rows that can be found."""
        return self.rows - self.dead


def graph_sizes(rows: int, largest: int) -> list[int]:
    """Into how many graphs of which sizes so many rows are cut, as equal as may be; none above `largest`.

    >>> graph_sizes(200_000, 2_000_000), graph_sizes(1_000_000, 2_000_000), graph_sizes(9_000_000, 2_000_000)
    ([200000], [250000, 250000, 250000, 250000], [1800000, 1800000, 1800000, 1800000, 1800000])
    """
    count = max(1, min(SPLITS, rows // SPLIT_ROWS), -(-rows // largest))
    return [rows * (number + 1) // count - rows * number // count for number in range(count)]


def absorbed_by(shapes: Sequence[Shape], fresh: int, exact_rows: int) -> tuple[list[int], bool]:
    """Which exactly searched segments a batch of `fresh` rows is merged with, and whether the outcome becomes a graph.

    When the tail with the batch holds more than `exact_rows` live rows, all of it becomes a graph. Else the batch takes in those that are not larger
    than itself, smallest first and growing with each, so that a row is written again only as often as its segment doubles: the tail has at most about
    log2(exact_rows) segments.

    >>> absorbed_by([Shape(400), Shape(30), Shape(20)], 10, 50_000)
    ([], False)
    >>> absorbed_by([Shape(400), Shape(30), Shape(20)], 25, 50_000)
    ([1, 2], False)
    """
    tail = [number for number, shape in enumerate(shapes) if not shape.has_graph]
    if fresh + sum(shapes[number].live for number in tail) > exact_rows:
        return tail, True
    taken: list[int] = []
    total = fresh
    for number in sorted(tail, key=lambda number: (shapes[number].live, number)):
        if shapes[number].live > total:
            break
        taken.append(number)
        total += shapes[number].live
    return sorted(taken), False


def compaction(
    shapes: Sequence[Shape], *, exact_rows: int, largest: int, per_tier: int, most_dead: float, everything: bool = False
) -> list[list[int]]:
    """Which segments are merged with which: lists of their places, each list to become new segments of at most `largest` rows.

    Merged are the exactly searched segments (also a single one with too many dead rows, or too many rows); a graph of whose rows more than
    `most_dead` are dead, alone; and all graphs of a tier that has more than `per_tier`. everything: all segments into one list,
    unless that would give back what there is.
    """
    if everything:
        is_done = len(shapes) < 2 and not any(shape.dead for shape in shapes)
        sizes = graph_sizes(sum(shape.live for shape in shapes), largest)
        is_done = is_done or (
            sorted(shape.rows for shape in shapes) == sorted(sizes) and all(shape.has_graph and not shape.dead for shape in shapes)
        )
        return [] if is_done else [list(range(len(shapes)))]
    merges: list[list[int]] = []
    tail = [number for number, shape in enumerate(shapes) if not shape.has_graph]
    rows = sum(shapes[number].live for number in tail)
    if len(tail) > 1 or rows > exact_rows or any(_is_worn(shapes[number], most_dead) for number in tail):
        merges.append(tail)
    tiers: dict[int, list[int]] = {}
    for number, shape in enumerate(shapes):
        if shape.has_graph:
            tiers.setdefault(_tier(shape.live, largest), []).append(number)
    for tier in sorted(tiers):
        if len(tiers[tier]) > per_tier and tier > 0:  # tier 0 is full: merging it would give as many again
            merges.append(tiers[tier])
        else:
            merges += [[number] for number in tiers[tier] if _is_worn(shapes[number], most_dead)]
    return merges


def _is_worn(shape: Shape, most_dead: float) -> bool:
    return shape.dead > most_dead * shape.rows


def _tier(rows: int, largest: int) -> int:
    """0 for more than half of the largest size, then 1, 2, … for each factor below it."""
    tier, edge = 0, largest / 2
    while rows <= edge and edge >= 1:
        tier, edge = tier + 1, edge / TIER_FACTOR
    return tier
