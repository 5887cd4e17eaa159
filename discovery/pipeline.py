"""The whole chain without Airflow: the same stages in the same order, with the seconds each took."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from discovery.errors import DiscoveryError
from discovery.publish import Published, publish_run, publish_version
from discovery.spec import CollectionSpec, parse_spec
from discovery.stages.check import check
from discovery.stages.curate import curate
from discovery.stages.dedupe import dedupe
from discovery.stages.embed import embed
from discovery.stages.index import index
from discovery.stages.ingest import ingest
from discovery.stages.score import score
from discovery.types import Manifest, QualityReport, Record
from discovery.workspace import Workspace

R = TypeVar("R", bound=Record)


class QualityFailed(DiscoveryError):
    """A batch missed its expectations; the report is committed."""


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
    """Ingest, check, embed, dedupe, score, index, then curate and publish.

    spec: what to curate; without one, `curate_default` asks for `default_spec`, and else the chain ends with the index.

    Running it again returns the same records and computes nothing. Raises QualityFailed when the batch misses its expectations,
    and whatever the stages raise.
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
    require_quality(manifest, report)
    embeddings = timed("embed", lambda: embed(manifest, report, ws))
    duplicates = timed("dedupe", lambda: dedupe(manifest, embeddings, ws))
    timed("score", lambda: score(manifest, embeddings, duplicates, ws, reference))
    snapshot = timed("index", lambda: index(manifest, embeddings, duplicates, ws))
    if spec is None and curate_default:
        spec = default_spec(snapshot.elements)
    version = timed("curate", lambda: curate(spec, ws)) if spec is not None else None
    started = time.perf_counter()
    result.mlflow_run_id = publish_run(result.records, ws, tags)
    if version is not None:
        result.published = publish_version(version, ws, tags)
    result.seconds["publish"] = round(time.perf_counter() - started, 3)
    return result


def default_spec(elements: int) -> CollectionSpec:
    """A diverse tenth of an index (at least 1, at most 2,000 assets), named `discovered`."""
    return parse_spec(f"name: discovered\nbudget: {max(1, min(2000, elements // 10))}\n", "default spec")


def require_quality(manifest: Manifest, report: QualityReport) -> None:
    """Stop a run whose batch missed its expectations; the report stays for reading. Raises QualityFailed."""
    if not report.passed:
        raise QualityFailed(
            f"Quality report {report.id[:12]}… failed: {', '.join(report.failed_expectations)} "
            f"({manifest.rejected:,} of {manifest.rows:,} rejected, {report.quarantined:,} of {report.assets:,} quarantined). "
            f"Its page is artifacts/check/{report.id}/{report.file('report').name} under the root; "
            "correct the source, or loosen the [check] settings."
        )
