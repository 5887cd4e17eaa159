"""What MLflow shows of each record that a dataset version was made from: a run a stage, with its numbers, its report and the record itself."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from discovery.adapters.mlflow_tracking import DatasetInfo, RunContent
from discovery.addressing import content_id
from discovery.errors import CorruptArtifact
from discovery.gallery import Tile, gallery_html
from discovery.stages.dedupe import duplicate_groups
from discovery.stages.history import load_snapshot
from discovery.stages.lineage import in_words
from discovery.types import (
    CollectionReport,
    DatasetVersion,
    DuplicateReport,
    EmbeddingSet,
    IndexSnapshot,
    Manifest,
    NoveltyReport,
    QualityReport,
    Record,
)
from discovery.version_page import escape
from discovery.workspace import Workspace

BATCHES = 6  # most batches whose runs are shown with one version; `discovery lineage` has all of them
GROUPS_SHOWN, NOVEL_SHOWN = 500, 60
REPORT_FILES: Mapping[str, str] = {"check": "quality.html", "score": "novelty.html", "check_collection": "report.html", "dedupe": "groups.csv"}


@dataclass(frozen=True, slots=True)
class Ancestry:
    """The records that a version was made from, those of a stage together; `batches` is how many there are, of which these are the most used."""

    snapshot: IndexSnapshot
    manifests: tuple[Manifest, ...]
    quality: tuple[QualityReport, ...]
    embeddings: tuple[EmbeddingSet, ...]
    novelty: tuple[NoveltyReport, ...]
    duplicates: DuplicateReport | None
    batches: int

    def records(self) -> tuple[Record, ...]:
        """All of them, what others are made from first."""
        duplicates = (self.duplicates,) if self.duplicates else ()
        return (*self.manifests, *self.quality, *self.embeddings, *duplicates, *self.novelty, self.snapshot)


def ancestry(version: DatasetVersion, ws: Workspace) -> Ancestry:
    """What a version was made from: of the batches those that most of its members come from. Raises CorruptArtifact when the index is lost."""
    snapshot = load_snapshot(version.snapshot_id, ws)
    used = Counter(ws.store.read_table(version, columns=["report_id"])["report_id"].to_pylist())
    names = sorted(used, key=lambda key: (-used[key], key))
    loaded = [ws.store.load_record(QualityReport, key) for key in names[:BATCHES]]
    reports = [report for report in loaded if report is not None]
    of = {report.manifest_id for report in reports}
    manifests = [ws.store.load_record(Manifest, key) for key in snapshot.manifests if key in of]
    sets = [ws.store.load_record(EmbeddingSet, key) for key in snapshot.embeddings]
    scored = [ws.store.load_record(NoveltyReport, key) for key in version.inputs]
    novelty = [report for report in scored if report is not None]
    return Ancestry(
        snapshot=snapshot,
        manifests=tuple(manifest for manifest in manifests if manifest is not None),
        quality=tuple(reports),
        embeddings=tuple(one for one in sets if one is not None and one.manifest_id in of),
        novelty=tuple([one for one in novelty if one.manifest_id in of] or novelty[-1:]),
        duplicates=ws.store.load_record(DuplicateReport, snapshot.duplicates_id) if snapshot.duplicates_id else None,
        batches=len(used),
    )


def stage_run(record: Record, parent_run_id: str, experiment: str, ws: Workspace) -> RunContent:
    """The run that shows a record below a version's run; one for both."""
    return RunContent(
        experiment=experiment,
        name=f"{record.stage} {record.id[:8]}",
        digest=content_id([parent_run_id, record.id]),
        tags={"discovery.kind": "stage", "discovery.stage": record.stage, "discovery.record_id": record.id},
        params=_params(record),
        metrics=stage_metrics([record]),
        description=_description(record),
        datasets=_datasets(record, ws),
        texts={"record.json": json.dumps(record.to_dict(), indent=2, sort_keys=True), **_texts(record, ws)},
        made_ms=milliseconds(record.created_at),
    )


def stage_metrics(records: Sequence[Record]) -> dict[str, float]:
    """The numbers of records, by name."""
    metrics: dict[str, float] = {}
    for record in records:
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
                metrics |= {"indexed": record.elements, **recall_metrics(record)}
            case DatasetVersion():
                metrics |= {"version_assets": record.assets}
            case CollectionReport():
                metrics |= {"collection_passed": float(record.passed)}
    return {name: float(value) for name, value in metrics.items()}


def recall_metrics(snapshot: IndexSnapshot) -> dict[str, float]:
    """What was certified of an index: its recall, the bound that holds for every stratum, and each stratum's own."""
    metrics = {"recall_at_10": snapshot.recall_at_10, "recall_lower_bound": snapshot.recall_lower_bound, "recall_target": snapshot.recall_target}
    return metrics | {f"recall_lower_bound_{stratum.name}": stratum.lower_bound for stratum in snapshot.strata}


def milliseconds(created_at: str) -> int:
    """A record's time as MLflow counts it."""
    return int(datetime.fromisoformat(created_at).timestamp() * 1000)


def address_of(source: str, ws: Workspace) -> str:
    """A source as an address: a local path becomes a file: URI."""
    return source if urlsplit(source).scheme else Path(source).absolute().as_uri()


def _params(record: Record) -> dict[str, str]:
    match record:
        case Manifest():
            return {"sources": ", ".join(record.sources)}
        case EmbeddingSet():
            return {"encoder_id": record.encoder_id, "dim": str(record.dim)}
        case NoveltyReport():
            return {"reference": record.reference, "fdr": str(record.fdr), "score": record.score}
        case IndexSnapshot():
            return {"encoder_id": record.encoder_id, "ef_search": str(record.ef_search), "segments": str(len(record.segments))}
        case _:
            return {}


def _description(record: Record) -> str:
    lines = [f"**{escape(in_words(record))}**", "", f"Record `{record.id}` of stage `{record.stage}`, made {record.created_at}."]
    match record:
        case Manifest():
            lines += ["", "Sources:", "", *(f"- {_linked(source)}" for source in record.sources[:50])]
        case NoveltyReport() if record.note:
            lines += ["", escape(record.note)]
        case CollectionReport() if record.warnings:
            lines += ["", f"Warnings: {escape(', '.join(record.warnings))}."]
        case _:
            pass
    if record.inputs:
        shown = ", ".join(f"`{key[:16]}`" for key in record.inputs[:12])
        lines += ["", f"Made from {shown}{'' if len(record.inputs) <= 12 else f' and {len(record.inputs) - 12} more'}."]
    return "\n".join(lines)


def _linked(source: str) -> str:
    parts = urlsplit(source)
    is_link = parts.scheme in ("http", "https") and not set(source) & set("()<> ")
    return f"[{escape(source)}]({source})" if is_link else escape(source)


def _datasets(record: Record, ws: Workspace) -> tuple[DatasetInfo, ...]:
    if not isinstance(record, Manifest):
        return ()
    return tuple(
        DatasetInfo(f"source {Path(urlsplit(source).path).name or source}"[:100], content_id([record.id, source]), address_of(source, ws), record.rows, "source")
        for source in record.sources[:20]
    )


def _texts(record: Record, ws: Workspace) -> dict[str, str]:
    match record:
        case Manifest():
            return {"rejections.json": json.dumps(record.rejections, indent=2)} if record.rejections else {}
        case QualityReport():
            return {"quality.html": ws.store.read_file(record, "report").decode(), "expectations.json": ws.store.read_file(record, "expectations").decode()}
        case DuplicateReport():
            rows = [f"{number},{asset_id}" for number, group in enumerate(duplicate_groups(record, ws)[:GROUPS_SHOWN], 1) for asset_id in group]
            return {"groups.csv": "\n".join(["group,asset_id", *rows]) + "\n"}
        case NoveltyReport():
            return {"novelty.html": _novelty_html(record, ws)}
        case CollectionReport():
            return {"report.html": ws.store.read_file(record, "report").decode(), "expectations.json": ws.store.read_file(record, "expectations").decode()}
        case DatasetVersion():
            return {"spec.json": json.dumps(json.loads(record.spec), indent=2)}
        case _:
            return {}


def _novelty_html(report: NoveltyReport, ws: Workspace) -> str:
    table = ws.store.read_table(report, columns=["asset_id", "novelty", "q_value", "is_novel"])
    rows = table.filter(table["novelty"].is_valid()).sort_by([("novelty", "descending"), ("asset_id", "ascending")]).slice(0, NOVEL_SHOWN).to_pylist()
    manifest = ws.store.load_record(Manifest, report.manifest_id)
    if manifest is None:
        raise CorruptArtifact(f"Manifest {report.manifest_id} of novelty report {report.id} is missing. Run `discovery verify`.")
    listed = ws.store.read_table(manifest, columns=["asset_id", "source_uri"])
    uris = dict(zip(listed["asset_id"].to_pylist(), listed["source_uri"].to_pylist(), strict=True))

    def tile(row: Mapping[str, object]) -> Tile:
        asset_id = str(row["asset_id"])
        q = f", q {row['q_value']:.3g}" if isinstance(row["q_value"], float) else ""
        return Tile(ws.thumbnail(asset_id), Path(uris.get(asset_id) or asset_id).name, f"novelty {row['novelty']:.3g}{q}")

    novel = [tile(row) for row in rows if row["is_novel"]]
    others = [tile(row) for row in rows if not row["is_novel"]]
    lead = f"{in_words(report)}, at a false-discovery rate of {report.fdr:g}. Report {report.id}. {report.note}"
    return gallery_html(f"Novelty {report.id[:12]}", lead, [("Novel", novel), ("The most novel of the others", others)])
