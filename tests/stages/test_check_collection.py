"""The check of a dataset version: what it finds is what was planted, and MLflow has the report before anything fails."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from discovery.adapters.storage import asset_path, table_to_parquet, thumbnail_path
from discovery.config import Config
from discovery.core.collection_expectations import NUMBERS
from discovery.errors import ConfigError
from discovery.pipeline import QualityFailed, require_collection, run_pipeline
from discovery.publish import publish_collection_report
from discovery.spec import parse_spec
from discovery.stages.check_collection import check_collection
from discovery.stages.curate import curate
from discovery.stages.label_findings import labels_of
from discovery.types import CollectionReport, DatasetVersion
from discovery.workspace import Workspace, open_workspace

EACH, MISLABELLED = 20, 2
KINDS = ("noise", "blobs")


def picture(kind: str, rng: np.random.Generator) -> Image.Image:
    if kind == "noise":
        return Image.fromarray(rng.integers(0, 2, (90, 120), np.uint8) * 255).convert("RGB")
    return Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8)).resize((120, 90), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise and blobs, of each two with the other's label; one blob is listed twice, with two labels; all noise is JPEG."""
    folder = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(21)
    lines = ["uri,label"]
    for kind in KINDS:
        other = KINDS[kind == KINDS[0]]
        for number in range(EACH):
            name = f"{kind}-{number:02}.{'jpg' if kind == 'noise' else 'png'}"
            picture(kind, rng).save(folder / name)
            lines.append(f"{name},{other if number < MISLABELLED else kind}")
    shutil.copy(folder / "blobs-10.png", folder / "again.png")
    lines.append("again.png,noise")
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    root = tmp_path_factory.mktemp("root") / "store"
    with opened(root) as ws:
        run_pipeline([str(folder / "list.csv")], ws)
    return root


def opened(root: Path, **sections: dict[str, Any]) -> Any:
    return open_workspace(Config(root=str(root)).replace(dask={"scheduler": "inline"}, **sections))


@pytest.fixture
def ws(store: Path, tmp_path: Path) -> Iterator[Workspace]:
    """A copy of the store, to be broken."""
    shutil.copytree(store, tmp_path / "store", ignore=shutil.ignore_patterns("mlflow.db", "mlartifacts", "catalog.db*"))
    shutil.copy(store / "catalog.db", tmp_path / "store" / "catalog.db")
    with opened(tmp_path / "store") as here:
        yield here


def version_of(ws: Workspace, text: str = "name: all\nbudget: 1000\nsplits: {train: 0.5, test: 0.5}\n") -> DatasetVersion:
    return curate(parse_spec(text), ws)


def details(report: CollectionReport, ws: Workspace) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ws.store.read_file(report, "expectations"))
    return found


def points(report: CollectionReport, ws: Workspace, kind: str) -> list[dict[str, Any]]:
    return [row for row in ws.store.read_table(report).to_pylist() if row["kind"] == kind]


def changed(version: DatasetVersion, ws: Workspace, change: Callable[[list[dict[str, Any]]], Any]) -> DatasetVersion:
    """Another version, whose members were changed behind the back of curate."""
    table = ws.store.read_table(version)
    rows = table.to_pylist()
    change(rows)
    data = table_to_parquet(pa.Table.from_pylist(rows, schema=table.schema))
    key = "f" * 64
    files = (
        ws.put_file(DatasetVersion, key, "table", data, ".parquet", len(rows)),
        ws.put_file(DatasetVersion, key, "decisions", ws.store.read_file(version, "decisions"), ".parquet"),
        ws.put_file(DatasetVersion, key, "facts", ws.store.read_file(version, "facts"), ".json"),
    )
    return ws.commit(dataclasses.replace(version, id=key, digest="e" * 64, assets=len(rows), files=files))


def with_settings(ws: Workspace, **collection: Any) -> Workspace:
    return dataclasses.replace(ws, config=ws.config.replace(collection=collection))


def test_a_sound_version_passes_and_what_is_odd_of_its_labels_is_told(ws: Workspace) -> None:
    version = version_of(ws)
    report = check_collection(version, ws)
    assert report.passed and report.assets == 2 * EACH and report.label == "label"
    found = details(report, ws)
    numbers = found["numbers"]
    assert set(numbers) <= set(NUMBERS)
    assert (numbers["leaked_members"], numbers["bytes_defects"], numbers["measures_defects"], numbers["thumbnails_defects"]) == (0, 0, 0, 0)
    assert (numbers["classes"], numbers["small_classes"]) == (2, 0)
    assert numbers["coverage_radius"] == pytest.approx(0, abs=1e-6)  # every candidate is a member
    assert numbers["contradicting_copies"] == 1
    assert numbers["label_leak"] > 0.7  # noise is JPEG, blobs are PNG; .8 but for the fold of few rows
    doubts = points(report, ws, "mislabel")
    uris = {row["asset_id"]: Path(row["source_uri"]).name for row in ws.store.read_table(version).to_pylist()}
    planted = {f"{kind}-{number:02}.{end}" for kind, end in zip(KINDS, ("jpg", "png"), strict=True) for number in range(MISLABELLED)}
    assert planted <= {uris[row["asset_id"]] for row in doubts} and report.likely_mislabels == len(doubts) <= len(planted) + 1
    assert {"labels_are_not_given_away", "copies_agree_on_labels", "few_likely_mislabels"} <= set(report.warnings)
    statements = {one["name"]: one["statement"] for one in found["outcomes"]}
    assert statements["bytes_are_intact"] == f"0 of {2 * EACH} rows, all of which were looked at"
    assert found["collection"]["success"] is False and found["pictures"]["success"] is True  # GX's own, of which warnings are no success
    assert check_collection(version, ws) == report


def test_a_check_of_a_draw_says_how_sure_it_is(ws: Workspace) -> None:
    here = with_settings(ws, sample_rows=30, measure_rows=10, neighbour_rows=20)
    report = check_collection(version_of(ws), here)
    said = {one["name"]: one["statement"] for one in details(report, ws)["outcomes"]}
    # six checks are of draws: bytes, thumbnails, measures, labels, splits, coverage; 1 - (.05 / 6) ** (1 / 30) = .1475
    assert said["bytes_are_intact"] == "defect rate ≤ 15 % at 95 %, from 30 of 40 rows (0 found, corrected for 6 sampled checks)"
    assert "from 20 of 40 rows" in said["few_likely_mislabels"]
    assert report.sampled == 30 and report.defect_rate_bound == pytest.approx(1 - (0.05 / 6) ** (1 / 10))  # the worst is that of ten
    again = check_collection(version_of(ws), with_settings(ws, sample_rows=30, measure_rows=10, neighbour_rows=20, salt="other"))
    assert again.id != report.id


def test_lost_and_changed_files_of_members_are_found_and_the_version_stays(ws: Workspace) -> None:
    version = version_of(ws)
    ids = ws.store.read_table(version)["asset_id"].to_pylist()
    root = Path(ws.config.root)
    (root / asset_path(ids[0])).write_bytes(b"changed")
    (root / thumbnail_path(ids[1], ws.config.ingest.thumbnail_px)).unlink()
    report = check_collection(version, ws)
    assert report.failed_expectations == ("bytes_are_intact",) and "thumbnails_are_there" in report.warnings
    assert [row["asset_id"] for row in points(report, ws, "bytes")] == [ids[0]]
    assert [row["asset_id"] for row in points(report, ws, "thumbnails")] == [ids[1]]
    published = publish_collection_report(version, report, ws)
    with pytest.raises(QualityFailed, match=r"all@1 failed its collection check: bytes_are_intact\. The version stays"):
        require_collection(published, report)
    run = mlflow.MlflowClient(tracking_uri=ws.config.tracking_uri).get_run(published.mlflow_run_id)
    assert run.data.tags["discovery.collection_passed"] == "false" and run.data.tags["discovery.collection_failed"] == "bytes_are_intact"
    assert run.data.metrics["collection.bytes_defects"] == 1.0


def test_the_report_is_with_the_versions_run_once(ws: Workspace) -> None:
    version = version_of(ws)
    report = check_collection(version, ws)
    published = publish_collection_report(version, report, ws)
    assert publish_collection_report(version, report, ws) == published
    client = mlflow.MlflowClient(tracking_uri=ws.config.tracking_uri)
    files = {Path(file.path).name for file in client.list_artifacts(published.mlflow_run_id, "collection")}
    assert files == {f"{report.id[:12]}.html", f"{report.id[:12]}.json"}
    assert len(client.get_metric_history(published.mlflow_run_id, "collection.members")) == 1
    assert client.get_run(published.mlflow_run_id).data.tags["discovery.collection_passed"] == "true"


def test_a_leak_that_curate_would_never_make_is_found(ws: Workspace) -> None:
    def leak(rows: list[dict[str, Any]]) -> None:
        rows[1]["component_id"] = rows[0]["component_id"]
        rows[0]["split"], rows[1]["split"] = "train", "test"

    report = check_collection(changed(version_of(ws), ws, leak), ws)
    assert report.failed_expectations == ("no_leak_between_splits",) and details(report, ws)["numbers"]["leaked_members"] == 2
    assert len(points(report, ws, "leaked")) == 1


def test_a_version_is_compared_with_its_parent(ws: Workspace) -> None:
    version_of(ws, "name: grown\nbudget: 10\nsplits: {train: 0.5, test: 0.5}\n")
    grown = version_of(ws, "name: grown\nbudget: 20\nparent: grown@1\nsplits: {train: 0.5, test: 0.5}\n")
    numbers = details(check_collection(grown, ws), ws)["numbers"]
    assert (numbers["lost_from_parent"], numbers["moved_from_parent"], numbers["gained_on_parent"]) == (0, 0, 10)
    assert 0 < numbers["coverage_mean"] <= numbers["coverage_p95"] <= numbers["coverage_radius"] < 2
    parents = {row["asset_id"] for row in ws.store.read_table(grown).to_pylist() if row["pick"] == -1}
    first, second = sorted(parents)[:2]

    def lose(rows: list[dict[str, Any]]) -> None:
        rows[:] = [row for row in rows if row["asset_id"] != first]
        for row in rows:
            if row["asset_id"] == second:
                row["split"] = "test" if row["split"] == "train" else "train"

    report = check_collection(changed(grown, ws, lose), ws)
    assert "parent_is_kept" in report.failed_expectations and "parent_splits_are_kept" in report.failed_expectations
    assert [row["asset_id"] for row in points(report, ws, "lost_from_parent")] == [first]
    assert [row["asset_id"] for row in points(report, ws, "moved_from_parent")] == [second]


def test_a_parent_may_lose_members_by_the_rules_that_are_for_it(ws: Workspace) -> None:
    parent = version_of(ws, "name: shrinks\nbudget: 10\nsplits: {train: 0.5, test: 0.5}\n")
    first, second = sorted(ws.store.read_table(parent)["asset_id"].to_pylist())[:2]
    version_of(ws, f"name: secret\nbudget: 1\ninclude: [{second}]\nsplits: {{test: 1}}\n")
    child = version_of(
        ws, f"name: shrinks\nbudget: 10\nparent: shrinks@1\nexclude: [{first}]\nmust_not_leak_into: [secret@1]\nsplits: {{train: 0.5, test: 0.5}}\n"
    )
    report = check_collection(child, ws)
    numbers = details(report, ws)["numbers"]
    assert report.passed and "parent_loses_none" in report.warnings
    assert (numbers["lost_from_parent"], numbers["let_go_from_parent"], numbers["gained_on_parent"]) == (0, 2, 2)
    said = {row["asset_id"]: row["detail"] for row in points(report, ws, "let_go_from_parent")}
    assert said.keys() == {first, second} and "the spec excludes it by name" in said[first] and "must not be leaked into" in said[second]


def test_vectors_made_again_are_the_same_and_a_swapped_one_is_found(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    version = version_of(ws)
    here = with_settings(ws, embed_rows=6)
    report = check_collection(version, here)
    assert report.passed and details(report, ws)["numbers"]["vectors_defects"] == 0
    from discovery.stages import check_collection as module

    monkeypatch.setattr(module, "vectors_for", lambda sets, ids, ws, load=module.vectors_for: np.roll(load(sets, ids, ws), 1, axis=0))
    swapped = check_collection(version, with_settings(ws, embed_rows=6, salt="other"))
    assert "vectors_are_reproduced" in swapped.failed_expectations


def test_a_vector_that_is_not_finite_fails(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from discovery.stages import check_collection as module

    def spoilt(sets: Any, ids: Any, here: Workspace, load: Any = module.vectors_for) -> Any:
        vectors = load(sets, ids, here).copy()
        vectors[2, 5] = np.nan
        return vectors

    monkeypatch.setattr(module, "vectors_for", spoilt)
    report = check_collection(version_of(ws), ws)
    assert report.failed_expectations == ("vectors_are_unit",)
    assert details(report, ws)["numbers"]["classes"] == 2  # all else is still told


def test_expectations_of_the_users_may_be_on_numbers_and_on_members(ws: Workspace) -> None:
    mine = [
        {"name": "no_leaky_labels", "column": "label_leak", "max": 0.1, "action": "fail"},
        {"name": "only_png", "where": "format = 'PNG'", "mostly": 0.4},
        {"name": "grows", "column": "gained_on_parent", "min": 1},
    ]
    report = check_collection(version_of(ws), with_settings(ws, expectations=mine))
    assert report.failed_expectations == ("no_leaky_labels",)
    said = {one["name"]: one for one in details(report, ws)["outcomes"]}
    assert said["only_png"]["missed"] == EACH and said["only_png"]["verdict"] == "met"
    assert said["grows"]["looked_at"] == 0 and said["grows"]["verdict"] == "met"
    assert len(points(report, ws, "expectation")) == EACH
    with pytest.raises(ConfigError, match="Did you mean \"label_leak\""):
        check_collection(version_of(ws), with_settings(ws, expectations=[{"name": "x", "column": "label_leek", "max": 1}]))


def test_the_labels_are_in_the_column_that_is_named_or_in_none(ws: Workspace) -> None:
    assert check_collection(version_of(ws), with_settings(ws, label="category")).label == "category"
    with pytest.raises(ConfigError, match=r"collection.label = 'lable'.*Did you mean \"label\""):
        check_collection(version_of(ws), with_settings(ws, label="lable"))


def test_the_page_is_one_file_without_scripts_or_links(ws: Workspace) -> None:
    page = ws.store.read_file(check_collection(version_of(ws), ws), "report").decode()
    assert "Likely mislabels" in page and "What gives labels away" in page
    assert not [word for word in ("<script", "http://", "https://", "<link", "url(") if word in page]


def test_a_label_reads_in_the_report_as_in_the_list_and_in_exports() -> None:
    assert labels_of(pa.chunked_array([[3.0, None, 0.5]])) == ["3", None, "0.5"] and labels_of(pa.chunked_array([["", "a", "3.0"]])) == [None, "a", "3.0"]
