"""The page of a collection check: verdicts, splits and classes, and the pictures that the checks point at, in one file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from discovery.core.collection_expectations import NUMBERS
from discovery.core.expectations import Outcome
from discovery.gallery import Tile
from discovery.quality_page import bars_html, pairs_html, quality_html, table_html, text_html, tiles_html
from discovery.stages.label_findings import LabelFindings
from discovery.types import DatasetVersion
from discovery.workspace import Workspace

PAIRS_SHOWN, SINGLES_SHOWN = 30, 24
TOLD_IN_PAIRS = {
    "leaked": "Copies in two splits",
    "held_out": "In a version that it must not leak into",
    "copy": "Copies within",
    "close": "Closest across splits",
    "mislabel": "Likely mislabels, the surest first, each with its nearest of the other label",
    "far": "Candidates farthest from any member",
}
TOLD_ALONE = {
    "contradiction": "Listed with several labels",
    "lost_from_parent": "Members of the parent that were lost",
    "let_go_from_parent": "Members of the parent that the spec took out",
    "moved_from_parent": "Members of the parent in another split",
    "bytes": "Bytes lost or changed",
    "thumbnails": "Thumbnails lost",
    "measures": "Measures that are not reproduced",
    "vectors": "Vectors that are not reproduced",
    "expectation": "Members that miss an expectation",
}


def collection_html(
    version: DatasetVersion, members: pa.Table, outcomes: Sequence[Outcome], numbers: Mapping[str, float], notes: Sequence[str], points: pa.Table,
    labels: LabelFindings | None, ws: Workspace,
) -> str:  # fmt: skip
    """The self-contained page. points: of schemas.FINDINGS, in the order in which they are shown."""
    uris = dict(zip(members["asset_id"].to_pylist(), members["source_uri"].to_pylist(), strict=True))
    splits = ", ".join(f"{name} {count:,}" for name, count in version.splits.items())
    lead = f"{version.assets:,} members of {version.candidates:,} candidates ({splits}). Digest {version.digest[:16]}…, index {version.snapshot_id[:12]}…. {' '.join(notes)}"
    sections = [("Numbers", table_html(("number", "value", "what it is"), [(name, _number(numbers[name]), NUMBERS[name].replace("`", "")) for name in NUMBERS if name in numbers]))]
    if labels is not None:
        sections += _label_sections(labels, members)
    rows = points.to_pylist()
    for kind, heading in {**TOLD_IN_PAIRS, **TOLD_ALONE}.items():
        found = [row for row in rows if row["kind"] == kind]
        if not found:
            continue
        limit = PAIRS_SHOWN if kind in TOLD_IN_PAIRS else SINGLES_SHOWN
        shown = f"{len(found):,}" + (f", the first {limit}" if len(found) > limit else "")
        if kind in TOLD_IN_PAIRS:
            html = pairs_html([(_tile(row, "asset_id", uris, ws), _tile(row, "other_id", uris, ws)) for row in found[:limit]])
        else:
            html = tiles_html([_tile(row, "asset_id", uris, ws) for row in found[:limit]])
        sections.append((f"{heading} ({shown})", html))
    return quality_html(f"Collection check {version.name}", lead, outcomes, sections)


def _number(value: float) -> int | float:
    return int(value) if value.is_integer() else value


def _label_sections(labels: LabelFindings, members: pa.Table) -> list[tuple[str, str]]:
    splits = list(dict.fromkeys(members["split"].to_pylist()))
    held = Counter(zip(labels.labels, members["split"].to_pylist(), strict=True))
    counts = labels.balance.counts
    by_split = [(name, count, *(held[name, split] for split in splits)) for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    balance = (
        f"{len(counts):,} classes, as diverse as {labels.balance.effective:.1f} equal ones; the largest has {labels.balance.imbalance:.3g} times "
        f"the members of the smallest. {labels.unlabelled:,} members have no label."
    )
    leaks = [(leak.column, leak.accuracy, leak.skill, leak.p_value) for leak in labels.leaks]
    about = (
        "How well the label is told by one column of how the files were made, of pictures that it was not learnt from: skill 0 is no better than always "
        "saying the most common label, 1 is always right. p is corrected for the number of columns."
    )
    return [
        (f"Classes, by column {labels.column}", text_html(balance) + bars_html(counts) + table_html(("class", "members", *splits), by_split[:50])),
        ("What gives labels away", text_html(about) + table_html(("column", "accuracy", "skill", "p"), leaks)),
    ]


def _tile(row: Mapping[str, object], which: str, uris: Mapping[str, str], ws: Workspace) -> Tile:
    value = "" if row["value"] is None else f" [{row['value']:.3f}]"
    return Tile(ws.thumbnail(str(row[which])), _name(str(row[which]), uris), f"{row['detail']}{value}")


def _name(asset_id: str, uris: Mapping[str, str]) -> str:
    return f"{Path(uris[asset_id]).name} · {asset_id[:8]}" if asset_id in uris else f"{asset_id[:12]}…"
