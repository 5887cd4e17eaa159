"""What the bodies of the tasks do with a real store, without Airflow's services."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from discovery.airflow import tasks
from discovery.config import load_config
from discovery.saved_names import known_names
from discovery.stages.saved_specs import saved_specs
from discovery.types import EmbeddingSet, IndexSnapshot
from discovery.workspace import open_workspace

FORM = {"collection": "chosen", "budget": 3}


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISCOVERY_ROOT", str(tmp_path / "a root"))
    monkeypatch.setenv("DISCOVERY_DASK__SCHEDULER", "inline")
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))


@pytest.fixture
def sources(tiny_pictures: Path, tmp_path: Path) -> list[Path]:
    """Three folders of four pictures."""
    folders = []
    for number in range(3):
        folder = tmp_path / f"source {number}"
        folder.mkdir()
        for picture in sorted(tiny_pictures.iterdir())[number * 4 : number * 4 + 4]:
            shutil.copy(picture, folder)
        folders.append(folder)
    return folders


def embedded(source: Path, batch: str) -> tuple[tasks.Json, tasks.Json]:
    manifest = tasks.ingest({"source": str(source)}, batch)
    return manifest, tasks.embed({}, manifest, tasks.check({}, manifest))


def index(manifest: tasks.Json, embeddings: tasks.Json) -> tasks.Json:
    return tasks.index({}, manifest, embeddings, tasks.dedupe({}, manifest, embeddings))


def head(encoder_id: str) -> IndexSnapshot:
    with open_workspace(load_config()) as ws:
        record = ws.catalog.get_record(str(ws.catalog.snapshot_head(encoder_id)))
    assert isinstance(record, IndexSnapshot)
    return record


def test_batches_left_behind_are_indexed_oldest_first_and_once(sources: list[Path]) -> None:
    left = [embedded(source, f"b{number}")[0]["id"] for number, source in enumerate(sources[:2])]
    manifest, embeddings = embedded(sources[2], "b2")
    index(manifest, embeddings)
    assert tasks.catch_up(embeddings)["manifests"] == left
    snapshot = head(embeddings["encoder_id"])
    assert snapshot.manifests == (manifest["id"], *left) and snapshot.elements == 12
    assert tasks.catch_up(embeddings)["manifests"] == []
    assert head(embeddings["encoder_id"]).id == snapshot.id


def test_a_batch_is_found_by_its_id(sources: list[Path]) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    manifest, embeddings = embedded(sources[0], "b0")
    assert tasks.batch_manifest("b0") == manifest
    assert EmbeddingSet.from_dict(tasks.batch_embeddings("b0")) == EmbeddingSet.from_dict(embeddings)
    with pytest.raises(AirflowFailException, match="No batch 'b9' was ingested"):
        tasks.batch_manifest("b9")
    with pytest.raises(AirflowFailException, match="no partition key"):
        tasks.batch_manifest(None)


def test_what_a_person_must_correct_fails_without_a_retry(tmp_path: Path) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match=r"does not exist\. Check the spelling"):
        tasks.ingest({"source": str(tmp_path / "nowhere")})
    with pytest.raises(AirflowFailException, match="budget"):
        tasks.preview({"spec": "name: x\nbugdet: 3"})


def test_a_failed_quality_report_stops_the_run_and_stays(sources: list[Path]) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    limits = {"min_side_px": 100, "max_quarantined": 0.0}  # the pictures are 64 x 48
    manifest = tasks.ingest({"source": str(sources[0]), **limits})
    with pytest.raises(AirflowFailException, match=r"Quality report .* failed: .*Its page is artifacts/check/"):
        tasks.check(limits, manifest)
    with open_workspace(load_config()) as ws:
        reports = ws.catalog.records("check")
    assert [report.passed for report in reports] == [False]  # type: ignore[attr-defined]


def test_a_failed_report_is_in_mlflow_before_the_task_fails(sources: list[Path]) -> None:
    import mlflow
    from airflow.sdk.exceptions import AirflowFailException

    limits = {"min_side_px": 100, "max_quarantined": 0.0}
    manifest = tasks.ingest({"source": str(sources[0]), **limits})
    with pytest.raises(AirflowFailException, match="and in MLflow run") as failure:
        tasks.check(limits, manifest)
    client = mlflow.MlflowClient(tracking_uri=load_config().tracking_uri)
    (run,) = client.search_runs([client.get_experiment_by_name("discovery").experiment_id])
    assert run.info.run_id in str(failure.value) and run.data.metrics["quality_passed"] == 0


def test_a_version_that_fails_its_check_is_in_mlflow_before_the_task_fails(sources: list[Path], tmp_path: Path) -> None:
    import mlflow
    from airflow.sdk.exceptions import AirflowFailException

    index(*embedded(sources[0], "b0"))
    version = tasks.curate(FORM)
    report = tasks.check_collection(FORM, version)
    assert report["stage"] == "check_collection" and report["passed"]
    published = tasks.publish(FORM, version)
    client = mlflow.MlflowClient(tracking_uri=load_config().tracking_uri)
    assert client.get_run(published["mlflow_run_id"]).data.tags["discovery.collection_report_id"] == report["id"]

    for asset in (tmp_path / "a root" / "assets").rglob("*"):
        if asset.is_file():
            asset.write_bytes(b"lost")
    other = tasks.curate({**FORM, "collection": "other"})
    with pytest.raises(AirflowFailException, match=r"other@1 failed its collection check: bytes_are_intact"):
        tasks.check_collection(FORM, other)
    (run,) = client.search_runs([client.get_experiment_by_name("other").experiment_id], "tags.`discovery.kind` = 'dataset_version'")
    assert run.data.tags["discovery.collection_passed"] == "false"


def test_maintenance_of_nothing_is_skipped() -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    with pytest.raises(AirflowSkipException, match="nothing to maintain"):
        tasks.maintain()


@pytest.mark.parametrize(
    ("params", "follows"),
    [
        ({"dry_run": True, "approval": True}, None),
        ({"dry_run": False, "approval": True}, "approve"),
        ({"dry_run": False, "approval": False}, "curate"),
    ],
)
def test_the_form_decides_what_follows_the_preview(params: dict[str, bool], follows: str | None) -> None:
    assert tasks.after_preview(params) == follows


def test_each_body_logs_its_counts_last(sources: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "discovery.airflow.tasks")
    manifest = tasks.ingest({"source": str(sources[0])})
    assert caplog.messages[-1] == f"ingest: rows 4, assets 4, new 4, rejected 0, record {manifest['id']}"


def test_a_preview_is_a_version_without_a_number_that_the_collection_then_is(sources: list[Path]) -> None:
    index(*embedded(sources[0], "b0"))
    form = {"spec": "name: asked\nbudget: 3\nwhere: width_px > 1\n", "save": True}
    seen = tasks.preview(form)
    assert seen["assets"] == 3 and seen["page"].endswith(f"/discovery/#versions?version={seen['version_id']}")
    assert f"[Look at the pictures]({seen['page']})" in seen["body"] and "Leaks between splits: **0**" in seen["body"]
    with open_workspace(load_config()) as ws:
        assert ws.catalog.versions() == []  # nobody meets it by a name
    assert tasks.number_previewed({}, seen)["id"] == seen["version_id"] == tasks.curate({"saved": "asked"})["id"]
    with open_workspace(load_config()) as ws:
        assert [(row.name, row.number, row.version_id) for row in ws.catalog.versions()] == [("asked", 1, seen["version_id"])]
        assert [(one.name, one.text) for one in saved_specs(ws)] == [("asked", form["spec"])]
    assert known_names(load_config()) == ["asked"]
    assert tasks.preview({"saved": "asked", "spec": "name: other\nbudget: 2\n", "save": True})["name"] == "asked"
    with open_workspace(load_config()) as ws:
        assert [one.name for one in saved_specs(ws)] == ["asked"]  # what was not used is not saved


def test_what_was_previewed_is_what_is_numbered_whatever_came_since(sources: list[Path]) -> None:
    index(*embedded(sources[0], "b0"))
    seen = tasks.preview({"spec": "name: asked\nbudget: 6\n", "save": True})
    tasks.preview({"spec": "name: asked\nbudget: 2\n", "save": True})  # while somebody thinks it over
    index(*embedded(sources[1], "b1"))
    version = tasks.number_previewed({"saved": "asked"}, seen)
    assert version["id"] == seen["version_id"] and version["assets"] == 4
    assert tasks.curate({"saved": "asked"})["assets"] == 2
    with open_workspace(load_config()) as ws:
        assert sorted((row.name, row.number, row.version_id == version["id"]) for row in ws.catalog.versions()) == [("asked", 1, True), ("asked", 2, False)]


def test_the_budget_of_the_form_leaves_the_quotas_as_they_are(sources: list[Path]) -> None:
    index(*embedded(sources[0], "b0"))
    text = "name: asked\nbudget: 4\nquotas: [{by: category, max: 2, values: {other: {min: 0}}}]\n"
    with open_workspace(load_config()) as ws:
        spec = tasks.spec_of_form({"spec": text, "budget_override": 3}, ws)
        plain = tasks.spec_of_form({"spec": text}, ws)
    assert spec.budget == 3 and spec.quotas == plain.quotas


def test_a_refresh_that_broke_off_is_finished_however_little_changed(sources: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tmp_path / "kept.yaml"
    spec.write_text("name: kept\nbudget: 3\nsplits: {train: 1.0}\n")
    monkeypatch.setenv("DISCOVERY_SCHEDULE__LEAST_CHANGE", "0.6")
    monkeypatch.setenv("DISCOVERY_COLLECTION__CONFIDENCE", "0.9")
    index(*embedded(sources[0], "b0"))
    tasks.curate({"spec": spec.read_text()})  # and killed before the check
    first = tasks.refresh(str(spec))
    assert first is not None and first["number"] == 1 and tasks.refresh(str(spec)) is None

    class Again:
        dag_id, run_id, try_number = "refresh_collections", "r", 2

    assert tasks.refresh(str(spec), {"ti": Again}) == first  # MLflow had been down, say, and its event is still to come


def test_a_refresh_leaves_small_changes_alone(sources: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "discovery.airflow.tasks")
    spec = tmp_path / "kept.yaml"
    spec.write_text("name: kept\nbudget: 6\nsplits: {train: 1.0}\n")
    monkeypatch.setenv("DISCOVERY_SCHEDULE__COLLECTIONS", str(spec))
    monkeypatch.setenv("DISCOVERY_SCHEDULE__LEAST_CHANGE", "0.6")
    monkeypatch.setenv("DISCOVERY_COLLECTION__CONFIDENCE", "0.9")
    assert tasks.collections_to_refresh() == [str(spec)]
    index(*embedded(sources[0], "b0"))
    index(*embedded(sources[1], "b1"))
    first = tasks.refresh(str(spec))
    assert first is not None and first["number"] == 1
    index(*embedded(sources[2], "b2"))
    assert tasks.refresh(str(spec)) is None  # 4 of 8 candidates came: 50 %
    assert "since kept@1, 4 candidates came and 0 went, of 8 (50.0%)" in caplog.text
    spec.write_text("name: kept\nbudget: 7\nsplits: {train: 1.0}\n")
    again = tasks.refresh(str(spec))
    assert again is not None and again["number"] == 2 and "the spec is not that of kept@1 any more" in caplog.text
    monkeypatch.setenv("DISCOVERY_SCHEDULE__LEAST_CHANGE", "0")
    assert tasks.refresh(str(spec)) == again  # any change is asked for, and there is none
