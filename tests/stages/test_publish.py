"""One MLflow run shows a version, also when two publish it at once, when one of them was killed, and when MLflow was lost."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest

from discovery import publish
from discovery.adapters.mlflow_tracking import DatasetInfo, RunContent
from discovery.config import Config
from discovery.core.standing import Standing, Yank, promoted, with_yank
from discovery.errors import InvalidInput
from discovery.pipeline import run_pipeline
from discovery.publish import _publish, pending_versions, publish_collection_report, publish_pending, publish_run, publish_version
from discovery.spec import parse_spec
from discovery.stages.check_collection import check_collection
from discovery.stages.curate import curate, numbered, prepare
from discovery.stages.history import current_snapshot
from discovery.stages.versions import move
from discovery.types import DatasetVersion
from discovery.workspace import Workspace, open_workspace

MEMBERS = DatasetInfo("members", "f" * 64, "file:///members.parquet", 3, "output")
SPEC = "name: some\nbudget: 3\nwhere: category = '0'\n"
CONTENT = RunContent("experiment", "run", "d" * 64, {}, {"budget": "3"}, {"assets": 3.0}, "described", (MEMBERS,), {"a.txt": "text"})


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with open_workspace(Config(root=str(tmp_path / "root")), map_shards=map) as opened:
        yield opened


@dataclass
class Library:
    """A root with pictures in folders `0` and `1`, of which the first is indexed."""

    ws: Workspace
    folder: Path

    def add(self, number: int) -> None:
        run_pipeline([str(self.folder / str(number))], self.ws, curate_default=False)

    def version(self, budget: int = 3) -> DatasetVersion:
        return curate(parse_spec(SPEC.replace("3", str(budget), 1)), self.ws)

    @property
    def client(self) -> Any:
        return mlflow.MlflowClient(tracking_uri=self.ws.config.tracking_uri)

    def aliases(self) -> dict[str, str]:
        return {alias: str(at) for alias, at in self.client.get_registered_model("dataset.some").aliases.items()}


@pytest.fixture
def library(tmp_path: Path, tiny_pictures: Path) -> Iterator[Library]:
    for number, file in enumerate(sorted(tiny_pictures.iterdir())):
        (tmp_path / "pictures" / str(number % 2)).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / "pictures" / str(number % 2))
    config = Config(root=str(tmp_path / "root")).replace(dask={"scheduler": "inline"}, ingest={"decoders": 1})
    with open_workspace(config, map_shards=map) as opened:
        made = Library(opened, tmp_path / "pictures")
        made.add(0)
        yield made


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


def test_what_is_equal_in_content_is_one_version_whatever_index_it_was_chosen_over(library: Library) -> None:
    first = library.version()
    publish_version(first, library.ws)
    library.add(1)
    again = curate(parse_spec(SPEC), library.ws)
    assert again == first and again.snapshot_id != current_snapshot(library.ws).id
    publish_collection_report(again, check_collection(again, library.ws), library.ws)
    assert pending_versions(library.ws) == [] and publish_pending(library.ws) == ([], [])


def test_an_alias_that_moves_while_a_version_is_delivered_stays_where_it_was_moved(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    first = library.version()
    move("some", lambda state: promoted(state, 1), "promote", "ana", library.ws)
    describe, moved = publish.describe_version, []

    def while_others_go_on(*arguments: Any) -> None:
        if not moved:
            moved.append(1)
            second = library.version(4)
            move("some", lambda state: promoted(state, 2), "promote", "ben", library.ws)
            publish_version(second, library.ws)
        describe(*arguments)

    monkeypatch.setattr(publish, "describe_version", while_others_go_on)
    publish_version(first, library.ws)
    publish_pending(library.ws)
    assert library.aliases() == {"current": "2", "previous": "1"} and pending_versions(library.ws) == []


def test_a_yank_while_a_version_is_delivered_is_said_on_its_page(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    first = library.version()
    describe, yanked = publish.describe_version, []

    def while_somebody_yanks(*arguments: Any) -> None:
        describe(*arguments)
        if not yanked:
            yanked.append(move("some", lambda state: with_yank(state, 1, Yank("blurred", "ana", "2026-01-01")), "yank", "ana", library.ws))

    monkeypatch.setattr(publish, "describe_version", while_somebody_yanks)
    publish_version(first, library.ws)
    shown = library.client.get_model_version("dataset.some", "1")
    assert "blurred" in shown.tags["discovery.yanked"] and "Yanked by ana" in shown.description and pending_versions(library.ws) == []


def test_a_version_waits_for_the_earlier_ones_of_its_collection_alone(library: Library) -> None:
    first, _ = library.version(), library.version(4)
    assert publish_version(first, library.ws).mlflow_version == "1"
    assert {row.number: bool(row.mlflow_version) for row in library.ws.catalog.versions("some")} == {1: True, 2: False}


def test_a_registry_that_lost_its_versions_gets_them_again_with_their_aliases(library: Library, tmp_path: Path) -> None:
    for number in (1, 2):
        publish_version(library.version(2 + number), library.ws)
        move("some", lambda state, number=number: promoted(state, number), "promote", "ana", library.ws)  # type: ignore[misc]
    publish_pending(library.ws)
    assert library.aliases() == {"current": "2", "previous": "1"}
    for number in ("1", "2"):
        library.client.delete_model_version("dataset.some", number)
    publish_pending(library.ws, look_again=True)
    assert library.aliases() == {"current": "4", "previous": "3"} and pending_versions(library.ws) == []
    with open_workspace(library.ws.config.replace(mlflow={"tracking_uri": f"sqlite:///{tmp_path / 'other.db'}"}), map_shards=map) as moved:
        publish_pending(moved, look_again=True)
        assert Library(moved, library.folder).aliases() == {"current": "2", "previous": "1"}


def test_what_somebody_deletes_in_mlflow_is_mended(library: Library) -> None:
    publish_version(library.version(), library.ws)
    move("some", lambda state: promoted(state, 1), "promote", "ana", library.ws)
    publish_pending(library.ws)
    library.client.delete_registered_model_alias("dataset.some", "current")
    library.client.delete_experiment(library.client.get_experiment_by_name("some").experiment_id)
    assert publish_pending(library.ws) == ([], [])  # what is so was said; nobody asked to look
    publish_pending(library.ws, look_again=True)
    assert library.aliases() == {"current": "1"} and library.client.get_experiment_by_name("some").lifecycle_stage == "active"
    publish_version(library.version(4), library.ws)
    assert pending_versions(library.ws) == []


def test_a_version_whose_parent_was_yanked_meanwhile_gets_no_number(library: Library) -> None:
    library.version()
    grown = prepare(parse_spec("name: some\nbudget: 5\nparent: some@1\n"), library.ws)
    move("some", lambda state: with_yank(state, 1, Yank("blurred", "ana", "2026-01-01")), "yank", "ana", library.ws)
    with pytest.raises(InvalidInput, match=r"cannot be a parent any more: it was yanked by ana on 2026-01-01: blurred"):
        numbered(grown, library.ws)
    with pytest.raises(InvalidInput, match="at most 500 characters"):
        with_yank(Standing(), 1, Yank("x" * 501, "ana", ""))


def test_a_folder_is_a_name_and_no_markdown(library: Library) -> None:
    folder = library.folder / "![x](http:evil)"
    shutil.copytree(library.folder / "0", folder)
    run_pipeline([str(folder)], library.ws, curate_default=False)
    manifest = library.ws.catalog.records("ingest")[0]
    run_id = publish_run({"ingest": manifest}, library.ws)
    assert r"\!\[x\]\(http:evil\)" in library.client.get_run(run_id).data.tags["mlflow.note.content"]
