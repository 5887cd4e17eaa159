"""What MLflow is shown of a version: its run with figures, datasets and files, its page with counts and links, and its pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from discovery.adapters.catalog import VersionRow
from discovery.adapters.mlflow_registry import model_link, run_link, version_link
from discovery.adapters.mlflow_tracking import DatasetInfo, RunContent, members_csv
from discovery.core.standing import Standing
from discovery.drawings import Box, Member, lineage_png, sheet_png
from discovery.gallery import Tile, gallery_html
from discovery.stage_runs import REPORT_FILES, Ancestry, milliseconds, recall_metrics
from discovery.stages.data_card import card_markdown, data_card
from discovery.stages.lineage import in_words
from discovery.stages.version_croissant import version_croissant
from discovery.types import CollectionReport, DatasetVersion, Record
from discovery.version_page import Count, Linked, VersionPage
from discovery.workspace import Workspace

FORMAT = "1"  # of what is shown of a version; another one, and every version is published anew, in the run it has
REGISTERED = "dataset."  # before the name of a collection in MLflow's registry
LINEAGE_PNG, SHEET_PNG = "lineage.png", "members.png"
SHEET_PICTURES, BATCHES_DRAWN = 49, 4
CARD = "card.md"
GALLERY_LIMIT = 300  # pictures in a gallery; about 10 kB each


@dataclass
class Pages:
    """Where MLflow shows the parts of a version: ids of runs by record, and of models by kind."""

    experiment_id: str
    shared_id: str
    run_id: str = ""
    runs: dict[str, str] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)

    def of(self, record: Record | None) -> str:
        """A link to the report of a record where it has one, else to its run; empty when it is not shown."""
        if record is None or record.id not in self.runs:
            return ""
        return run_link(self.experiment_id, self.runs[record.id], REPORT_FILES.get(record.stage, ""))


def version_run(
    version: DatasetVersion, row: VersionRow, made_from: Ancestry, parent_row: VersionRow | None, ws: Workspace, tags: Mapping[str, str]
) -> RunContent:  # fmt: skip
    """A version's run, before what is below it is known; tags: added to its own."""
    spec = json.loads(version.spec)
    ids = {"index": version.snapshot_id, "encoder": version.encoder_id, "duplicates": made_from.snapshot.duplicates_id}
    ids |= {f"manifest_{number}": manifest.id for number, manifest in enumerate(made_from.manifests)}
    ids |= {f"quality_{number}": report.id for number, report in enumerate(made_from.quality)}
    ids |= {f"novelty_{number}": report.id for number, report in enumerate(made_from.novelty)}
    if parent_row is not None:
        ids |= {"parent": parent_row.version_id, "parent_run": parent_row.mlflow_run_id or "", "parent_version": f"{parent_row.name}@{parent_row.number}"}
    return RunContent(
        experiment=version.name,
        name=f"{row.name}@{row.number}",
        digest=version.digest,
        tags={
            **tags,
            "discovery.kind": "dataset_version",
            "discovery.name": row.name,
            "discovery.number": str(row.number),
            "discovery.version_id": version.id,
            **{f"discovery.{name}{'' if name in ('parent_run', 'parent_version') else '_id'}": value for name, value in ids.items() if value},
        },
        params={"budget": str(spec["budget"]), "select": spec["select"]["method"]},
        metrics=_version_metrics(version, made_from),
        description=f"{row.name}@{row.number} is being published.",
        datasets=_version_datasets(version, made_from, ws),
        texts={
            "gallery.html": _gallery(version, row.number, ws),
            "spec.json": json.dumps(spec, indent=2),
            "members.csv": members_csv(ws.store.read_table(version)),
            "croissant.json": json.dumps(version_croissant(version, row.number, ws), indent=2),
            **card_files(version, ws),
            **{f"quality/{report.id[:12]}.html": ws.store.read_file(report, "report").decode() for report in made_from.quality},
        },
        binaries={
            "members.parquet": ws.store.read_file(version, "table"),
            LINEAGE_PNG: _lineage_picture(version, row, made_from, parent_row),
            SHEET_PNG: _sheet(version, ws),
        },
        made_ms=milliseconds(version.created_at),
        format=FORMAT,
    )


def _version_metrics(version: DatasetVersion, made_from: Ancestry) -> dict[str, float]:
    metrics: dict[str, float] = {
        "assets": version.assets, "candidates": version.candidates, "leaked": version.leaked,
        "removed_for_leakage": version.removed_for_leakage, **recall_metrics(made_from.snapshot), **{f"split_{name}": n for name, n in version.splits.items()},
    }  # fmt: skip
    if version.optimality_bound is not None:
        metrics["optimality_bound"] = version.optimality_bound
    return {name: float(value) for name, value in metrics.items()}


def _version_datasets(version: DatasetVersion, made_from: Ancestry, ws: Workspace) -> tuple[DatasetInfo, ...]:
    root = ws.config.root if ws.config.is_remote else ws.config.local_folder.as_uri()
    members = DatasetInfo(version.name, version.digest, f"{root}/{ws.store.file_path(version, 'table')}", version.assets, "output")
    inputs = [
        DatasetInfo(f"manifest-{manifest.id[:8]}", manifest.id, f"{root}/{ws.store.file_path(manifest, 'table')}", manifest.rows, "input")
        for manifest in made_from.manifests
    ]
    return (members, *inputs)


def card_files(version: DatasetVersion, ws: Workspace) -> dict[str, str]:
    """The data card as Markdown and as JSON, by file name."""
    card = data_card(version, ws)
    return {CARD: card_markdown(card), "card.json": json.dumps(card, indent=1, allow_nan=False)}


def _gallery(version: DatasetVersion, number: int, ws: Workspace) -> str:
    rows = sorted(ws.store.read_table(version).to_pylist(), key=lambda row: (row["pick"], row["asset_id"]))
    sections = []
    for split in version.splits:
        tiles = [
            Tile(ws.thumbnail(row["asset_id"]), Path(row["source_uri"]).name, row["reason"])
            for row in rows[:GALLERY_LIMIT]
            if row["split"] == split
        ]
        sections.append((split, tiles))
    shown = "" if len(rows) <= GALLERY_LIMIT else f" The first {GALLERY_LIMIT} picks are shown."
    return gallery_html(f"{version.name}@{number}", f"{version.assets:,} assets, digest {version.digest[:16]}….{shown}", sections)


def _lineage_picture(version: DatasetVersion, row: VersionRow, made_from: Ancestry, parent_row: VersionRow | None) -> bytes:
    """A chain a batch, from its source to its vectors; then what is made of all of them; then the version."""
    snapshot, duplicates = made_from.snapshot, made_from.duplicates
    batches = made_from.manifests[: BATCHES_DRAWN if made_from.batches <= BATCHES_DRAWN else BATCHES_DRAWN - 1]
    rows: list[list[Box]] = [[], [], [], []]
    for manifest in batches:
        more = f" and {len(manifest.sources) - 1} more" if len(manifest.sources) > 1 else ""
        rows[0].append(Box("source", Path(manifest.sources[0]).name + more, manifest.sources[0], "input"))
        rows[1].append(Box("source manifest", manifest.id[:12], f"{manifest.assets:,} assets, {manifest.rejected:,} rejected"))
        report = next((one for one in made_from.quality if one.manifest_id == manifest.id), None)
        rows[2].append(Box("quality report", report.id[:12], f"{'passed' if report.passed else 'failed'}, {report.quarantined:,} quarantined") if report else Box("quality report", "", "lost", "warning"))
        embedded = next((one for one in made_from.embeddings if one.manifest_id == manifest.id), None)
        rows[3].append(Box("embeddings", embedded.id[:12], f"{embedded.assets:,} vectors") if embedded else Box("embeddings", "", "none in this index", "warning"))
    if len(batches) < made_from.batches:
        left = made_from.batches - len(batches)
        for boxes in rows[:4]:
            boxes.append(Box(f"{left:,} more", "", "", boxes[0].kind if boxes else "step"))
    edges = [((step, place), (step + 1, place)) for step in range(3) for place in range(len(rows[0]))]
    known = [Box("duplicates", duplicates.id[:12], f"{duplicates.groups:,} groups of {duplicates.assets:,} assets")] if duplicates else []
    known.append(Box("index", snapshot.id[:12], f"{snapshot.elements:,} vectors, recall {snapshot.recall_lower_bound:.3f}"))
    known += [Box("novelty report", one.id[:12], f"{one.novel:,} novel of {one.candidates:,}") for one in made_from.novelty[-1:]]
    edges += [((3, above), (4, below)) for above in range(len(rows[3])) for below in range(len(known))]
    if parent_row is not None:
        known.append(Box(f"parent {parent_row.name}@{parent_row.number}", parent_row.digest[:12], "its members stay", "result"))
    edges += [((4, above), (5, 0)) for above in range(len(known))]
    made = Box(f"{row.name}@{row.number}", row.digest[:12], f"{version.assets:,} of {version.candidates:,} candidates", "result")
    return lineage_png([*rows, known, [made]], edges)


def _sheet(version: DatasetVersion, ws: Workspace) -> bytes:
    """The first picks of every split, as many of each as its share."""
    table = ws.store.read_table(version, columns=["asset_id", "split", "pick"])
    rows = sorted(table.to_pylist(), key=lambda one: (one["pick"] < 0, one["pick"], one["asset_id"]))
    places = {split: max(1, round(SHEET_PICTURES * n / max(1, version.assets))) for split, n in _by_size(version) if n}
    shown = [row for split, n in places.items() for row in [one for one in rows if one["split"] == split][:n]]
    return sheet_png([Member(ws.thumbnail(row["asset_id"]), row["split"]) for row in shown[:SHEET_PICTURES]], [split for split, _ in _by_size(version)])


def _sheet_title(version: DatasetVersion) -> str:
    return "Members" if version.assets <= SHEET_PICTURES else f"The first {SHEET_PICTURES} of {version.assets:,} members, by split"


def page_of(
    version: DatasetVersion, row: VersionRow, number: str, made_from: Ancestry, parent: DatasetVersion | None, parent_row: VersionRow | None,
    reports: Sequence[CollectionReport], pages: Pages, standing: Standing, ws: Workspace,
) -> VersionPage:  # fmt: skip
    """All that the description of a version tells."""
    yank = standing.yanked.get(row.number)
    warnings = [f"Yanked by {yank.by} on {yank.at}: {yank.reason}. Do not use this version."] if yank else []
    if reports and not reports[0].passed:
        warnings.append(f"The collection check failed: {', '.join(reports[0].failed_expectations)}.")
    notes = [f"MLflow counts this as version {number} of {REGISTERED}{row.name}; its number is {row.number}."] if number != str(row.number) else []
    if made_from.batches > len(made_from.manifests):
        notes.append(f"Of {made_from.batches:,} batches the {len(made_from.manifests)} that most members come from are shown; `discovery lineage {row.name}@{row.number}` lists all.")
    artifact = f"get-artifact?run_uuid={pages.run_id}&path="
    return VersionPage(
        name=row.name, number=row.number, digest=row.digest, assets=version.assets, candidates=version.candidates, splits=dict(_by_size(version)), leaked=version.leaked,
        optimality_bound=version.optimality_bound, spec=version.spec, parent=f"{parent_row.name}@{parent_row.number}" if parent_row else "",
        counts=_counts(version, parent, ws), links=_links(version, row, made_from, parent_row, reports, pages), warnings=warnings, notes=notes,
        pictures=(("Lineage", artifact + LINEAGE_PNG), (_sheet_title(version), artifact + SHEET_PNG)),
    )  # fmt: skip


def _links(
    version: DatasetVersion, row: VersionRow, made_from: Ancestry, parent_row: VersionRow | None, reports: Sequence[CollectionReport], pages: Pages
) -> list[Linked]:  # fmt: skip
    snapshot = made_from.snapshot
    found = []
    if parent_row is not None:
        link = version_link(f"{REGISTERED}{parent_row.name}", parent_row.mlflow_version) if parent_row.mlflow_version else ""
        found.append(Linked("parent", f"{parent_row.name}@{parent_row.number}", link, f"digest {parent_row.digest[:16]}…"))
    found += [Linked("source manifest", one.id[:12], pages.of(one), in_words(one)) for one in made_from.manifests]
    found += [Linked("quality report", one.id[:12], pages.of(one), in_words(one)) for one in made_from.quality]
    found.append(Linked("encoder", version.encoder_id, model_link(pages.shared_id, pages.models["encoder"]), f"{snapshot.dim} dimensions"))
    found += [Linked("embeddings", one.id[:12], pages.of(one), in_words(one)) for one in made_from.embeddings]
    if made_from.duplicates is not None:
        found.append(Linked("duplicates", made_from.duplicates.id[:12], pages.of(made_from.duplicates), in_words(made_from.duplicates)))
    found += [Linked("novelty report", one.id[:12], pages.of(one), in_words(one)) for one in made_from.novelty]
    found.append(Linked("index", snapshot.id[:12], model_link(pages.shared_id, pages.models["index"]), in_words(snapshot)))
    found += [Linked("collection report", one.id[:12], pages.of(one), in_words(one)) for one in reports[:1]]
    found.append(Linked("members", "gallery", run_link(pages.experiment_id, pages.run_id, "gallery.html"), "every split with its pictures and reasons"))
    found.append(Linked("data card", "card", run_link(pages.experiment_id, pages.run_id, CARD), "what is in it, how it was chosen, its certificate; Croissant beside it"))
    found.append(Linked("members", "table", run_link(pages.experiment_id, pages.run_id, "members.csv"), "an id, a split and a reason a row; as Parquet beside it"))
    return found


def _counts(version: DatasetVersion, parent: DatasetVersion | None, ws: Workspace) -> list[Count]:
    """Counts against the parent: of all members, then of each split."""
    if parent is None:
        return []
    now, before = (_splits(one, ws) for one in (version, parent))
    changed = {asset_id for asset_id in now.keys() & before.keys() if now[asset_id] != before[asset_id]}
    counts = [Count("", len(now), len(before), len(now.keys() - before.keys()), len(before.keys() - now.keys()), len(changed))]
    for split in dict.fromkeys((*dict(_by_size(version)), *parent.splits)):
        own = {asset_id for asset_id, name in now.items() if name == split}
        theirs = {asset_id for asset_id, name in before.items() if name == split}
        counts.append(Count(split, len(own), len(theirs), len(own - before.keys()), len(theirs - now.keys()), len(own & changed)))
    return counts


def _by_size(version: DatasetVersion) -> list[tuple[str, int]]:
    return sorted(version.splits.items(), key=lambda item: (-item[1], item[0]))


def _splits(version: DatasetVersion, ws: Workspace) -> dict[str, str]:
    table = ws.store.read_table(version, columns=["asset_id", "split"])
    return dict(zip(table["asset_id"].to_pylist(), table["split"].to_pylist(), strict=True))


def about_collection(name: str) -> str:
    """What the registry says of a collection as a whole."""
    return (
        f"Dataset versions of the collection `{name}`: immutable, each with its counts, lineage and members. "
        "`current` is the version to use, `candidate` the newest that was not decided on, `previous` the one before."
    )
