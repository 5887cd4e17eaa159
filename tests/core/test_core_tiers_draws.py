"""When segments are merged, and draws that stay as they are while a population grows."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.core.draws import draw, id_array, salted_order
from discovery.core.tiers import Shape, absorbed_by, compaction, graph_sizes
from discovery.errors import InvalidInput

USUAL = {"exact_rows": 50_000, "largest": 2_000_000, "per_tier": 8, "most_dead": 0.2}


def ids(n: int, seed: str = "") -> np.ndarray:
    return id_array([hashlib.sha256(f"{seed}{number}".encode()).hexdigest() for number in range(n)])


@given(st.integers(0, 40_000_000), st.integers(10_000, 5_000_000))
def test_graphs_are_equal_whole_and_not_too_large(rows: int, largest: int) -> None:
    sizes = graph_sizes(rows, largest)
    assert sum(sizes) == rows and max(sizes) <= largest and max(sizes) - min(sizes) <= 1


@given(st.lists(st.integers(1, 3000), max_size=300))
def test_a_tail_of_batches_stays_short_and_each_row_is_written_seldom(batches: list[int]) -> None:
    tail: list[Shape] = []
    written = 0
    for fresh in batches:
        taken, is_graph = absorbed_by(tail, fresh, 10**9)
        assert not is_graph
        made = fresh + sum(tail[number].live for number in taken)
        written += made
        tail = [shape for number, shape in enumerate(tail) if number not in taken] + [Shape(made)]
    total = sum(batches)
    assert sum(shape.rows for shape in tail) == total
    doublings = np.log2(max(total, 2)) + 2
    assert len(tail) <= doublings and written <= total * doublings


def test_a_tail_that_outgrows_exact_search_becomes_a_graph() -> None:
    shapes = [Shape(300_000, 0, True), Shape(30_000), Shape(19_000, 4_000)]
    assert absorbed_by(shapes, 5_000, 50_000)[1] is False
    assert absorbed_by(shapes, 5_001, 50_000) == ([1, 2], True)


def test_nothing_is_merged_without_need() -> None:
    assert compaction([Shape(300_000, 60_000, True)] * 8 + [Shape(10)], **USUAL) == []
    assert compaction([], **USUAL) == compaction([], everything=True, **USUAL) == []
    assert compaction([Shape(100)], everything=True, **USUAL) == []


@pytest.mark.parametrize(
    ("shapes", "merges"),
    [
        ([Shape(10), Shape(300_000, 0, True), Shape(20)], [[0, 2]]),  # the tail
        ([Shape(100, 21)], [[0]]),
        ([Shape(300_000, 60_001, True), Shape(300_000, 0, True)], [[0]]),  # a worn graph
        ([Shape(300_000, 0, True)] * 9, [list(range(9))]),  # a full tier
        ([Shape(300_000, 0, True)] * 8 + [Shape(1_500_000, 0, True)] * 3, []),
        ([Shape(2_000_000, 0, True)] * 40, []),  # nothing to be gained from the largest
    ],
)
def test_what_is_merged(shapes: list[Shape], merges: list[list[int]]) -> None:
    assert compaction(shapes, **USUAL) == merges


@given(st.lists(st.tuples(st.integers(1, 2_000_000), st.floats(0, 1), st.booleans()), max_size=40), st.booleans())
def test_compaction_comes_to_rest(segments: list[tuple[int, float, bool]], everything: bool) -> None:
    shapes = [Shape(rows, int(rows * dead), graph or rows > 50_000) for rows, dead, graph in segments]
    for _ in range(12):
        merges = compaction(shapes, everything=everything, **USUAL)
        if not merges:
            break
        gone = {place for places in merges for place in places}
        assert sum(map(len, merges)) == len(gone)
        made = []
        for places in merges:
            live = sum(shapes[place].live for place in places)
            made += [Shape(size, 0, live > 50_000) for size in (graph_sizes(live, 2_000_000) if live > 50_000 else [live]) if size]
        shapes = [shape for place, shape in enumerate(shapes) if place not in gone] + made
    assert compaction(shapes, everything=everything, **USUAL) == []


def test_a_draw_is_stable_salted_and_even() -> None:
    some, more = ids(2000), np.sort(np.concatenate([ids(2000), ids(200, "later")]))
    drawn, drawn_later = set(some[draw(some, 400, "a")]), set(more[draw(more, 400, "a")])
    assert len(drawn) == 400 and len(drawn & drawn_later) > 330  # about a tenth was replaced
    other = set(some[draw(some, 400, "b")])
    assert 40 < len(drawn & other) < 130  # 80 expected
    assert (np.sort(some[draw(some, 400, "a")]) == np.sort(np.sort(some)[draw(np.sort(some), 400, "a")])).all()
    assert len(np.unique(salted_order(some, "a"))) == 2000
    assert draw(some, 9999, "a").shape == (2000,) and draw(some[:0], 5, "a").shape == (0,)


def test_other_ids_are_refused() -> None:
    for wrong in (["ab"], ["x" * 63], ["x" * 65], ["x" * 64, "y"]):
        with pytest.raises(InvalidInput, match="64 hexadecimal"):
            id_array(wrong)
