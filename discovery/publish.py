"""Publish: record runs and dataset versions in MLflow, with metrics, lineage and a gallery; the same version only once."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from discovery.adapters.catalog import VersionRow
from discovery.adapters.journal import Topic
from discovery.adapters.mlflow_registry import (
    ModelContent,
    describe_version,
    has_version,
    is_shown,
    link_models,
    model_metrics,
    point_aliases,
    settled_model,
    settled_version,
    version_url,
)
from discovery.adapters.mlflow_tracking import (
    DESCRIPTION_TAG,
    RunContent,
    Settle,
    add_to_run,
    connected,
    describe_run,
    experiment,
    publish_content,
    retried,
    settled_run,
)
from discovery.addressing import content_id
from discovery.core.standing import Standing, promoted
from discovery.errors import DiscoveryError, StorageFull, TrackingError
from discovery.stage_runs import Ancestry, ancestry, milliseconds, stage_metrics, stage_run
from discovery.stages.lineage import in_words
from discovery.stages.versions import find_version, move, parent_of, row_of, standing_of, version_of
from discovery.types import CollectionReport, DatasetVersion, DriftReport, Manifest, QualityReport, Record
from discovery.version_content import FORMAT, REGISTERED, Pages, about_collection, card_files, page_of, version_run
from discovery.version_page import escape, version_markdown
from discovery.workspace import Workspace

SAID_LIMIT = 2000  # characters of what comes from outside, in descriptions of 8,000
MODEL_NAME = re.compile(r"[^A-Za-z0-9_-]+")  # what is not in the name of a LoggedModel


@dataclass(frozen=True, slots=True)
class Published:
    """A version with its number, its MLflow run and the page where it is shown, which is that of MLflow's registry."""

    name: str
    number: int
    digest: str
    mlflow_run_id: str
    url: str
    mlflow_version: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """A version that could not be published, and why; the others were."""

    name: str
    number: int
    error: str
    is_stuck: bool = False  # MLflow refused it; what is damaged never comes, and is passed over


def publish_version(version: DatasetVersion, ws: Workspace, tags: Mapping[str, str] | None = None) -> Published:
    """Show a version in MLflow, in the experiment of its collection and in the registry; a version that is there is returned.

    Whatever waits to be published goes first, of its own collection what has a smaller number; what cannot be delivered keeps later versions of its own collection waiting, and
    no other. A version of the same digest that has the number already is shown instead. tags: added to the run, such as who triggered it. Raises TrackingError, after which the version waits: the next publication of anything, or `publish_pending`, delivers it.
    """
    row = ws.catalog.add_version(version.name, version.id, version.digest, version.created_at)
    for one in _deliver_what_waits(ws, row):
        if one.is_stuck and one.name == row.name:
            raise TrackingError(f"{one.name}@{one.number} comes first and cannot be delivered: {one.error}")
    return _deliver(version_of(row, ws), ws.catalog.get_version(row.name, row.number), ws, tags or {})


def publish_collection_report(version: DatasetVersion, report: CollectionReport, ws: Workspace, tags: Mapping[str, str] | None = None) -> Published:
    """Show a version in MLflow, its run with the report, its verdict and its numbers. Raises TrackingError, as `publish_version` does.

    A candidate that passed becomes the collection's current version, whether MLflow answers or not.
    """
    row = ws.catalog.add_version(version.name, version.id, version.digest, version.created_at)
    if report.passed and report.version_id == row.version_id:
        move(version.name, lambda state: promoted(state, row.number) if state.candidate == row.number else state, f"{row.number} passed its check", "check", ws)
    return publish_version(version, ws, tags)


def publish_pending(
    ws: Workspace, name: str | None = None, before: VersionRow | None = None, *, look_again: bool = False
) -> tuple[list[Published], list[Failure]]:
    """Deliver what MLflow does not show yet, of one collection or of all, each collection's versions in their order.

    before: a version that is left out with the later ones of its collection. look_again: also at what was delivered, since MLflow may have lost it. A version that is damaged is told, and does not keep the others from being delivered; one that
    MLflow refuses keeps the later ones of its collection. Raises TrackingError when MLflow takes none.
    """
    done: list[Published] = []
    failed: list[Failure] = []
    refused: TrackingError | None = None
    stuck: set[str] = set()
    every = sorted(ws.catalog.versions(name), key=lambda row: (row.name, row.number))
    for row in every if look_again else pending_versions(ws, name):
        if before is not None and row.name == before.name and row.number >= before.number:
            continue
        if row.name in stuck:
            failed.append(Failure(row.name, row.number, "an earlier version of the collection comes first", True))
            continue
        try:
            version = find_version(f"{row.name}@{row.number}", ws)
            done.append(_deliver(version, row, ws, {}))
        except StorageFull:
            raise
        except TrackingError as error:
            refused = refused or error
            stuck.add(row.name)
            failed.append(Failure(row.name, row.number, str(error), True))
        except DiscoveryError as error:
            ws.report(f"publish: {row.name}@{row.number}: {error}")
            failed.append(Failure(row.name, row.number, str(error)))
    if refused is not None and not done:
        raise refused
    return done, failed


def _deliver_what_waits(ws: Workspace, before: VersionRow | None = None) -> list[Failure]:
    """`publish_pending` before something else is published, which a version that MLflow refuses does not stop: it is told, and goes on waiting."""
    try:
        return publish_pending(ws, before=before)[1]
    except TrackingError as error:
        ws.report(f"publish: what waits cannot be delivered: {error}")
        late = [row for row in pending_versions(ws) if before is None or row.name != before.name or row.number < before.number]
        return [Failure(row.name, row.number, str(error), True) for row in late]


def pending_versions(ws: Workspace, name: str | None = None) -> list[VersionRow]:
    """Versions of which MLflow does not show all that is so: not yet published, checked since, or with other aliases. Oldest first."""
    rows = ws.catalog.versions(name)
    reports = _reports(ws)
    standings = {collection: standing_of(collection, ws) for collection in {row.name for row in rows}}
    waiting = [row for row in rows if (row.shown or "") != _wanted(row, reports.get(row.version_id, []), standings[row.name])]
    return sorted(waiting, key=lambda row: (row.name, row.number))


def _reports(ws: Workspace) -> dict[str, list[CollectionReport]]:
    """The collection reports of every version, newest first."""
    found: dict[str, list[CollectionReport]] = {}
    for report in ws.catalog.records(CollectionReport.stage):
        if isinstance(report, CollectionReport):
            found.setdefault(report.version_id, []).append(report)
    return found


def _wanted(row: VersionRow, reports: Sequence[CollectionReport], standing: Standing) -> str:
    """A name for what MLflow should show of a version now; when it shows another, the version waits to be published."""
    yank = standing.yanked.get(row.number)
    said = [yank.reason, yank.by, yank.at] if yank else None
    return f"{FORMAT}-{content_id([[report.id for report in reports], said, sorted(standing.of(row.number))])[:24]}"


def _deliver(version: DatasetVersion, row: VersionRow, ws: Workspace, tags: Mapping[str, str]) -> Published:
    """Make MLflow show a version as it is now; every step may be repeated, so that a kill at any of them costs nothing."""
    standing = standing_of(row.name, ws)
    reports = _reports(ws).get(version.id, [])
    registered = f"{REGISTERED}{row.name}"
    publisher = uuid.uuid4().hex
    parent = parent_of(version, ws)
    parent_row = row_of(parent, ws) if parent else None
    with connected(ws.config.tracking_uri, _artifact_root(ws)) as client:
        if row.shown == _wanted(row, reports, standing) and is_shown(client, row.mlflow_run_id or "", registered, row.mlflow_version or "", standing.of(row.number)):
            return Published(row.name, row.number, row.digest, row.mlflow_run_id or "", row.mlflow_url or "", row.mlflow_version or "")
        ws.report(f"publish: {row.name}@{row.number}")
        if parent is not None and parent_row is not None and not parent_row.mlflow_version:  # of another collection: its page is linked
            _deliver(parent, parent_row, ws, {})
            parent_row = row_of(parent, ws)
        made_from = ancestry(version, ws)
        content = version_run(version, row, made_from, parent_row, ws, tags)

        def show() -> tuple[str, str, str]:
            pages = _show_runs(client, content, version, row, made_from, reports, ws)
            number = settled_version(
                client, registered, row.digest, pages.models["dataset"], pages.run_id,
                {"discovery.number": str(row.number), "discovery.version_id": version.id, "discovery.collection": row.name},
                _settle(f"registered/{row.name}/{row.digest}", ws), about=about_collection(row.name),
                is_first=lambda: ws.store.journal.claim(Topic.SHOWN, f"first/{row.name}/{row.digest}", 1, {"publisher": publisher})["publisher"] == publisher,
            )  # fmt: skip
            verdict = {"discovery.check": "passed" if reports[0].passed else "failed"} if reports else {}
            now = standing_of(row.name, ws)
            while True:  # somebody else may move an alias or yank meanwhile, and have shown it already: the last look is at what stands
                yank = now.yanked.get(row.number)
                marks = {"discovery.yanked": f"{yank.reason} ({yank.by}, {yank.at})"} if yank else {}
                text = version_markdown(page_of(version, row, number, made_from, parent, parent_row, reports, pages, now, ws))
                describe_run(client, pages.run_id, text)
                describe_version(client, registered, number, text, {**marks, **verdict}, () if yank else ("discovery.yanked",))
                asked = {*now.aliases.values(), *now.yanked} - {row.number}  # one request each
                there = {row.number: number}
                for one in ws.catalog.versions(row.name):
                    if one.number in asked and one.mlflow_version and has_version(client, registered, one.mlflow_version, one.mlflow_run_id or ""):
                        there[one.number] = one.mlflow_version
                point_aliases(client, registered, {alias: there.get(at, "") for alias, at in now.aliases.items()}, [there[at] for at in now.yanked if at in there])
                if now == (now := standing_of(row.name, ws)):
                    return pages.run_id, number, _wanted(row, reports, now)

        run_id, number, wanted = retried(show)  # two publishers of one version at once get in each other's way: UNIQUE constraint
    url = version_url(_public_url(ws), registered, number)
    ws.catalog.set_version_run(row.name, row.number, run_id, url, number, wanted)
    return Published(row.name, row.number, row.digest, run_id, url, number)


def _show_runs(
    client: Any, content: RunContent, version: DatasetVersion, row: VersionRow, made_from: Ancestry, reports: Sequence[CollectionReport], ws: Workspace
) -> Pages:  # fmt: skip
    """A version's run, the runs below it and the models; where all of them are."""
    root = _artifact_root(ws)
    pages = Pages(
        experiment_id=experiment(client, row.name, ws.config.tracking_uri, root),
        shared_id=experiment(client, ws.config.mlflow.experiment, ws.config.tracking_uri, root),
    )

    def finish(run_id: str) -> None:
        pages.run_id = run_id
        _show_stages(client, pages, version, made_from, reports, ws)
        _show_models(client, pages, version, row, made_from, ws)

    run_id = settled_run(client, pages.experiment_id, content, _settle(f"{row.name}/{row.digest}", ws), finish=finish)
    if not pages.run_id:  # it is there: its parts are looked up, and what came since is added
        finish(run_id)
    if reports:
        _show_verdict(client, run_id, version, reports[0], ws)
    return pages


def _show_stages(client: Any, pages: Pages, version: DatasetVersion, made_from: Ancestry, reports: Sequence[CollectionReport], ws: Workspace) -> None:
    """A run below the version's for every record that it was made from, and for its reports."""
    for record in (*made_from.records(), version, *reports):
        content = stage_run(record, pages.run_id, version.name, ws)
        settle = _settle(f"{version.name}/{content.digest}", ws)
        pages.runs[record.id] = settled_run(client, pages.experiment_id, content, settle, parent_run_id=pages.run_id)


def _show_models(client: Any, pages: Pages, version: DatasetVersion, row: VersionRow, made_from: Ancestry, ws: Workspace) -> None:
    """Pages of the encoder and the index, shared by all versions that were made with them, and of the version itself."""
    snapshot = made_from.snapshot
    encoder = f"Encoder **{escape(version.encoder_id)}**, {snapshot.dim} dimensions. The runs listed below embedded pictures with it."
    indexed = f"**{escape(in_words(snapshot))}**: index `{snapshot.id}`, of vectors by {escape(snapshot.encoder_id)}. The versions listed below were chosen over it."
    dataset = f"**{escape(row.name)}@{row.number}**, digest `{row.digest}`: {escape(in_words(version))}. Its page is that of the registered version."
    contents = {
        "encoder": ModelContent(
            f"encoder-{MODEL_NAME.sub('-', version.encoder_id)}", "encoder", f"encoder:{version.encoder_id}", {"discovery.encoder_id": version.encoder_id, DESCRIPTION_TAG: encoder},
            {"encoder_id": version.encoder_id, "dim": str(snapshot.dim)},
        ),
        "index": ModelContent(
            f"index-{snapshot.id[:12]}", "index", f"index:{snapshot.id}",
            {"discovery.index_id": snapshot.id, "discovery.encoder_id": snapshot.encoder_id, DESCRIPTION_TAG: indexed},
            {"index_id": snapshot.id, "elements": str(snapshot.elements), "segments": str(len(snapshot.segments)), "ef_search": str(snapshot.ef_search)},
        ),
        "dataset": ModelContent(
            f"{MODEL_NAME.sub('-', row.name)}-{row.number}", "dataset", f"dataset:{row.name}:{row.digest}:{pages.run_id}",
            {"discovery.digest": row.digest, "discovery.number": str(row.number), "discovery.version_id": version.id, DESCRIPTION_TAG: dataset},
            {"digest": row.digest, "number": str(row.number), "spec": version.spec}, pages.run_id,
        ),
    }  # fmt: skip
    for kind, content in contents.items():
        at = pages.experiment_id if kind == "dataset" else pages.shared_id
        pages.models[kind] = settled_model(client, at, content, _settle(f"model/{at}/{content.identity}", ws))
    link_models(client, pages.run_id, inputs=(pages.models["encoder"], pages.models["index"]), outputs=(pages.models["dataset"],))
    for embedded in made_from.embeddings:  # so that the encoder's page lists all that was made with it
        model_metrics(client, pages.runs[embedded.id], pages.models["encoder"], {"embedded_assets": float(embedded.assets)}, milliseconds(embedded.created_at))
    model_metrics(client, pages.runs[snapshot.id], pages.models["index"], {"recall_at_10": snapshot.recall_at_10}, milliseconds(snapshot.created_at))
    members = {"assets": float(version.assets)}
    model_metrics(client, pages.run_id, pages.models["index"], members, milliseconds(version.created_at))
    model_metrics(client, pages.runs[version.id], pages.models["dataset"], members, milliseconds(version.created_at))


def _show_verdict(client: Any, run_id: str, version: DatasetVersion, report: CollectionReport, ws: Workspace) -> None:
    """The verdict of a version's newest report, with its numbers and its page, in the version's run, and the data card with it."""
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
        **card_files(version, ws),
    }
    add_to_run(client, run_id, verdict, metrics, texts, milliseconds(report.created_at))


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
    _deliver_what_waits(ws)
    metrics = stage_metrics(list(records.values()))
    manifest = records.get("ingest")
    sources = ", ".join(manifest.sources) if isinstance(manifest, Manifest) else ""
    said = escape(in_words(manifest))[:SAID_LIMIT] if isinstance(manifest, Manifest) else "records"
    lines = [f"| {stage} | `{record.id[:16]}` |" for stage, record in records.items()]
    content = RunContent(
        experiment=ws.config.mlflow.experiment,
        name=f"{'check' if set(records) == {'ingest', 'check'} else 'run'} {manifest.id[:8]}" if manifest else "run",
        digest=content_id(sorted(record.id for record in records.values())),
        tags={**(tags or {}), "discovery.kind": "run", **{f"discovery.{stage}_id": record.id for stage, record in records.items()}},
        params={"sources": sources},
        metrics=metrics,
        description="\n".join([f"Discovery run: {said}", "", "| stage | record |", "|---|---|", *lines]),
        texts=_run_texts(records, ws),
    )
    run_id, _ = _publish(content, ws)
    return run_id


def publish_drift(report: DriftReport, ws: Workspace, tags: Mapping[str, str] | None = None) -> str:
    """Show a drift report with its page in the experiment of discovery runs; its MLflow run id. The same report, the same run."""
    _deliver_what_waits(ws)
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
        description=f"How **{escape(report.b.label[:SAID_LIMIT])}** differs from **{escape(report.a.label[:SAID_LIMIT])}**. Moved: {', '.join(report.moved) or 'nothing'}. Open **drift.html** among the artifacts.",
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
    ws.report(f"publish: {content.name}")
    return publish_content(content, ws.config.tracking_uri, _artifact_root(ws), _settle(f"{content.experiment}/{content.digest}", ws))


def _settle(name: str, ws: Workspace) -> Settle:
    """Of ids that MLflow gave to one thing, the one that it shall have: the first that is entered in the journal, while MLflow has it."""

    def settle(offered: str, exists: Callable[[str], bool]) -> str:
        for number in count(1):  # one entry, unless MLflow lost it, or is another one
            stands = ws.store.journal.claim(Topic.SHOWN, name, number, {"mlflow_run_id": offered})["mlflow_run_id"]
            if stands == offered or exists(stands):
                return stands
        raise AssertionError("unreachable")

    return settle


def _artifact_root(ws: Workspace) -> Path:
    return ws.config.local_folder / "mlartifacts"


def _public_url(ws: Workspace) -> str:
    uri = ws.config.mlflow.public_url or ws.config.tracking_uri
    return uri if uri.startswith(("http://", "https://")) else "http://127.0.0.1:5000"
