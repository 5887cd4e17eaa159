"""A plain list, without pictures: members.csv, which every export has, and the same as JSON lines."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from discovery.adapters.exports.format import Descriptions, Format
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
    """RFC 4180, UTF-8, lines end with a line feed. By hand: csv of Python 3.11 does not quote a lone carriage return, at which every reader ends a line."""
    lines = [COLUMNS, *(row.values() for row in rows(plan, made))]
    return "".join(f"{','.join(map(_quoted, line))}\n" for line in lines).encode(errors="replace")


def _quoted(value: object) -> str:
    text = "" if value is None else str(value)
    return f'"{text.replace(chr(34), chr(34) * 2)}"' if re.search('[,"\r\n]', text) else text


def read_members(data: bytes, plan: ExportPlan) -> list[Made]:
    """What became of each example, from members.csv. Raises ValueError when it is not the plan's."""
    try:
        found = list(csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True))
    except csv.Error as error:
        raise ValueError(f"{MEMBERS} is no CSV: {error}") from error
    if [row.get("asset_id") for row in found] != [example.asset_id for example in plan.examples] or any(set(row) != set(COLUMNS) for row in found):
        raise ValueError(f"{MEMBERS} does not have the {len(plan.examples)} members of {plan.version}, one a row")
    return [Made(row["file"], row["sha256"], int(row["size_bytes"])) for row in found]


def describe(plan: ExportPlan, made: Sequence[Made]) -> Descriptions:
    """The rows as JSON, one a line."""
    yield "members.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows(plan, made)).encode()


LIST = Format("list", "members.csv and members.jsonl, no pictures", describe, lambda plan: ("members.jsonl",), split_name=None)
