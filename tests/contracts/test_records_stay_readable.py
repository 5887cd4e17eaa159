"""A store outlives the code that made it: records that were once written can still be read.

`record_fields.json` lists the fields of each record that every store may hold. A field that comes later needs a default, since what is in a store lacks it; a
field that is listed is never taken away, since what is in a store has it. Add to the list only fields that are in all records ever written.
"""

import dataclasses
import json
from pathlib import Path

import pytest

from discovery import types
from discovery.types import NoveltyReport, Record

LISTED: dict[str, list[str]] = json.loads(Path(__file__).with_name("record_fields.json").read_text())
KINDS = [kind for kind in vars(types).values() if isinstance(kind, type) and issubclass(kind, Record) and kind is not Record]
COMMON = {field.name for field in dataclasses.fields(Record)}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_later_fields_have_a_default_and_listed_ones_stay(kind):
    listed, fields = set(LISTED[kind.__name__]), dataclasses.fields(kind)
    required = {field.name for field in fields if field.default is field.default_factory is dataclasses.MISSING} - COMMON
    assert required <= listed, "a record in a store has no such field: give it a default"
    assert listed <= {field.name for field in fields}, "a record in a store has this field"


def test_a_novelty_report_from_before_there_were_views_is_one_by_k_nearest():
    new = NoveltyReport(
        id="a" * 64, inputs=(), created_at="2026-01-01T00:00:00Z", files=(), manifest_id="m", encoder_id="e", reference_id="", candidates=1, references=0,
        calibration_rows=0, fdr=0.1, novel=0, shifted=False, note="", score="density",
    )  # fmt: skip
    assert NoveltyReport.from_dict(new.to_dict()) == new
    old = {name: value for name, value in new.to_dict().items() if name != "score"}
    assert NoveltyReport.from_dict(old).score == "knn"
