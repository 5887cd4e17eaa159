"""Filters that can only filter."""

import pyarrow as pa
import pytest

from discovery.adapters.filters import filter_assets
from discovery.errors import SpecError

ASSETS = pa.table({"asset_id": list("abcd"), "width_px": [10, 640, 800, None], "brightness": [0.1, 0.2, 0.9, 0.3], "folder": ["x", "y", "x", "it's"]})


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
