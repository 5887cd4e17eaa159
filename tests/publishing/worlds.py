"""What the tests of publishing share: real pictures in two batches, an MLflow server, and what must be so once a version is published."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import mlflow
from PIL import Image

from discovery.adapters.mlflow_registry import IDENTITY_TAG
from discovery.workspace import Workspace

SIDE_PX = 104
BATCH_A, BATCH_B = "temple", "flower"
CHANGING = (
    "create_experiment", "create_run", "log_batch", "log_text", "log_artifact", "log_inputs", "log_outputs", "set_tag", "set_terminated", "delete_run",
    "create_logged_model", "finalize_logged_model", "delete_logged_model", "create_registered_model", "create_model_version", "update_model_version",
    "set_model_version_tag", "delete_model_version_tag", "delete_model_version", "set_registered_model_alias", "delete_registered_model_alias",
)  # fmt: skip


def photographs(folder: Path) -> None:
    """Parts of two photographs that scikit-learn carries: a batch of a temple, another of a flower."""
    import sklearn.datasets

    images = Path(sklearn.datasets.__file__).parent / "images"
    for batch, file in ((BATCH_A, "china.jpg"), (BATCH_B, "flower.jpg")):
        (folder / batch).mkdir(parents=True)
        with Image.open(images / file) as photograph:
            for x in range(0, photograph.width - SIDE_PX, SIDE_PX):
                for y in range(0, photograph.height - SIDE_PX, SIDE_PX):
                    photograph.crop((x, y, x + SIDE_PX, y + SIDE_PX)).save(folder / batch / f"{x}-{y} <b>|.png")


class Server:
    """An MLflow server on this machine, which may be started and stopped; its database stays."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environ = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}", "--artifacts-destination", (self.folder / "artifacts").as_uri(),
        ]  # fmt: skip
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environ, start_new_session=True)
        until = time.monotonic() + 180
        while time.monotonic() < until:
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            try:
                if httpx.get(f"{self.url}/health", timeout=5).is_success:
                    return
            except httpx.HTTPError:
                time.sleep(0.2)
        raise AssertionError("MLflow did not start")

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, 15)  # its own group: the server and its worker
            self.process.wait(30)
            self.process = None


def client_of(uri: str) -> Any:
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


def shown_once(ws: Workspace, name: str) -> Any:
    """Assert that every version of a collection is in MLflow, whole and once, with every record and model once; a client to look further."""
    client = client_of(ws.config.tracking_uri)
    rows = sorted(ws.catalog.versions(name), key=lambda row: row.number)
    experiment_id = client.get_experiment_by_name(name).experiment_id
    runs = client.search_runs([experiment_id], max_results=1000)
    assert {run.info.status for run in runs} == {"FINISHED"}
    parents = [run for run in runs if run.data.tags["discovery.kind"] == "dataset_version"]
    assert sorted(run.info.run_id for run in parents) == sorted(str(row.mlflow_run_id) for row in rows)
    stages = [run for run in runs if run.data.tags["discovery.kind"] == "stage"]
    assert {run.data.tags["mlflow.parentRunId"] for run in stages} == {run.info.run_id for run in parents}
    assert set(Counter((run.data.tags["mlflow.parentRunId"], run.data.tags["discovery.record_id"]) for run in stages).values()) == {1}
    assert len(runs) == len(parents) + len(stages)
    for run in parents:
        of = {other.data.tags["discovery.stage"] for other in stages if other.data.tags["mlflow.parentRunId"] == run.info.run_id}
        assert of == {"ingest", "check", "embed", "dedupe", "score", "index", "curate", "check_collection"}
        files = {item.path for item in client.list_artifacts(run.info.run_id)}
        assert {"gallery.html", "lineage.png", "members.png", "members.csv", "members.parquet", "spec.json", "collection", "quality"} <= files
        assert len(client.get_metric_history(run.info.run_id, "assets")) == 1
        whole = client.get_run(run.info.run_id)  # a search leaves the models out
        assert len(whole.outputs.model_outputs) == 1 and len(whole.inputs.model_inputs) == 2
    shared = client.get_experiment_by_name(ws.config.mlflow.experiment).experiment_id
    models = client.search_logged_models([experiment_id, shared], max_results=100)
    assert {str(model.status) for model in models} == {"READY"}
    identities = Counter(model.tags[IDENTITY_TAG] for model in models)
    assert set(identities.values()) == {1}
    assert Counter(identity.partition(":")[0] for identity in identities)["dataset"] == len(rows)
    versions = client.search_model_versions(f"name = 'dataset.{name}'")
    assert sorted((item.tags["discovery.digest"], str(item.version)) for item in versions) == sorted((row.digest, row.mlflow_version) for row in rows)
    for item in versions:
        assert f"Digest `{item.tags['discovery.digest']}`" in item.description and len(item.description) <= 8000
    return client


class Stopped(BaseException):
    """A kill."""


def stopping_after(changes: int, patch: Callable[[type, str, Any], None], stop: Callable[[], None]) -> None:
    """Make the process stop right after that many calls by which MLflow is changed."""
    left = [changes]

    def stopped(original: Any) -> Any:
        def call(*arguments: Any, **values: Any) -> Any:
            answer = original(*arguments, **values)
            left[0] -= 1
            if left[0] == 0:
                stop()
            return answer

        return call

    for name in CHANGING:
        patch(mlflow.MlflowClient, name, stopped(getattr(mlflow.MlflowClient, name)))
