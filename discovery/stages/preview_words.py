"""What a person reads before a version is made for good: its counts, what was left out, leaks and quotas, and where its pictures are."""

from __future__ import annotations

from typing import Any

import pyarrow.compute as pc

from discovery.spec import stored_spec
from discovery.stages.data_card import escaped, part_bound, quota_cost
from discovery.stages.decisions import RULES
from discovery.types import DatasetVersion
from discovery.workspace import Workspace

MOST_LABELS = 12


def preview_markdown(version: DatasetVersion, facts: dict[str, Any], page: str, ws: Workspace) -> str:
    """The preview in Markdown. page: address at which its pictures are."""
    splits = ", ".join(f"{escaped(name)} {count:,}" for name, count in version.splits.items())
    lines = [
        f"**{version.assets:,}** assets of {version.candidates:,} candidates: {splits}.", "", f"[Look at the pictures]({page})", "",
        f"- Leaks between splits: **{version.leaked:,}**.",
    ]  # fmt: skip
    for one in facts["certificate"]["against"]:
        lines.append(f"- Leaks into {escaped(one['named'])}: **{one['leaked']:,}**; {one['removed']:,} were kept out for it.")
    if version.split_similarity is not None:
        lines.append(f"- The two members most alike in different splits have a cosine of {version.split_similarity:.3f}.")
    if version.optimality_bound is not None:
        lines.append(f"- The selection reaches at least {version.optimality_bound:.1%} of the best there is.")
    for part in facts["parts"]:
        if part["name"] and part["asked"] is not None and part["picked"] < part["asked"]:
            lines.append(f"- Part {escaped(part['name'])} is short: {part['picked']:,} of {part['asked']:,}.")
        if part["name"] and part["optimality_bound"] is not None:
            lines.append(f"- Part {escaped(part['name'])}: {part['picked']:,}{part_bound(part)}.")
    for quota in facts["quotas"]:
        lines.append(f"- {quota_cost(quota)}.")
    counts = ws.store.read_table(version, columns=["category"])["category"].value_counts().to_pylist()
    largest = sorted(counts, key=lambda one: (-one["counts"], str(one["values"])))
    shown = ", ".join(f"{escaped(one['values'])} {one['counts']:,}" for one in largest[:MOST_LABELS])
    lines.append(f"- Folders: {shown}{f' and {len(largest) - MOST_LABELS} more' if len(largest) > MOST_LABELS else ''}.")
    parent = stored_spec(version.spec).parent
    if parent:
        table = ws.store.read_table(version, columns=["pick", "reason"])
        kept = int(pc.sum(pc.equal(table["pick"], -1)).as_py() or 0)
        lines.append(f"- {version.assets - kept:,} are new beside those of {escaped(parent)}.")
    if facts["removed"]:
        lines += ["", "| left out before selection | assets |", "|---|---:|"]
        lines += [f"| {escaped(RULES[rule].says)} | {count:,} |" for rule, count in facts["removed"].items()]
    return "\n".join(lines) + "\n"
