"""Windows cover a grid, pooled means are means, and the nearest region is the one that a plain loop finds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.core import regions
from discovery.core.knn import normalise
from discovery.core.regions import SIDE, boxes, joined, nearest_region, pool, windows
from discovery.errors import InvalidInput


@given(rows=st.integers(1, 30), columns=st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_windows_cover_every_cell_and_stay_inside_and_differ(rows, columns):
    found = windows(rows, columns)
    seen = np.zeros((rows, columns), int)
    for top, left, bottom, right in found:
        assert 0 <= top < bottom <= rows and 0 <= left < right <= columns
        assert (bottom - top, right - left) == (min(SIDE, rows), min(SIDE, columns))
        seen[top:bottom, left:right] += 1
    assert seen.min() >= 1 and len({tuple(row) for row in found.tolist()}) == len(found)


def test_a_square_of_14_cells_has_49_windows_and_3_by_2_has_28():
    assert len(windows(14, 14)) == 49 and len(windows(9, 14)) == 28 and len(windows(1, 1)) == 1


def test_boxes_are_the_windows_in_pixels():
    assert boxes(5, 3, 300, 1000).tolist() == [[0, 0, 300, 600], [0, 400, 300, 600]]
    assert boxes(1, 1, 7, 9).tolist() == [[0, 0, 7, 9]]


def test_pooled_cells_are_the_means_of_their_windows():
    cells = np.random.default_rng(1).normal(size=(9, 14, 5)).astype(np.float32)
    places = windows(9, 14)
    expected = [cells[top:bottom, left:right].mean(axis=(0, 1)) for top, left, bottom, right in places]
    assert pool(cells, places) == pytest.approx(np.array(expected), abs=1e-5)


def test_the_cosine_of_joined_rows_is_the_mean_of_the_cosines_of_their_parts():
    rng = np.random.default_rng(2)
    small, large = rng.normal(size=(4, 6)).astype(np.float32), 100 * rng.normal(size=(4, 3)).astype(np.float32)
    whole = joined([small, large])
    expected = (normalise(small) @ normalise(small).T + normalise(large) @ normalise(large).T) / 2
    assert whole @ whole.T == pytest.approx(expected, abs=1e-6)
    assert np.linalg.norm(joined([np.zeros((2, 3), np.float32), small[:2]]), axis=1) == pytest.approx(1, abs=1e-6)
    assert np.linalg.norm(joined([np.zeros((2, 3), np.float32)]), axis=1) == pytest.approx(1, abs=1e-6)


@given(seed=st.integers(0, 1000), counts=st.lists(st.integers(1, 7), max_size=12), block=st.sampled_from([1, 5, 8192]))
@settings(max_examples=60, deadline=None)
def test_the_nearest_region_is_that_of_a_plain_loop_whatever_the_blocks(seed, counts, block):
    rng = np.random.default_rng(seed)
    vectors = normalise(rng.normal(size=(sum(counts), 4)).astype(np.float32)) if counts else np.zeros((0, 4), np.float32)
    query = normalise(rng.normal(size=(1, 4)).astype(np.float32))[0]
    before, regions.BLOCK = regions.BLOCK, block
    try:
        distances, places = nearest_region(query, vectors.astype(np.float16), np.array(counts, np.int64))
    finally:
        regions.BLOCK = before
    start = 0
    for number, count in enumerate(counts):
        plain = 1 - vectors[start : start + count] @ query
        assert distances[number] == pytest.approx(plain.min(), abs=2e-3)
        assert plain[places[number]] <= plain.min() + 2e-3
        start += count
    assert distances.shape == places.shape == (len(counts),) and ((distances >= 0) & (distances <= 2)).all()


def test_of_equally_near_regions_the_first_is_told():
    distances, places = nearest_region(np.array([1, 0], np.float32), np.array([[0, 1], [1, 0], [1, 0]], np.float16), np.array([3]))
    assert (distances.tolist(), places.tolist()) == ([0.0], [1])


def test_what_does_not_fit_is_refused():
    vectors = np.ones((3, 2), np.float32)
    for call in (
        lambda: windows(0, 4),
        lambda: pool(np.zeros((2, 2, 3), np.float32), np.array([[0, 0, 3, 1]])),
        lambda: pool(np.zeros((2, 3), np.float32), np.array([[0, 0, 1, 1]])),
        lambda: nearest_region(np.ones(2, np.float32), vectors, np.array([2])),
        lambda: nearest_region(np.ones(2, np.float32), vectors, np.array([3, 0])),
        lambda: nearest_region(np.ones(3, np.float32), vectors, np.array([3])),
    ):
        with pytest.raises(InvalidInput):
            call()
