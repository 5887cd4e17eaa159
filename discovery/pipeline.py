"""The whole chain without Airflow: the same stages in the same order, with the seconds each took."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from discovery.errors import DiscoveryError
from discovery.publish import Published, publish_collection_report, publish_run, show_quality
from discovery.spec import CollectionSpec, parse_spec
from discovery.stages.check import check
from discovery.stages.check_collection import check_collection
from discovery.stages.curate import curate
from discovery.stages.dedupe import dedupe
from discovery.stages.embed import embed
from discovery.stages.index import index
from discovery.stages.ingest import ingest
from discovery.stages.score import score
from discovery.types import CollectionReport, Manifest, QualityReport, Record
from discovery.workspace import Workspace

R = TypeVar("R", bound=Record)


class QualityFailed(DiscoveryError):
    """A batch or a version missed its expectations; the report is in the store, and in MLflow where that answers."""


@dataclass
class RunResult:
    """Every record of the pass, by stage, the published version if there was a spec, and seconds by stage."""

    records: dict[str, Record] = field(default_factory=dict)
    published: Published | None = None
    mlflow_run_id: str = ""
    seconds: dict[str, float] = field(default_factory=dict)


def run_pipeline(
    sources: Sequence[str], ws: Workspace, *, spec: CollectionSpec | None = None, reference: str = "",
    curate_default: bool = False, tags: Mapping[str, str] | None = None,
) -> RunResult:  # fmt: skip
    """Ingest, check, embed, dedupe, score, index, then curate, check the collection, and publish.

    spec: what to curate; without one, `curate_default` asks for `default_spec`, and else the chain ends with the index.

    Running it again returns the same records and computes nothing. Raises QualityFailed when the batch or the version misses its expectations,
    after the reports and all that was made are in MLflow, and whatever the stages raise.
    """
    result = RunResult()

    def timed(stage: str, work: Callable[[], R]) -> R:
        started = time.perf_counter()
        record = work()
        result.seconds[stage] = round(time.perf_counter() - started, 3)
        result.records[stage] = record
        return record

    manifest = timed("ingest", lambda: ingest(sources, ws))
    report = timed("check", lambda: check(manifest, ws))
    require_quality(manifest, report, ws, tags)
    embeddings = timed("embed", lambda: embed(manifest, report, ws))
    duplicates = timed("dedupe", lambda: dedupe(manifest, embeddings, ws))
    timed("score", lambda: score(manifest, embeddings, duplicates, ws, reference))
    snapshot = timed("index", lambda: index(manifest, embeddings, duplicates, ws))
    if spec is None and curate_default:
        spec = default_spec(snapshot.elements)
    version = timed("curate", lambda: curate(spec, ws)) if spec is not None else None
    collection = timed("check_collection", lambda: check_collection(version, ws)) if version is not None else None
    started = time.perf_counter()
    if version is not None and collection is not None:
        result.published = publish_collection_report(version, collection, ws, tags)
    result.mlflow_run_id = publish_run(result.records, ws, tags)
    if result.published is not None and collection is not None:
        require_collection(result.published, collection)
    result.seconds["publish"] = round(time.perf_counter() - started, 3)
    return result


def default_spec(elements: int) -> CollectionSpec:
    """A diverse tenth of an index (at least 1, at most 2,000 assets), named `discovered`."""
    return parse_spec(f"name: discovered\nbudget: {max(1, min(2000, elements // 10))}\n", "default spec")


def require_quality(manifest: Manifest, report: QualityReport, ws: Workspace, tags: Mapping[str, str] | None = None) -> None:
    """Stop a run whose batch missed its expectations, when the report is in MLflow. Raises QualityFailed."""
    if not report.passed:
        run_id = show_quality(manifest, report, ws, tags)
        shown = f" and in MLflow run {run_id}" if run_id else " (MLflow did not take it)"
        raise QualityFailed(
            f"Quality report {report.id[:12]}… failed: {', '.join(report.failed_expectations)} "
            f"({manifest.rejected:,} of {manifest.rows:,} rejected, {report.quarantined:,} of {report.assets:,} quarantined). "
            f"Its page is artifacts/check/{report.id}/{report.file('report').name} under the root{shown}; "
            "correct the source, or loosen the [check] settings."
        )


def require_collection(published: Published, report: CollectionReport) -> None:
    """Stop when a version missed its expectations; its MLflow run, with the report, says so too. Raises QualityFailed."""
    if not report.passed:
        raise QualityFailed(
            f"{published.name}@{published.number} failed its collection check: {', '.join(report.failed_expectations)}. The version stays, and its MLflow run "
            f"{published.mlflow_run_id} is tagged as failed. The page is artifacts/check_collection/{report.id}/{report.file('report').name} under the root, "
            f"and collection/{report.id[:12]}.html in MLflow; correct what it points at and curate again, or change the [collection] settings."
        )
