"""One MLflow run shows a version, also when two publish it at once, when one of them was killed, and when MLflow was lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import pytest

from discovery.adapters.mlflow_tracking import DatasetInfo, RunContent
from discovery.config import Config
from discovery.publish import _publish
from discovery.workspace import Workspace, open_workspace

MEMBERS = DatasetInfo("members", "f" * 64, "file:///members.parquet", 3, "output")
CONTENT = RunContent("experiment", "run", "d" * 64, {}, {"budget": "3"}, {"assets": 3.0}, "described", (MEMBERS,), {"a.txt": "text"})


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with open_workspace(Config(root=str(tmp_path / "root")), map_shards=map) as opened:
        yield opened


def runs(ws: Workspace, experiment_id: str) -> list[tuple[str, str]]:
    client = mlflow.MlflowClient(tracking_uri=ws.config.tracking_uri)
    return [(run.info.run_id, run.info.status) for run in client.search_runs([experiment_id])]


def test_of_two_that_publish_at_once_one_makes_the_run(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    _publish(RunContent("experiment", "other", "e" * 64, {}, {}, {}, ""), ws)  # the database is there
    both, create = threading.Barrier(2), mlflow.MlflowClient.create_run

    def when_both_found_none(client: mlflow.MlflowClient, *arguments: Any, **values: Any) -> Any:
        both.wait(60)
        return create(client, *arguments, **values)

    monkeypatch.setattr(mlflow.MlflowClient, "create_run", when_both_found_none)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: _publish(CONTENT, ws), range(2))
    assert one == other and (one[0], "FINISHED") in runs(ws, one[1]) and len(runs(ws, one[1])) == 2
    assert _publish(CONTENT, ws) == one


def test_a_run_that_a_killed_publisher_left_is_finished(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "log_batch", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            _publish(CONTENT, ws)
    run_id, experiment_id = _publish(CONTENT, ws)
    assert runs(ws, experiment_id) == [(run_id, "FINISHED")]


def test_a_deleted_run_and_another_mlflow_are_published_to_again(ws: Workspace, tmp_path: Path) -> None:
    first, experiment_id = _publish(CONTENT, ws)
    mlflow.MlflowClient(tracking_uri=ws.config.tracking_uri).delete_run(first)
    second, _ = _publish(CONTENT, ws)
    assert second != first and runs(ws, experiment_id) == [(second, "FINISHED")]
    with open_workspace(ws.config.replace(mlflow={"tracking_uri": f"sqlite:///{tmp_path / 'other.db'}"}), map_shards=map) as moved:
        third, experiment_id = _publish(CONTENT, moved)
        assert runs(moved, experiment_id) == [(third, "FINISHED")] and third not in (first, second)
