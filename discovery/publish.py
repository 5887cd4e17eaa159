"""Publish: record runs and dataset versions in MLflow, with metrics, lineage and a gallery; the same version only once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from discovery.adapters.journal import Topic
from discovery.adapters.mlflow_tracking import DatasetInfo, RunContent, add_to_run, members_csv, publish_content, run_url
from discovery.addressing import content_id
from discovery.errors import CorruptArtifact, StorageFull, TrackingError
from discovery.gallery import Tile, gallery_html
from discovery.stages.versions import find_version
from discovery.types import (
    CollectionReport,
    DatasetVersion,
    DriftReport,
    DuplicateReport,
    EmbeddingSet,
    IndexSnapshot,
    Manifest,
    NoveltyReport,
    QualityReport,
    Record,
)
from discovery.workspace import Workspace

GALLERY_LIMIT = 300  # pictures in a gallery; about 10 kB each


@dataclass(frozen=True, slots=True)
class Published:
    """A version with its number and the page where it is shown."""

    name: str
    number: int
    digest: str
    mlflow_run_id: str
    url: str


def publish_version(version: DatasetVersion, ws: Workspace, tags: Mapping[str, str] | None = None) -> Published:
    """Show a version in MLflow, in the experiment of its collection; a version that is there is returned.

    tags: added to the run, such as who triggered it. Raises TrackingError, after which the same call publishes it later.
    """
    row = ws.catalog.add_version(version.name, version.id, version.digest, version.created_at)
    lineage = _lineage(version, ws)
    content = RunContent(
        experiment=version.name,
        name=f"{row.name}@{row.number}",
        digest=version.digest,
        tags={
            **(tags or {}),
            "discovery.kind": "dataset_version",
            "discovery.name": row.name,
            "discovery.number": str(row.number),
            "discovery.version_id": version.id,
            **{f"discovery.{name}_id": record_id for name, record_id in lineage.items()},
        },
        params={"budget": str(json.loads(version.spec)["budget"]), "select": json.loads(version.spec)["select"]["method"]},
        metrics=_version_metrics(version, ws),
        description=_version_description(version, row.number, lineage, ws),
        datasets=_version_datasets(version, row.number, ws),
        texts={
            "gallery.html": _gallery(version, row.number, ws),
            "spec.json": json.dumps(json.loads(version.spec), indent=2),
            "members.csv": members_csv(ws.store.read_table(version)),
            **_quality_reports(version, ws),
        },
        binaries={"members.parquet": ws.store.read_file(version, "table")},
    )
    run_id, experiment_id = _publish(content, ws)
    url = run_url(_public_url(ws), experiment_id, run_id)
    ws.catalog.set_version_run(row.name, row.number, run_id, url)
    return Published(row.name, row.number, row.digest, run_id, url)


def publish_collection_report(version: DatasetVersion, report: CollectionReport, ws: Workspace, tags: Mapping[str, str] | None = None) -> Published:
    """Show a version in MLflow, its run with the report, its verdict and its numbers. Raises TrackingError, as `publish_version` does."""
    published = publish_version(version, ws, tags)
    details = ws.store.read_file(report, "expectations").decode()
    verdict = {
        "discovery.collection_report_id": report.id,
        "discovery.collection_passed": str(report.passed).lower(),
        "discovery.collection_failed": ", ".join(report.failed_expectations) or "none",
        "discovery.collection_warnings": ", ".join(report.warnings) or "none",
    }
    metrics = {f"collection.{name}": float(value) for name, value in json.loads(details)["numbers"].items()}
    texts = {
        f"collection/{report.id[:12]}.html": ws.store.read_file(report, "report").decode(),
        f"collection/{report.id[:12]}.json": details,
    }
    add_to_run(published.mlflow_run_id, verdict, metrics, texts, ws.config.tracking_uri)
    return published


def show_quality(manifest: Manifest, report: QualityReport, ws: Workspace, tags: Mapping[str, str] | None = None) -> str:
    """Show a batch's quality report in MLflow before anything is decided by it; the run's id.

    Empty when MLflow did not take it: that is reported and stops nothing, since the report is in the store.
    """
    try:
        return publish_run({"ingest": manifest, "check": report}, ws, tags)
    except (TrackingError, StorageFull) as error:
        ws.report(f"publish: {error}")
        return ""


def publish_run(records: Mapping[str, Record], ws: Workspace, tags: Mapping[str, str] | None = None) -> str:
    """Show one pass through the chain in the experiment of discovery runs; its MLflow run id. The same records, the same run."""
    metrics = _run_metrics(records)
    manifest = records.get("ingest")
    sources = ", ".join(manifest.sources) if isinstance(manifest, Manifest) else ""
    lines = [f"| {stage} | `{record.id[:16]}` |" for stage, record in records.items()]
    content = RunContent(
        experiment=ws.config.mlflow.experiment,
        name=f"{'check' if set(records) == {'ingest', 'check'} else 'run'} {manifest.id[:8]}" if manifest else "run",
        digest=content_id(sorted(record.id for record in records.values())),
        tags={**(tags or {}), "discovery.kind": "run", **{f"discovery.{stage}_id": record.id for stage, record in records.items()}},
        params={"sources": sources},
        metrics=metrics,
        description="\n".join([f"Discovery run over {sources}", "", "| stage | record |", "|---|---|", *lines]),
        texts=_run_texts(records, ws),
    )
    run_id, _ = _publish(content, ws)
    return run_id


def publish_drift(report: DriftReport, ws: Workspace, tags: Mapping[str, str] | None = None) -> str:
    """Show a drift report with its page in the experiment of discovery runs; its MLflow run id. The same report, the same run."""
    figures = {"auc": report.auc, "p_value": report.p_value, "a_not_in_b": report.a.lacking, "b_not_in_a": report.b.lacking, "moved": len(report.moved)}
    content = RunContent(
        experiment=ws.config.mlflow.experiment,
        name=f"drift {report.id[:8]}",
        digest=report.id,
        tags={
            **(tags or {}),
            "discovery.kind": "drift",
            "discovery.drift_id": report.id,
            "discovery.is_drifted": str(report.is_drifted).lower(),
        },
        params={"a": report.a.label[:250], "b": report.b.label[:250]},
        metrics={name: float(value) for name, value in figures.items() if value is not None},
        description=f"How **{report.b.label}** differs from **{report.a.label}**. Moved: {', '.join(report.moved) or 'nothing'}. Open **drift.html** among the artifacts.",
        texts={"drift.html": ws.store.read_file(report, "report").decode(), "result.json": ws.store.read_file(report, "result").decode()},
    )
    return _publish(content, ws)[0]


def _run_texts(records: Mapping[str, Record], ws: Workspace) -> dict[str, str]:
    """The quality report of a run, to be read in MLflow, and its result as JSON."""
    report = next((record for record in records.values() if isinstance(record, QualityReport)), None)
    if report is None:
        return {}
    return {"quality.html": ws.store.read_file(report, "report").decode(), "expectations.json": ws.store.read_file(report, "expectations").decode()}


def _publish(content: RunContent, ws: Workspace) -> tuple[str, str]:
    """Ids of the run and its experiment; of two publishers at once the first that is entered in the journal makes the run for both."""
    name = f"{content.experiment}/{content.digest}"

    def settle(run_id: str, exists: Callable[[str], bool]) -> str:
        for number in count(1):  # one entry, unless MLflow lost a run, or is another one
            stands = ws.store.journal.claim(Topic.SHOWN, name, number, {"mlflow_run_id": run_id})["mlflow_run_id"]
            if stands == run_id or exists(stands):
                return stands
        raise AssertionError("unreachable")

    ws.report(f"publish: {content.name}")
    return publish_content(content, ws.config.tracking_uri, _artifact_root(ws), settle)


def _run_metrics(records: Mapping[str, Record]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for record in records.values():
        match record:
            case Manifest():
                metrics |= {"assets": record.assets, "new_assets": record.new_assets, "rejected": record.rejected}
            case QualityReport():
                metrics |= {"quarantined": record.quarantined, "quality_passed": float(record.passed), "quality_warnings": len(record.warnings)}
            case EmbeddingSet():
                metrics |= {"embedded_assets": record.assets}
            case DuplicateReport():
                metrics |= {"exact_groups": record.exact_groups, "near_groups": record.near_groups}
            case NoveltyReport():
                metrics |= {"candidates": record.candidates, "novel": record.novel, "rare": record.rare, "themes": record.themes, "shifted": float(record.shifted)}
            case IndexSnapshot():
                metrics |= {"indexed": record.elements, **_recall_metrics(record)}
            case DatasetVersion():
                metrics |= {"version_assets": record.assets}
            case CollectionReport():
                metrics |= {"collection_passed": float(record.passed)}
    return {name: float(value) for name, value in metrics.items()}


def _lineage(version: DatasetVersion, ws: Workspace) -> dict[str, str]:
    """Names of the records a version was made from, and their ids."""
    snapshot = _snapshot(version, ws)
    spec = json.loads(version.spec)
    lineage = {"index": snapshot.id, "encoder": version.encoder_id, "duplicates": snapshot.duplicates_id}
    for number, manifest_id in enumerate(snapshot.manifests[-8:]):
        lineage[f"manifest_{number}"] = manifest_id
    for number, report_id in enumerate(
        sorted(set(ws.store.read_table(version, columns=["report_id"])["report_id"].to_pylist()))[:8]
    ):
        lineage[f"quality_{number}"] = report_id
    if spec["parent"]:
        parent = find_version(spec["parent"], ws)
        lineage["parent"] = parent.id
        row = next((row for row in ws.catalog.versions(parent.name) if row.digest == parent.digest), None)
        if row is not None and row.mlflow_run_id:
            lineage["parent_run"] = row.mlflow_run_id
    return lineage


def _snapshot(version: DatasetVersion, ws: Workspace) -> IndexSnapshot:
    snapshot = ws.store.load_record(IndexSnapshot, version.snapshot_id)
    if snapshot is None:
        raise CorruptArtifact(f"Index snapshot {version.snapshot_id} of version {version.name} is missing. Run `discovery verify`.")
    return snapshot


def _version_metrics(version: DatasetVersion, ws: Workspace) -> dict[str, float]:
    snapshot = _snapshot(version, ws)
    metrics: dict[str, float] = {
        "assets": version.assets, "candidates": version.candidates, "leaked": version.leaked,
        "removed_for_leakage": version.removed_for_leakage, **_recall_metrics(snapshot), **{f"split_{name}": n for name, n in version.splits.items()},
    }  # fmt: skip
    if version.optimality_bound is not None:
        metrics["optimality_bound"] = version.optimality_bound
    return {name: float(value) for name, value in metrics.items()}


def _recall_metrics(snapshot: IndexSnapshot) -> dict[str, float]:
    """What was certified of an index: its recall, the bound that holds for every stratum, and each stratum's own."""
    metrics = {"recall_at_10": snapshot.recall_at_10, "recall_lower_bound": snapshot.recall_lower_bound, "recall_target": snapshot.recall_target}
    return metrics | {f"recall_lower_bound_{stratum.name}": stratum.lower_bound for stratum in snapshot.strata}


def _version_description(version: DatasetVersion, number: int, lineage: Mapping[str, str], ws: Workspace) -> str:
    splits = ", ".join(f"{name} {n:,}" for name, n in version.splits.items())
    bound = (
        ""
        if version.optimality_bound is None
        else f" The selection reaches at least {version.optimality_bound:.0%} of the optimum."
    )
    rows = "\n".join(f"| {name} | `{record_id}` |" for name, record_id in lineage.items())
    return (
        f"## {version.name}@{number}\n\n{version.assets:,} assets of {version.candidates:,} candidates: {splits}. "
        f"{version.leaked} leak between splits.{bound}\n\nDigest `{version.digest}`\n\n"
        f"Open **gallery.html** among the artifacts to see the members.\n\n| made from | id |\n|---|---|\n{rows}\n"
    )


def _version_datasets(version: DatasetVersion, number: int, ws: Workspace) -> tuple[DatasetInfo, ...]:
    root = ws.config.root if ws.config.is_remote else ws.config.local_folder.as_uri()
    members = DatasetInfo(version.name, version.digest, f"{root}/{ws.store.file_path(version, 'table')}", version.assets, "output")
    inputs = []
    for manifest_id in _snapshot(version, ws).manifests[-8:]:
        manifest = ws.store.load_record(Manifest, manifest_id)
        if manifest is not None:
            url = f"{root}/{ws.store.file_path(manifest, 'table')}"
            inputs.append(DatasetInfo(f"manifest-{manifest.id[:8]}", manifest.id, url, manifest.rows, "input"))
    return (members, *inputs)


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


def _quality_reports(version: DatasetVersion, ws: Workspace) -> dict[str, str]:
    texts = {}
    for report_id in sorted(set(ws.store.read_table(version, columns=["report_id"])["report_id"].to_pylist())):
        report = ws.store.load_record(QualityReport, report_id)
        if report is not None:
            texts[f"quality/{report_id[:12]}.html"] = ws.store.read_file(report, "report").decode()
    return texts


def _artifact_root(ws: Workspace) -> Path:
    return ws.config.local_folder / "mlartifacts"


def _public_url(ws: Workspace) -> str:
    uri = ws.config.mlflow.public_url or ws.config.tracking_uri
    return uri if uri.startswith(("http://", "https://")) else "http://127.0.0.1:5000"
