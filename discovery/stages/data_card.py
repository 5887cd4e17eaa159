"""The data card of a version: what is in it, how it came about, what was measured of it and what it is not for; as Markdown and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from discovery.spec import stored_spec
from discovery.stages.asset_table import assets_of
from discovery.stages.decisions import RULES
from discovery.stages.history import load_snapshot
from discovery.stages.label_findings import label_column
from discovery.stages.versions import row_of
from discovery.types import CollectionReport, DatasetVersion, Manifest, NoveltyReport, QualityReport
from discovery.workspace import Workspace

MOST_VALUES = 30  # values of a column that the card lists
DESCRIBED = ("format", "category", "camera_model")
RANGES = ("width_px", "height_px", "brightness", "sharpness", "novelty")


def data_card(version: DatasetVersion, ws: Workspace) -> dict[str, Any]:
    """The card as plain values. The same for the same version, but for its number and its check, which come after it was made."""
    spec = stored_spec(version.spec)
    snapshot = load_snapshot(version.snapshot_id, ws)
    novelty = [report for key in version.inputs if (report := ws.store.load_record(NoveltyReport, key)) is not None]
    assets = assets_of(version, ws)
    table = ws.store.read_table(version)
    members = assets.filter(pc.is_in(assets["asset_id"], table["asset_id"].combine_chunks()))
    label = label_column(spec, assets, ws)
    row = row_of(version, ws)
    manifests = [one for key in snapshot.manifests if (one := ws.store.load_record(Manifest, key)) is not None]
    used = set(members["manifest_id"].to_pylist())
    columns = list(dict.fromkeys([*([label] if label else []), *DESCRIBED, *(["license"] if "license" in assets.column_names else [])]))
    return {
        "name": version.name, "number": row.number if row else None, "digest": version.digest, "created_at": version.created_at,
        "version_id": version.id, "assets": version.assets, "size_bytes": version.size_bytes, "splits": version.splits, "label": label,
        "composition": {name: _values(members[name]) for name in columns if name in members.column_names},
        "label_by_split": _by_split(members, table, label) if label else [],
        "ranges": {name: _range(members[name]) for name in RANGES if name in members.column_names and members[name].null_count < len(members)},
        "taken_at": _moments(members["taken_at"]),
        "videos": len(set(members["video_id"].drop_null().to_pylist())),
        "sources": [{"manifest_id": one.id, "sources": list(one.sources), "ingested_at": one.created_at} for one in manifests if one.id in used],
        "encoder_id": version.encoder_id, "index_id": snapshot.id, "spec": json.loads(spec.canonical()),
        "selection": _facts(version, ws), "candidates": version.candidates, "optimality_bound": version.optimality_bound,
        "coverage_radius": version.coverage_radius, "coverage_beyond": version.coverage_beyond, "split_similarity": version.split_similarity,
        "leaked": version.leaked, "removed_for_leakage": version.removed_for_leakage,
        "quality": [
            {"report_id": quality.id, "passed": quality.passed, "quarantined": quality.quarantined}
            for key in sorted(set(table["report_id"].to_pylist()))
            if (quality := ws.store.load_record(QualityReport, key)) is not None
        ],
        "novelty": [{"report_id": one.id, "reference": one.reference, "fdr": one.fdr, "novel": one.novel} for one in novelty],
        "check": _check(version, ws),
    }  # fmt: skip


def card_markdown(card: dict[str, Any]) -> str:
    """The card to be read. Names from outside are escaped, so that none of them is taken for markup."""
    title = escaped(f"{card['name']}@{card['number']}" if card["number"] else card["name"])
    splits = ", ".join(f"{escaped(name)} {count:,}" for name, count in card["splits"].items())
    spec, selection, check = card["spec"], card["selection"], card["check"]
    lines = [
        f"# {title}", "",
        f"{card['assets']:,} pictures ({_bytes(card['size_bytes'])}): {splits}. Made {card['created_at'][:10]} from {card['candidates']:,} candidates. Digest `{card['digest']}`.",
        "", "## How it was chosen", "",
        f"- Budget: {_budget(spec['budget'])}. Method: {', '.join(sorted({part['method'] for part in selection.get('parts', [])})) or spec['select']['method']}.",
    ]  # fmt: skip
    if spec["where"]:
        lines.append(f"- Filter: `{_code(spec['where'])}`.")
    for key, words in (("like", "Like"), ("unlike", "Unlike"), ("include", "Included by name"), ("exclude", "Excluded by name")):
        if spec[key]:
            lines.append(f"- {words}: {', '.join(f'`{_code(text)[:60]}`' for text in spec[key])}.")
    for part in selection.get("parts", []):
        if part["name"]:
            asked = f" of {part['asked']:,} asked" if part["asked"] is not None else ""
            lines.append(f"- Part {escaped(part['name'])}: {part['picked']:,}{asked}, from {part['candidates']:,} candidates, by {part['method']}{part_bound(part)}.")
    for quota in selection.get("quotas", []):
        lines.append(f"- {quota_cost(quota)}.")
    if card["optimality_bound"] is not None:
        lines.append(f"- The selection reaches at least {card['optimality_bound']:.1%} of the best there is.")
    if card["coverage_radius"] is not None:
        beyond = f"; of all candidates at most {card['coverage_beyond']:.2%} are farther, at 95 %" if card["coverage_beyond"] else ", of all candidates"
        lines.append(f"- Every candidate that was looked at has a member within a cosine distance of {card['coverage_radius']:.3f}{beyond}.")
    if spec["parent"]:
        lines.append(f"- It grew from {escaped(spec['parent'])}, whose members are in the splits that they were in.")
    if selection.get("removed"):
        lines += ["", "| left out before selection | assets |", "|---|---:|"]
        lines += [f"| {escaped(RULES[rule].says)} | {count:,} |" for rule, count in selection["removed"].items()]
    lines += ["", "## What is in it", ""]
    for name, values in card["composition"].items():
        shown = ", ".join(f"{escaped(value)} {count:,}" for value, count in values[:MOST_VALUES])
        more = f" and {len(values) - MOST_VALUES} more" if len(values) > MOST_VALUES else ""
        lines.append(f"- {escaped(name)}: {shown}{more}.")
    for name, found in card["ranges"].items():
        lines.append(f"- {name}: {found['least']:.4g} to {found['most']:.4g}, half of them below {found['median']:.4g}.")
    if card["taken_at"]:
        lines.append(f"- Taken between {card['taken_at'][0]} and {card['taken_at'][1]}, as far as the cameras say ({card['taken_at'][2]:,} pictures).")
    if card["label_by_split"]:
        names = list(card["splits"])
        lines += ["", f"| {escaped(card['label'])} | " + " | ".join(escaped(name) for name in names) + " |", "|---|" + "---:|" * len(names)]
        lines += [f"| {escaped(row['value'])} | " + " | ".join(f"{row['splits'].get(name, 0):,}" for name in names) + " |" for row in card["label_by_split"][:MOST_VALUES]]
    lines += ["", "## Splits and leaks", "", *_certificate(card)]
    lines += ["", "## Quality", ""]
    if check:
        verdict = "passed" if check["passed"] else f"**failed** ({', '.join(escaped(name) for name in check['failed_expectations'])})"
        lines.append(f"- The check of the collection {verdict}. Warnings: {', '.join(escaped(name) for name in check['warnings']) or 'none'}.")
        lines.append(f"- {check['sampled']:,} members were read again; at most {check['defect_rate_bound']:.2%} of all are defective, at 95 %.")
        if check["likely_mislabels"]:
            lines.append(f"- {check['likely_mislabels']:,} labels are likely to be wrong: see the report of the check.")
    else:
        lines.append("- The collection was not checked yet: `discovery check --version NAME@N`.")
    lines.append(f"- Every member passed its batch's quality report ({len(card['quality'])} of them).")
    lines += ["", "## Where it comes from", ""]
    lines += [f"- {', '.join(escaped(source) for source in one['sources'])}, ingested {one['ingested_at'][:10]} (manifest `{one['manifest_id'][:12]}`)" for one in card["sources"]]
    lines += [f"- Encoder `{_code(card['encoder_id'])}`, index `{card['index_id'][:12]}`.", "", "## What it is not for", ""]
    lines += [f"- {text}" for text in _limits(card)]
    return "\n".join(lines) + "\n"


def escaped(value: Any) -> str:
    """One line without markup of Markdown or HTML."""
    return "".join(f"\\{c}" if c in "\\`*_[]|#~" else {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(c, c) for c in " ".join(str(value).split()))


def part_bound(part: dict[str, Any]) -> str:
    """How near one part of a mix is to the best for it, in words; empty where that is not known."""
    bound = part["optimality_bound"]
    return "" if bound is None else f"; at least {bound:.1%} of the best that it could be after the parts before it"


def quota_cost(quota: dict[str, Any]) -> str:
    """What a quota cost, in words; in a mix each part has a cost of its own.

    >>> quota_cost({"by": "category", "cost": 0.031, "part": "dogs"}), quota_cost({"by": "label", "cost": None})
    ('The quota by category cost 3.10% of the objective (part dogs)', 'What the quota by label cost was not measured')
    """
    by, part = escaped(quota["by"]), f" (part {escaped(quota['part'])})" if quota.get("part") else ""
    return f"What the quota by {by} cost was not measured{part}" if quota["cost"] is None else f"The quota by {by} cost {quota['cost']:.2%} of the objective{part}"


def _certificate(card: dict[str, Any]) -> list[str]:
    found = card["selection"].get("certificate")
    if not found:
        return [f"- {card['leaked']:,} members have a copy in another split."]
    lines = [f"- {card['leaked']:,} members have a copy in another split. Kept together: {', '.join(escaped(name) for name in found['keep_together'])}."]
    if found["stratify"]:
        lines.append(f"- Every split has its share of every {escaped(found['stratify'])}, as near as groups allow.")
    if across := found["across_splits"]:
        how = "all pairs were compared" if across["recall"] == 1 else f"{across['asked']:,} of {across['members']:,} members were compared with all others; at most {across['beyond']:.2%} of members have one more alike, at 95 %"
        lines.append(f"- The two members most alike in different splits have a cosine of {across['largest_similarity']:.3f} ({how}).")
    recall = found["duplicates"]
    if recall["recall"] is not None:
        lines.append(f"- Copies were looked for by a method that proposes {recall['recall']:.1%} of planted ones (at least {recall['recall_lower_bound']:.1%} at 95 %).")
    for one in found["against"]:
        similarity = "" if one["largest_similarity"] is None else f"; the most alike pair has a cosine of {one['largest_similarity']:.3f}"
        lines.append(
            f"- Against {escaped(one['named'])}: {one['leaked']:,} leak ({one['same_bytes']:,} same bytes, {one['same_pixels']:,} same pixels, {one['verified_copies']:,} verified copies, "
            f"{one['chains']:,} by chains), {one['removed']:,} were kept out{similarity}."
        )
    return lines


def _limits(card: dict[str, Any]) -> list[str]:
    """What a user could take it for and should not, from what is known of it."""
    method = card["spec"]["select"]["method"]
    limits = []
    if method != "random":
        limits.append("It is no sample: members were chosen to be different or novel, so that shares among them say nothing of the shares among all pictures.")
    if len(card["splits"]) == 1:
        limits.append("It has one split: what is measured on it is not measured on unseen pictures unless it is held out itself.")
    if not card["label"]:
        limits.append("It has no labels.")
    if "license" not in card["composition"]:
        limits.append("Its sources say nothing of licences: find out before it is passed on.")
    if card["selection"].get("certificate", {}).get("duplicates", {}).get("recall") is None:
        limits.append("For its encoder the search for copies is not calibrated: look-alikes across splits may be copies.")
    return limits or ["Nothing is known that speaks against a use."]


def _facts(version: DatasetVersion, ws: Workspace) -> dict[str, Any]:
    if not any(ref.role == "facts" for ref in version.files):
        return {}
    found: dict[str, Any] = json.loads(ws.store.read_file(version, "facts"))
    return found


def _check(version: DatasetVersion, ws: Workspace) -> dict[str, Any] | None:
    for report in ws.catalog.records(CollectionReport.stage):
        if isinstance(report, CollectionReport) and report.version_id == version.id:
            names = ("passed", "failed_expectations", "warnings", "sampled", "defect_rate_bound", "likely_mislabels")
            return {"report_id": report.id, **{name: getattr(report, name) for name in names}}
    return None


def _values(column: pa.ChunkedArray) -> list[list[Any]]:
    """[value, count], the most common first; null as 'unknown'."""
    counts = Counter("unknown" if value is None else str(value) for value in column.to_pylist())
    return [[value, count] for value, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def _by_split(members: pa.Table, table: pa.Table, label: str) -> list[dict[str, Any]]:
    split = dict(zip(table["asset_id"].to_pylist(), table["split"].to_pylist(), strict=True))
    counts: dict[str, Counter[str]] = {}
    for asset_id, value in zip(members["asset_id"].to_pylist(), members[label].to_pylist(), strict=True):
        counts.setdefault("unknown" if value is None else str(value), Counter())[split[asset_id]] += 1
    return [{"value": value, "splits": dict(found)} for value, found in sorted(counts.items(), key=lambda item: (-item[1].total(), item[0]))]


def _range(column: pa.ChunkedArray) -> dict[str, float]:
    values = sorted(float(value) for value in column.to_pylist() if value is not None)
    return {"least": values[0], "median": values[len(values) // 2], "most": values[-1]}


def _moments(column: pa.ChunkedArray) -> list[Any] | None:
    known = column.drop_null()
    return [str(pc.min(known).as_py())[:10], str(pc.max(known).as_py())[:10], len(known)] if len(known) else None


def _budget(budget: Any) -> str:
    if isinstance(budget, int):
        return f"{budget:,} pictures"
    return " and ".join(text for text in (f"{budget['assets']:,} pictures" if budget["assets"] else "", _bytes(budget["bytes"]) if budget["bytes"] else "") if text)


def _bytes(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


def _code(value: str) -> str:
    return " ".join(value.replace("`", "'").split())
