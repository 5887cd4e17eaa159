"""A plain list, without pictures: members.csv, which every export has, and the same as JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from discovery.adapters.exports.format import Format
from discovery.core.export_plan import ExportPlan, Made

MEMBERS = "members.csv"
COLUMNS = {  # and what each is, in the words of core.croissant
    "asset_id": "text", "split": "text", "label": "text", "file": "text", "sha256": "text", "size_bytes": "whole", "width_px": "whole", "height_px": "whole",
    "format": "text", "source_uri": "text", "reason": "text",
}  # fmt: skip


def rows(plan: ExportPlan, made: Sequence[Made]) -> Iterator[dict[str, Any]]:
    """A row a member, in the plan's order."""
    for example, found in zip(plan.examples, made, strict=True):
        facts = {name: getattr(example, name) for name in ("asset_id", "split", "label", "width_px", "height_px", "format", "source_uri", "reason")}
        facts |= {"file": found.file, "sha256": found.sha256, "size_bytes": found.size_bytes}
        yield {name: facts[name] for name in COLUMNS}


def members_csv(plan: ExportPlan, made: Sequence[Made]) -> bytes:
    """RFC 4180, UTF-8, lines end with a line feed."""
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(plan, made))
    return sink.getvalue().encode(errors="replace")


def read_members(data: bytes) -> list[Made]:
    """What became of each example, from members.csv."""
    return [Made(row["file"], row["sha256"], int(row["size_bytes"])) for row in csv.DictReader(io.StringIO(data.decode(), newline=""))]


def describe(plan: ExportPlan, made: Sequence[Made]) -> Iterator[tuple[str, bytes]]:
    """The rows as JSON, one a line."""
    yield "members.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows(plan, made)).encode()


LIST = Format("list", "members.csv and members.jsonl, no pictures", describe)
