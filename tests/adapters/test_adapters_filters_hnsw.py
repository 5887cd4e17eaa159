"""Filters that can only filter, and the index wrapper that refuses what hnswlib lets pass."""

import numpy as np
import pyarrow as pa
import pytest

from discovery.adapters.filters import filter_assets
from discovery.adapters.hnsw import HnswSegment, file_size
from discovery.config import IndexConfig
from discovery.core.knn import exact_knn, normalise
from discovery.errors import CorruptArtifact, InvalidInput, SpecError

ASSETS = pa.table({"asset_id": list("abcd"), "width_px": [10, 640, 800, None], "brightness": [0.1, 0.2, 0.9, 0.3], "folder": ["x", "y", "x", "it's"]})
CONFIG = IndexConfig()


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("", "abcd"),
        ("   ", "abcd"),
        ("width_px >= 640", "bc"),
        ("width_px >= 640 AND brightness < 0.3", "b"),
        ("width_px IS NULL", "d"),
        ("folder IN ('x') OR brightness BETWEEN 0.15 AND 0.25", "abc"),
        ("folder = 'it''s'", "d"),
        ("folder LIKE 'x%' -- a comment", "ac"),
        ("lower(folder) = 'x' AND NOT (width_px > 700)", "a"),
        ("false", ""),
    ],
)
def test_an_expression_keeps_the_rows_for_which_it_is_true(where, kept):
    assert "".join(filter_assets(ASSETS, where)["asset_id"].to_pylist()) == kept


@pytest.mark.parametrize(
    "where",
    [
        "1=1) UNION SELECT 1 --",
        "1=1) UNION SELECT 1 FROM assets WHERE (1=1",
        "1=1); DROP TABLE assets; --",
        "1); SELECT (1",
        "1=1) ORDER BY (1",
        "1=1) GROUP BY (1",
        "1=1) LIMIT (1",
        "asset_id IN (SELECT asset_id FROM assets)",
        "EXISTS (SELECT 1)",
        "(SELECT count(*) FROM read_csv('/etc/passwd')) > 0",
        "read_csv('/etc/passwd')",
        "'x' = (SELECT content FROM read_text('/etc/passwd'))",
        "row_number() OVER () = 1",
        "width_px = ?",
        "*",
        "COPY assets TO '/tmp/x'",
        "PRAGMA database_list",
        "width_px >=",
        "folder = 'x",
        "folder + 1",
        "nonsense(width_px)",
        "count(*) > 1",
    ],
)
def test_what_is_not_one_plain_expression_is_refused(where):
    with pytest.raises(SpecError, match="Filter"):
        filter_assets(ASSETS, where)


def test_an_unknown_column_is_answered_with_the_nearest():
    with pytest.raises(SpecError, match=r'no column "brigthness"\. Did you mean "brightness"'):
        filter_assets(ASSETS, "brigthness < 0.3")


def unit(n: int = 60, d: int = 16, seed: int = 1) -> np.ndarray:
    return normalise(np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32))


def test_a_segment_finds_what_exact_search_finds():
    vectors, queries = unit(), unit(5, seed=2)
    labels, distances = HnswSegment.build(vectors, CONFIG).query(queries, 10, 200)
    rows, exact = exact_knn(queries, vectors, 10)
    assert (labels == rows).all() and np.allclose(distances, exact, atol=1e-6)


def test_two_builds_are_equal_byte_for_byte():
    assert HnswSegment.build(unit(), CONFIG).to_bytes() == HnswSegment.build(unit(), CONFIG).to_bytes()


def test_a_segment_answers_alike_after_a_round_trip_since_ef_is_set_for_each_query():
    segment = HnswSegment.build(unit(), CONFIG)
    loaded = HnswSegment.from_bytes(segment.to_bytes(), 60, 16, CONFIG.m)
    assert (loaded.query(unit(5, seed=3), 7, 64)[0] == segment.query(unit(5, seed=3), 7, 64)[0]).all()


def test_more_neighbours_than_vectors_gives_all_of_them():
    assert HnswSegment.build(unit(3), CONFIG).query(unit(2), 10, 16)[0].shape == (2, 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 5.0])
def test_nan_and_other_norms_are_refused_in_builds_and_queries(bad):
    vectors = unit(4)
    vectors[2, 3] = bad
    with pytest.raises(InvalidInput, match="finite unit vectors"):
        HnswSegment.build(vectors, CONFIG)
    with pytest.raises(InvalidInput, match="finite unit vectors"):
        HnswSegment.build(unit(4), CONFIG).query(vectors, 1, 16)


def test_another_width_type_or_nothing_is_refused():
    segment = HnswSegment.build(unit(4), CONFIG)
    with pytest.raises(InvalidInput, match="width 16, found 8"):
        segment.query(unit(1, 8), 1, 16)
    for wrong in (unit(4).astype(np.float64), unit(4)[0], np.zeros((0, 16), np.float32)):
        with pytest.raises(InvalidInput, match="float32"):
            HnswSegment.build(wrong, CONFIG)


@pytest.mark.parametrize("cut", [0, 1, 100, 1000])
def test_truncated_bytes_are_corrupt(cut):
    data = HnswSegment.build(unit(), CONFIG).to_bytes()
    with pytest.raises(CorruptArtifact):
        HnswSegment.from_bytes(data[: cut if cut < 100 else -cut], 60, 16, CONFIG.m)


@pytest.mark.parametrize(("n", "dim", "m"), [(61, 16, 32), (60, 17, 32), (60, 16, 16), (30, 16, 32)])
def test_bytes_that_do_not_fit_their_record_are_corrupt(n, dim, m):
    with pytest.raises(CorruptArtifact):
        HnswSegment.from_bytes(HnswSegment.build(unit(), CONFIG).to_bytes(), n, dim, m)


@pytest.mark.parametrize("n", [1, 2, 500])
def test_a_file_has_the_size_that_was_foreseen(n):
    low, high = file_size(n, 16, CONFIG.m)
    assert low <= len(HnswSegment.build(unit(n), CONFIG).to_bytes()) <= high
