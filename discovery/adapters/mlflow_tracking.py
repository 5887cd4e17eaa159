"""MLflow: one idempotent call that makes a run with its tags, metrics, datasets, artifacts and description."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from discovery.adapters.embedded import made_whole
from discovery.adapters.heavy_imports import uncollected
from discovery.errors import DiscoveryError, StorageFull, TrackingError

T = TypeVar("T")
Settle = Callable[[str, Callable[[str], bool]], str]  # of a run to fill, and whether another is there: the run that it shall be
ATTEMPTS = 4  # the first logging of one dataset from parallel runs can answer 400 "UNIQUE constraint"
SQLITE = "sqlite:///"
SCHEMA = Path(__file__).with_name("mlflow_schema.sql")
DIGEST_TAG = "discovery.digest"
FORMAT_TAG = "discovery.format"
DESCRIPTION_TAG = "mlflow.note.content"
DESCRIPTION_LIMIT = 8000  # MLflow cuts longer ones silently
ANSWER_S = 10.0  # for a server to answer at all


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """A dataset of a run: its name, whole content hash, where it is, how many rows, and its role ("input", "output", …)."""

    name: str
    sha256: str
    url: str
    rows: int
    context: str


@dataclass(frozen=True, slots=True)
class RunContent:
    """All that a run shows. `digest` makes it idempotent: one run for a digest and experiment.

    made_ms: when what it shows was made, since 1970; 0 for now. format: of what is shown; a finished run of another one is filled anew.
    """

    experiment: str
    name: str
    digest: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    description: str
    datasets: tuple[DatasetInfo, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    binaries: Mapping[str, bytes] = field(default_factory=dict)
    made_ms: int = 0
    format: str = ""


def publish_content(content: RunContent, tracking_uri: str, artifact_root: Path, settle: Settle = lambda run_id, exists: run_id) -> tuple[str, str]:
    """(run id, experiment id) of the finished run with this digest; made when there is none yet, completed when it broke off.

    artifact_root: where artifacts go when the tracking store is a local database without a server. settle: which run it shall be,
    asked before one is filled, since MLflow lets two callers that find none make one each. Raises TrackingError.
    """
    with connected(tracking_uri, artifact_root) as client:
        experiment_id = experiment(client, content.experiment, tracking_uri, artifact_root)
        return settled_run(client, experiment_id, content, settle), experiment_id


@contextmanager
def connected(tracking_uri: str, artifact_root: Path) -> Iterator[Any]:
    """An MlflowClient of the tracking store and its registry; whatever MLflow refuses until it is left becomes a TrackingError.

    A server that does not answer is told at once, where MLflow's own client tries for minutes.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stdout belongs to --json
    _require_answer(tracking_uri)
    with uncollected():
        import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    for name in ("mlflow.store.db.utils", "mlflow.store.model_registry.abstract_store"):  # "Creating initial database tables", "Waiting up to"
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        create_embedded(tracking_uri, artifact_root.absolute().as_uri())
        yield mlflow.MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise _refusal(error, tracking_uri) from error


def settled_run(
    client: Any, experiment_id: str, content: RunContent, settle: Settle, *, parent_run_id: str = "", finish: Callable[[str], None] | None = None
) -> str:  # fmt: skip
    """The one run of this digest in an experiment, filled and finished; of several that were made, the others are deleted.

    finish: what else must be there before the run counts as finished, given its id; may be asked for again, of a run that broke off.
    """
    condition = f"tags.`{DIGEST_TAG}` = '{content.digest}'"
    runs = client.search_runs([experiment_id], condition, order_by=["attributes.start_time ASC"])
    tags = {**content.tags, DIGEST_TAG: content.digest, DESCRIPTION_TAG: content.description[:DESCRIPTION_LIMIT]}
    if parent_run_id:
        tags["mlflow.parentRunId"] = parent_run_id
    first = next((run for run in runs if run.info.status == "FINISHED"), runs[0] if runs else None)
    offered = first or client.create_run(experiment_id, tags=tags, run_name=content.name, start_time=content.made_ms or None)
    run_id = settle(str(offered.info.run_id), lambda other: _is_there(client, other))
    for other in {str(run.info.run_id) for run in (*runs, offered)} - {run_id}:  # of another publisher, or of one that was killed
        client.delete_run(other)
    run = client.get_run(run_id)
    if run.info.status != "FINISHED" or run.data.tags.get(FORMAT_TAG, "") != content.format:
        _fill(client, run_id, content)
        if finish is not None:
            finish(run_id)
        if content.format:
            client.set_tag(run_id, FORMAT_TAG, content.format)
        client.set_terminated(run_id, "FINISHED", end_time=content.made_ms or None)
    return run_id


def add_to_run(client: Any, run_id: str, tags: Mapping[str, str], metrics: Mapping[str, float], texts: Mapping[str, str], made_ms: int) -> None:
    """Add to a run that is there, texts first and tags last, so that a tag tells that all is there. made_ms: when the metrics were taken."""
    from mlflow.entities import Metric, RunTag

    known = client.get_run(run_id).data.tags
    if all(known.get(name) == value for name, value in tags.items()):
        return
    for path, text in texts.items():
        client.log_text(run_id, text, path)
    client.log_batch(run_id, metrics=[Metric(name, value, made_ms, 0) for name, value in metrics.items()])
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def describe_run(client: Any, run_id: str, description: str) -> None:
    """Replace the description of a run; longer than 8,000 characters MLflow would cut it without a word."""
    client.set_tag(run_id, DESCRIPTION_TAG, description[:DESCRIPTION_LIMIT])


def _is_there(client: Any, run_id: str) -> bool:
    return found(lambda: client.get_run(run_id).info.lifecycle_stage == "active") or False


def found(ask: Callable[[], T]) -> T | None:
    """The answer, or None when MLflow does not know what was asked for: it is another server, or lost it."""
    from mlflow.exceptions import MlflowException

    try:
        return ask()
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _require_answer(tracking_uri: str) -> None:
    if not tracking_uri.startswith(("http://", "https://")):
        return
    import httpx

    try:
        httpx.get(f"{tracking_uri.rstrip('/')}/health", timeout=ANSWER_S)  # whatever it answers: a proxy may ask for a login here
    except httpx.HTTPError as error:
        raise _refusal(error, tracking_uri) from error


def _refusal(error: Exception, tracking_uri: str) -> DiscoveryError:
    """What a person reads; the statement that failed, which SQLAlchemy adds in further lines, is left out."""
    place = _without_password(tracking_uri)
    if "disk is full" in str(error):
        return StorageFull(f"MLflow at {place}: no space left. The result is committed; free some space and run the same command again to publish it.")
    first = (str(error).splitlines() or [""])[0][:300]
    start = "" if tracking_uri.startswith(SQLITE) else "start MLflow and "
    return TrackingError(
        f"MLflow at {place} did not take the run: {type(error).__name__}: {first}. "
        f"The result is committed and nothing is lost: {start}run the same command again to publish it; a version waits, and "
        "`discovery publish` or whatever is published next delivers it."
    )


def create_embedded(tracking_uri: str, artifacts: str) -> None:
    """Make the SQLite file of an embedded MLflow, when there is none yet. artifacts: URI for experiments that name no place.

    MLflow would make the tables of its first release and change them by all its migrations, 2.3 s; their result is kept beside this file, and is
    taken when it is of the MLflow that is installed (tests/adapters/mlflow_schema.py writes it).
    """
    if not tracking_uri.startswith(SQLITE):
        return
    with made_whole(Path(tracking_uri.removeprefix(SQLITE))) as draft:
        if draft is not None:
            import sqlite3

            import mlflow.version

            first, _, schema = SCHEMA.read_text().partition("\n")
            if first == f"-- MLflow {mlflow.version.VERSION}":
                try:
                    with contextlib.closing(sqlite3.connect(draft)) as database:
                        database.executescript(schema)
                except sqlite3.Error as error:  # a full disk
                    raise _refusal(error, tracking_uri) from error
            with uncollected():
                from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

            SqlAlchemyStore(f"{SQLITE}{draft}", artifacts).engine.dispose()


def run_url(public_url: str, experiment_id: str, run_id: str) -> str:
    """The page of a run; without workflowType MLflow opens in another mode that hides parts of it."""
    return f"{public_url.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def experiment(client: Any, name: str, tracking_uri: str, artifact_root: Path) -> str:
    """The id of an experiment, made when there is none of that name, and restored when it was deleted."""

    def make() -> str:
        found = client.get_experiment_by_name(name)
        if found is not None:
            if found.lifecycle_stage == "deleted":  # in the UI, where nobody can tell that versions still need it; its name is taken
                client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)
        location = None if tracking_uri.startswith(("http://", "https://")) else (artifact_root / name).absolute().as_uri()
        return str(client.create_experiment(name, artifact_location=location))

    return retried(make)


def _fill(client: Any, run_id: str, content: RunContent) -> None:
    from mlflow.entities import Dataset as DatasetEntity
    from mlflow.entities import DatasetInput, InputTag, Metric, Param

    made_ms = content.made_ms or int(client.get_run(run_id).info.start_time)  # the same on a retry, so that no value is there twice
    client.log_batch(
        run_id,
        metrics=[Metric(name, value, made_ms, 0) for name, value in content.metrics.items()],
        params=[Param(name, value[:6000]) for name, value in content.params.items()],
    )
    has = {item.dataset.name for item in client.get_run(run_id).inputs.dataset_inputs}
    inputs = [
        DatasetInput(
            DatasetEntity(
                name=item.name, digest=item.sha256[:32], source_type="http" if item.url.startswith("http") else "external",
                source=json.dumps({"url": item.url}), profile=json.dumps({"rows": item.rows, "sha256": item.sha256}),
            ),
            [InputTag("mlflow.data.context", item.context)],
        )
        for item in content.datasets
        if item.name not in has
    ]  # fmt: skip
    if inputs:
        retried(lambda: client.log_inputs(run_id, datasets=inputs))
    for path, text in content.texts.items():
        client.log_text(run_id, text, path)
    import tempfile

    for path, data in content.binaries.items():
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, Path(path).name)
            file.write_bytes(data)
            client.log_artifact(run_id, str(file), str(Path(path).parent) if Path(path).parent != Path(".") else None)


def retried(work: Callable[[], T]) -> T:
    """The result; tried again when another caller made the same thing at the same time."""
    from mlflow.exceptions import MlflowException

    for attempt in range(ATTEMPTS):
        try:
            return work()
        except MlflowException as error:
            lost_a_race = "UNIQUE" in str(error) or "already exists" in str(error) or "unique constraint" in str(error)
            if attempt == ATTEMPTS - 1 or not lost_a_race:
                raise
            time.sleep(0.1 * 2**attempt)
    raise AssertionError("unreachable")


def _without_password(uri: str) -> str:
    import re

    return re.sub(r"//[^/@]*@", "//", uri)


def members_csv(members: pa.Table) -> str:
    """The members as CSV, which MLflow shows as a table (it shows no Parquet)."""
    import pyarrow.csv as csv

    sink = pa.BufferOutputStream()
    csv.write_csv(members, sink)
    return bytes(sink.getvalue()).decode()
