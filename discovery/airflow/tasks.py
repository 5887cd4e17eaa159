"""Bodies of the Airflow tasks: the only module that knows XCom, where records travel as small dicts of ids, counts and names.

Each body opens a workspace, revives its inputs, calls one stage, logs the counts as its last line and returns the record. What a person
must correct (a wrong source, spec or setting) fails at once; anything else is tried again.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from discovery.errors import UsageError

if TYPE_CHECKING:
    from discovery.spec import CollectionSpec
    from discovery.types import DuplicateReport, EmbeddingSet, Manifest, Record
    from discovery.workspace import Workspace

Json = dict[str, Any]
log = logging.getLogger(__name__)
BATCH = "batch"  # kind of the catalog names that lead from a batch id to its manifest


@contextmanager
def task_workspace(params: Mapping[str, Any] | None = None) -> Iterator[Workspace]:
    """A workspace with the form's settings over the configured ones; usage errors become failures without retry."""
    from airflow.sdk.exceptions import AirflowFailException

    from discovery.airflow.connections import configured
    from discovery.workspace import open_workspace

    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    try:
        config = configured().replace(**settings_of(params or {}))
        with open_workspace(config, report=log.info) as ws:
            yield ws
    except UsageError as error:
        raise AirflowFailException(str(error)) from error


FORM_SETTINGS = {
    "fdr": ("novelty", "fdr"),
    "encoder": ("encoder", "name"),
    "weights": ("encoder", "weights"),
    "min_side_px": ("check", "min_side_px"),
    "max_quarantined": ("check", "max_quarantined"),
    "max_rejected": ("check", "max_rejected"),
}


def settings_of(params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings a form overrides; empty fields leave what is configured.

    >>> settings_of({"fdr": 0.2, "encoder": ""})
    {'novelty': {'fdr': 0.2}}
    """
    settings: dict[str, dict[str, Any]] = {}
    for field, (section, key) in FORM_SETTINGS.items():
        value = params.get(field)
        if value not in (None, ""):
            settings.setdefault(section, {})[key] = value
    return settings


def sources_of_form(text: str) -> list[str]:
    """Sources as typed: one a line, or separated by commas.

    >>> sources_of_form("/photos, s3://bucket/x")
    ['/photos', 's3://bucket/x']
    """
    return [part.strip() for part in re.split(r"[\n,]", text) if part.strip()]


# one body a stage


def ingest(params: Mapping[str, Any], batch: str = "") -> Json:
    """Manifest of the form's sources, named as the batch when there is one."""
    from discovery.stages.ingest import ingest as stage

    with task_workspace(params) as ws:
        sources = sources_of_form(str(params.get("source") or "")) or list(ws.config.schedule.sources)
        manifest = stage(sources, ws)
        if batch:
            ws.catalog.set_name(BATCH, batch, manifest.id)
        return done(manifest, ws, rows=manifest.rows, assets=manifest.assets, new=manifest.new_assets, rejected=manifest.rejected)


def check(params: Mapping[str, Any], manifest: Json, context: Any = None) -> Json:
    """Quality report; fails, without retry, when the batch missed its expectations (the report is in the store and in MLflow before)."""
    from airflow.sdk.exceptions import AirflowFailException

    from discovery.pipeline import QualityFailed, require_quality
    from discovery.publish import show_quality
    from discovery.stages.check import check as stage

    with task_workspace(params) as ws:
        batch = _manifest(manifest)
        report = stage(batch, ws)
        show_quality(batch, report, ws, airflow_tags(context))
        missed = " ".join(report.warnings) or "none"
        answer = done(report, ws, assets=report.assets, quarantined=report.quarantined, warnings=missed, passed=report.passed)
        try:
            require_quality(batch, report, ws, airflow_tags(context))
        except QualityFailed as error:
            raise AirflowFailException(str(error)) from error
        return answer


def embed(params: Mapping[str, Any], manifest: Json, report: Json) -> Json:
    """Embedding set of the manifest."""
    from discovery.stages.embed import embed as stage
    from discovery.types import QualityReport

    with task_workspace(params) as ws:
        embeddings = stage(_manifest(manifest), QualityReport.from_dict(report), ws)
        counts = {"computed": ws.tally["embed_shard.computed"], "reused": ws.tally["embed_shard.reused"]}
        return done(embeddings, ws, assets=embeddings.assets, **counts)


def dedupe(params: Mapping[str, Any], manifest: Json, embeddings: Json) -> Json:
    """Duplicate report."""
    from discovery.stages.dedupe import dedupe as stage

    with task_workspace(params) as ws:
        report = stage(_manifest(manifest), _embeddings(embeddings), ws)
        return done(report, ws, assets=report.assets, exact_groups=report.exact_groups, near_groups=report.near_groups)


def score(params: Mapping[str, Any], manifest: Json, embeddings: Json, duplicates: Json) -> Json:
    """Novelty report."""
    from discovery.stages.score import score as stage

    with task_workspace(params) as ws:
        reference = str(params.get("reference") or "")
        report = stage(_manifest(manifest), _embeddings(embeddings), _duplicates(duplicates), ws, reference)
        return done(report, ws, candidates=report.candidates, reference=report.reference or "-", novel=report.novel, themes=report.themes, rare=report.rare, shifted=report.shifted, note=report.note or "-")


def index(params: Mapping[str, Any], manifest: Json, embeddings: Json, duplicates: Json) -> Json:
    """Index snapshot that holds the manifest."""
    from discovery.stages.index import index as stage

    with task_workspace(params) as ws:
        snapshot = stage(_manifest(manifest), _embeddings(embeddings), _duplicates(duplicates), ws)
        recall = {"recall_at_10": round(snapshot.recall_at_10, 4), "lower_bound": round(snapshot.recall_lower_bound, 4)}
        return done(snapshot, ws, elements=snapshot.elements, segments=len(snapshot.segments), ef=snapshot.ef_search, **recall)


def curate(params: Mapping[str, Any], snapshot: Json | None = None) -> Json:
    """Dataset version from the form's spec, or its name and budget; `snapshot` only orders the tasks."""
    from discovery.stages.curate import curate as stage

    with task_workspace(params) as ws:
        version = stage(spec_of_form(params, ws), ws)
        return done(version, ws, name=version.name, assets=version.assets, leaked=version.leaked, digest=version.digest[:16])


def number_previewed(params: Mapping[str, Any], previewed: Json) -> Json:
    """The version that was previewed, with a number, whatever has been indexed or saved since: what somebody approved is what is published."""
    from discovery.stages.curate import numbered
    from discovery.stages.versions import find_version

    with task_workspace(params) as ws:
        version = numbered(find_version(previewed["version_id"], ws), ws)
        return done(version, ws, name=version.name, assets=version.assets, leaked=version.leaked, digest=version.digest[:16])


def check_collection(params: Mapping[str, Any], version: Json, context: Any = None) -> Json:
    """Collection report, in MLflow with the version's run; fails after that, without retry, when the version missed its expectations."""
    from airflow.sdk.exceptions import AirflowFailException

    from discovery.pipeline import QualityFailed, require_collection
    from discovery.publish import publish_collection_report
    from discovery.stages.check_collection import check_collection as stage
    from discovery.types import DatasetVersion

    with task_workspace(params) as ws:
        curated = DatasetVersion.from_dict(version)
        report = stage(curated, ws)
        published = publish_collection_report(curated, report, ws, airflow_tags(context))
        missed = " ".join(report.warnings) or "none"
        answer = done(report, ws, name=published.name, number=published.number, assets=report.assets, warnings=missed, passed=report.passed)
        try:
            require_collection(published, report)
        except QualityFailed as error:
            raise AirflowFailException(str(error)) from error
        return answer


def preview(params: Mapping[str, Any], context: Any = None) -> Json:
    """What the form's spec gives: a version without a number, to be looked at on its page, which `number_previewed` takes as it is.

    Saves the spec when the form asks for it, under the name of who triggered the run. `body` is what an approval shows.
    """
    from airflow.configuration import conf

    from discovery.stages.curate import prepare
    from discovery.stages.preview_words import preview_markdown
    from discovery.stages.saved_specs import remember_names, save_spec

    with task_workspace(params) as ws:
        spec = spec_of_form(params, ws)
        if params.get("save") and str(params.get("spec") or "").strip() and not params.get("saved"):
            user = context["dag_run"].triggering_user_name if context is not None else None  # None also for a run that no user triggered
            save_spec(text_of_form(params), user or "airflow", ws, "form: spec")
        remember_names(ws)
        version = prepare(spec, ws)
        facts = json.loads(ws.store.read_file(version, "facts"))
        page = f"{conf.get('api', 'base_url', fallback='').rstrip('/')}/discovery/#versions?version={version.id}"
        body = preview_markdown(version, facts, page, ws)
        log.info("preview: %s assets of %s candidates, splits %s, removed %s", version.assets, version.candidates, version.splits, facts["removed"])
        log.info("preview: look at the pictures: %s", page)
        return {
            "name": version.name, "version_id": version.id, "assets": version.assets, "candidates": version.candidates, "splits": version.splits,
            "removed": facts["removed"], "leaked": version.leaked, "page": page, "body": body,
        }  # fmt: skip


def after_preview(params: Mapping[str, Any]) -> str | None:
    """The task that follows the preview: nothing for a preview only, a person's approval when asked for, else the collection."""
    if params["dry_run"]:
        log.info("preview only: nothing is curated")
        return None
    return "approve" if params["approval"] else "curate"


def publish(params: Mapping[str, Any], version: Json, records: Mapping[str, Json] | None = None, context: Any = None) -> Json:
    """The version in MLflow, and the run that made it; the page's address goes to XCom for the task's button."""
    from discovery.publish import publish_run, publish_version
    from discovery.types import DatasetVersion, record_from_json

    tags = airflow_tags(context)
    with task_workspace(params) as ws:
        if records:
            publish_run({stage: record_from_json(_text(record)) for stage, record in records.items()}, ws, tags)
        published = publish_version(DatasetVersion.from_dict(version), ws, tags)
    if context is not None:
        context["ti"].xcom_push(key="mlflow_run_url", value=published.url)
    log.info("publish: %s@%s, digest %s, %s", published.name, published.number, published.digest, published.url)
    return {
        "name": published.name, "number": published.number, "digest": published.digest, "mlflow_run_id": published.mlflow_run_id,
        "mlflow_version": published.mlflow_version, "url": published.url,
    }  # fmt: skip


# for the scheduled chain


def batch_manifest(batch: str | None) -> Json:
    """The manifest of a batch id, which is the run's partition key. Fails without retry when there is none or it was never ingested."""
    from discovery.errors import InvalidInput, UnknownRecord

    with task_workspace() as ws:
        if not batch:
            raise InvalidInput("This run has no partition key, so it has no batch. Trigger it with a batch id as its partition key.")
        manifest_id = ws.catalog.get_name(BATCH, batch)
        if manifest_id is None:
            raise UnknownRecord(f"No batch {batch!r} was ingested. Trigger ingest_batch first.")
        return ws.catalog.get_record(manifest_id).to_dict()


def batch_embeddings(batch: str | None) -> Json:
    """The embedding set of a batch id, made by embed_batch."""
    from discovery.errors import UnknownRecord
    from discovery.types import EmbeddingSet

    manifest = batch_manifest(batch)
    with task_workspace() as ws:
        for record in ws.catalog.records(EmbeddingSet.stage):
            if isinstance(record, EmbeddingSet) and record.manifest_id == manifest["id"]:
                return record.to_dict()
        raise UnknownRecord(f"Batch {batch!r} has no embeddings yet. Trigger embed_batch for it first.")


def catch_up(embeddings: Json) -> Json:
    """Index what earlier batches left behind: embedded by the same encoder, in no index. Oldest first; ids of what was added.

    A lost event or a failed run of index_batch so costs at most the time until the next batch.
    """
    from discovery.stages.dedupe import dedupe as dedupe_stage
    from discovery.stages.history import head_snapshot
    from discovery.stages.index import index as index_stage
    from discovery.stages.score import score as score_stage
    from discovery.types import EmbeddingSet, Manifest

    encoder_id = _embeddings(embeddings).encoder_id
    added: list[str] = []
    with task_workspace() as ws:
        newest: dict[str, EmbeddingSet] = {}  # of each manifest; its older sets were made under other check settings
        for record in ws.catalog.records(EmbeddingSet.stage):
            if isinstance(record, EmbeddingSet) and record.encoder_id == encoder_id:
                newest.setdefault(record.manifest_id, record)
        for left in reversed(newest.values()):
            head = head_snapshot(encoder_id, ws)
            manifest = ws.catalog.get_record(left.manifest_id)
            if not isinstance(manifest, Manifest) or (head is not None and manifest.id in head.manifests):
                continue
            duplicates = dedupe_stage(manifest, left, ws)
            score_stage(manifest, left, duplicates, ws)
            index_stage(manifest, left, duplicates, ws)
            log.info("catch up: manifest %s, %s assets", manifest.id, left.assets)
            added.append(manifest.id)
    log.info("catch up: %s batches were left behind and are indexed now", len(added))
    return {"encoder_id": encoder_id, "manifests": added}


def collections_to_refresh() -> list[str]:
    """Spec files and names of saved specs in schedule.collections; none is said and is no failure."""
    with task_workspace() as ws:
        uris = list(ws.config.schedule.collections)
        if not uris:
            log.info("refresh: schedule.collections is empty, so there is nothing to keep up to date")
        return uris


def refresh(uri: str, context: Any = None) -> Json | None:
    """Curate, check and publish one spec of schedule.collections over the current index; None when too little changed since its newest version.

    A version whose check is missing, or a task that is tried again, is of a run that broke off, and is finished however little changed since.
    Fails without retry when the version misses its expectations, which it is published with.
    """
    from airflow.sdk.exceptions import AirflowFailException

    from discovery.pipeline import QualityFailed, require_collection
    from discovery.publish import publish_collection_report
    from discovery.stages.check_collection import check_collection as check_stage
    from discovery.stages.collection_change import collection_change
    from discovery.stages.curate import curate as stage

    with task_workspace() as ws:
        publish_before(ws)
        spec = _spec_at(uri, ws)
        least = ws.config.schedule.least_change
        if least > 0 and (context is None or context["ti"].try_number == 1):
            change = collection_change(spec, ws)
            log.info("refresh: %s: %s", spec.name, change.sentence)
            if change.share < least and change.is_checked:
                log.info("refresh: %s stays as it is: less than schedule.least_change = %s changed", spec.name, least)
                return None
        version = stage(spec, ws)
        report = check_stage(version, ws)
        published = publish_collection_report(version, report, ws, airflow_tags(context))
        try:
            require_collection(published, report)
        except QualityFailed as error:
            raise AirflowFailException(str(error)) from error
        log.info("refresh: %s@%s, digest %s, %s", published.name, published.number, published.digest, published.url)
        return {
            "name": published.name, "number": published.number, "digest": published.digest, "mlflow_run_id": published.mlflow_run_id,
            "mlflow_version": published.mlflow_version, "url": published.url,
        }  # fmt: skip


def publish_before(ws: Workspace) -> None:
    """Deliver what waits to be published, before anything new; MLflow being down is said and stops nothing."""
    from discovery.errors import TrackingError
    from discovery.publish import publish_pending as deliver

    try:
        deliver(ws)
    except TrackingError as error:
        log.warning("publish: %s", error)


def maintain(compact: bool = False) -> Json:
    """Say what the configured encoder lacks, and merge segments when there are many; the snapshot that is current then.

    Skipped, with all after it, while there is no index, or none by the configured encoder: the log then tells what making it would cost.
    """
    from airflow.sdk.exceptions import AirflowSkipException

    from discovery.errors import ConfigError
    from discovery.stages.encoder_change import encoder_change
    from discovery.stages.maintain import maintain as stage

    with task_workspace() as ws:
        if not ws.catalog.heads():
            raise AirflowSkipException(f"There is no index under {ws.config.root} yet, so there is nothing to maintain.")
        change = encoder_change(ws)
        log.info("encoder: %s", change.sentence)
        try:
            snapshot = stage(ws, compact=compact)
        except ConfigError as error:
            raise AirflowSkipException(f"{error} {change.sentence}") from error
        return done(snapshot, ws, elements=snapshot.elements, segments=len(snapshot.segments))


def audit() -> Json:
    """Measure the recall of the current index again; fails when its bound is under the target."""
    from airflow.sdk.exceptions import AirflowFailException

    from discovery.stages.maintain import audit_recall

    with task_workspace() as ws:
        snapshot, measured = audit_recall(ws)
        log.info("audit: recall@10 %.4f, at least %.4f, ef %s", measured.recall, measured.lower_bound, measured.ef)
        for stratum in measured.strata:
            log.info("audit: %s (%.0f %% of all): %.4f, at least %.4f, %s queries", *(
                stratum.name, 100 * stratum.share, stratum.recall, stratum.lower_bound, stratum.queries))  # fmt: skip
        if not measured.certified:
            worst = min(measured.strata, key=lambda stratum: stratum.lower_bound)
            raise AirflowFailException(
                f"Recall of index {snapshot.id[:12]}… is certified only to {measured.lower_bound:.4f} (by its {worst.name} pictures), the target is "
                f"{ws.config.index.recall_target}. Raise index.m or index.ef_construction, and compact; or ask more with index.audit_queries."
            )
        return {"index_id": snapshot.id, "recall_at_10": measured.recall, "recall_lower_bound": measured.lower_bound}


def publish_pending() -> Json:
    """Deliver to MLflow what it does not show yet; fails, to be tried again, while MLflow does not answer or a version is damaged."""
    from discovery.errors import DiscoveryError
    from discovery.publish import publish_pending as deliver

    with task_workspace() as ws:
        done, failed = deliver(ws)
        log.info("publish: %s versions were waiting and are in MLflow now, %s could not be published", len(done), len(failed))
        if failed:
            raise DiscoveryError("; ".join(f"{one.name}@{one.number}: {one.error}" for one in failed))
        return {"published": [f"{one.name}@{one.number}" for one in done]}


def sweep() -> Json:
    """Remove files that no record names."""
    from discovery.stages.sweep import sweep as stage

    with task_workspace() as ws:
        result = stage(ws)
        log.info("sweep: %s files, %s bytes removed", result.removed, result.bytes)
        return {"removed": result.removed, "bytes": result.bytes}


# helpers


def spec_of_form(params: Mapping[str, Any], ws: Workspace) -> CollectionSpec:
    """The saved spec when the form names one, else its YAML (the budget overridden by the form's), else name and budget. Raises SpecError."""
    from discovery.spec import parse_spec

    saved = str(params.get("saved") or "").strip()
    text = str(params.get("spec") or "").strip()
    if saved:
        spec = _spec_at(saved, ws)
    elif not text:
        return parse_spec(f"name: {params.get('collection')}\nbudget: {params.get('budget')}\n", "form")
    else:
        spec = parse_spec(text_of_form(params), "form: spec")
    override = params.get("budget_override")
    return spec.model_copy(update={"budget": override}) if override else spec


def text_of_form(params: Mapping[str, Any]) -> str:
    """The YAML of the form, or that of the file that it names."""
    text = str(params.get("spec") or "").strip()
    return _read(text) if _is_file(text) else text + "\n"


def _spec_at(where: str, ws: Workspace) -> CollectionSpec:
    """The spec of a YAML file, or the saved one of a name."""
    from discovery.spec import parse_spec
    from discovery.stages.saved_specs import saved_spec

    return parse_spec(_read(where), where) if _is_file(where) else saved_spec(where, ws)


def _is_file(text: str) -> bool:
    return "\n" not in text and text.endswith((".yaml", ".yml"))


def _read(uri: str) -> str:
    import fsspec

    with fsspec.open(uri, "rt") as handle:
        return str(handle.read())


def airflow_tags(context: Any) -> dict[str, str]:
    """Tags that lead from an MLflow run back to the Airflow run."""
    if context is None:
        return {}
    ti = context["ti"]
    return {"airflow.dag_id": ti.dag_id, "airflow.run_id": ti.run_id, "airflow.try_number": str(ti.try_number)}


def done(record: Record, ws: Workspace, **counts: Any) -> Json:
    """Log the counts, the last line of a task's log, and give the record as XCom."""
    log.info("%s: %s, record %s", record.stage, ", ".join(f"{name} {value}" for name, value in counts.items()), record.id)
    return record.to_dict()


def dataset_event(published: Mapping[str, Any]) -> Json:
    """What the event of a dataset version carries."""
    return {name: published[name] for name in ("name", "number", "digest", "mlflow_run_id", "mlflow_version", "url")}


def slug(text: str) -> str:
    """A batch id from a run id: letters, digits, dots, dashes.

    >>> slug("manual__2026-01-01T00:00:00+00:00")
    'manual-2026-01-01T00-00-00-00-00'
    """
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")


def _text(record: Json) -> str:
    from discovery.addressing import canonical_json

    return canonical_json(record)


def _manifest(data: Json) -> Manifest:
    from discovery.types import Manifest

    return Manifest.from_dict(data)


def _embeddings(data: Json) -> EmbeddingSet:
    from discovery.types import EmbeddingSet

    return EmbeddingSet.from_dict(data)


def _duplicates(data: Json) -> DuplicateReport:
    from discovery.types import DuplicateReport

    return DuplicateReport.from_dict(data)
