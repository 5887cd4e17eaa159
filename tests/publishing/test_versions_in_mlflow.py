"""Versions made while MLflow is down wait and are delivered once, in order, by two publishers at once, killed at any call; then walked by links."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from discovery.cli import main
from discovery.config import load_config
from discovery.core.standing import Yank, promoted, rolled_back, with_yank
from discovery.errors import TrackingError
from discovery.publish import pending_versions, publish_pending, publish_version
from discovery.spec import parse_spec
from discovery.stages.curate import curate
from discovery.stages.lineage import lineage
from discovery.stages.versions import find_version, move
from discovery.types import IndexSnapshot, NoveltyReport, QualityReport
from discovery.workspace import Workspace, open_workspace
from tests.pages.test_pages_in_chromium import browser  # noqa: F401  (a fixture)
from tests.publishing.worlds import BATCH_A, BATCH_B, Server, Stopped, photographs, shown_once, stopping_after

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]
FIRST = "name: parts\nbudget: 8\n"
GROWN = "name: parts\nbudget: 14\nparent: parts@1\nwhere: \"width_px >= 100 AND source_uri NOT LIKE '%[x](y)`|`%'\"\n"


@dataclass
class World:
    """A root with two versions that were made while MLflow was down, the server that was down, and what the commands said."""

    folder: Path
    server: Server
    codes: list[int]
    said: list[str]

    @property
    def config(self) -> Path:
        return self.folder / "discovery.toml"

    def open(self, **settings: Any) -> Any:
        return open_workspace(load_config(self.config).replace(**settings), map_shards=map)


def answer(capsys: Any, *arguments: str) -> tuple[int, dict[str, Any], str]:
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, json.loads(out) if out.strip() else {}, err


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("a world")
    photographs(folder / "pictures")
    server = Server(folder)
    made = World(folder, server, [], [])
    made.config.write_text(f'root = "{folder / "root"}"\n[mlflow]\ntracking_uri = "{server.url}"\n[dask]\nscheduler = "inline"\n[ingest]\ndecoders = 1\n')
    for batch, spec in ((BATCH_A, FIRST), (BATCH_B, GROWN)):
        (folder / "spec.yaml").write_text(spec)
        command = [sys.executable, "-m", "discovery.cli", "run", str(folder / "pictures" / batch), "--spec", str(folder / "spec.yaml"), "--config", str(made.config)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])})
        made.codes.append(done.returncode)
        made.said.append(done.stderr)
    shutil.copytree(folder / "root", folder / "waiting")  # as it is before anything is delivered
    yield made
    server.stop()


@pytest.fixture(scope="module")
def delivered(world: World) -> World:
    """The server comes up, and two processes deliver at once."""
    world.server.start()
    command = [sys.executable, "-m", "discovery.cli", "publish", "--pending", "--json", "--config", str(world.config)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}) for _ in range(2)]
    answers = [json.loads(process.communicate(timeout=600)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0] and all(one["failed"] == [] for one in answers)
    return world


@pytest.fixture
def embedded(world: World, tmp_path: Path) -> Iterator[Workspace]:
    """A copy of the root with the versions that wait, and an embedded MLflow."""
    shutil.copytree(world.folder / "waiting", tmp_path / "root")
    with open_workspace(load_config(world.config).replace(root=str(tmp_path / "root"), mlflow={"tracking_uri": ""}), map_shards=map) as ws:
        yield ws


def test_while_mlflow_is_down_versions_are_made_and_wait(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.codes == [1, 1]
    for said in world.said:
        assert "did not take the run" in said and "a version waits" in said
    shutil.copytree(world.folder / "waiting", world.folder / "alone")
    code, shown, _ = answer(capsys, "versions", "--json", "--root", str(world.folder / "alone"))
    rows = [(row["name"], row["number"], row["published"], row["aliases"]) for row in shown["versions"]]
    assert code == 0 and sorted(rows) == [("parts", 1, "pending", ["previous"]), ("parts", 2, "pending", ["current"])]  # both passed their check


def test_whatever_wants_to_publish_says_that_mlflow_is_down(world: World) -> None:
    if world.server.process is not None:
        pytest.fail("this test is of the time before the server is up")
    with world.open() as ws:
        with pytest.raises(TrackingError, match=r"ConnectError: .*refused"):
            publish_version(find_version("parts@2", ws), ws)
        assert len(pending_versions(ws)) == 2


def test_two_publishers_at_once_deliver_each_version_once(delivered: World) -> None:
    with delivered.open() as ws:
        client = shown_once(ws, "parts")
        assert pending_versions(ws) == []
        aliases = client.get_registered_model("dataset.parts").aliases
        rows = {row.number: row.mlflow_version for row in ws.catalog.versions("parts")}
        assert aliases == {"previous": rows[1], "current": rows[2]}
        sources = client.search_runs([client.get_experiment_by_name("parts").experiment_id], "tags.`discovery.stage` = 'ingest'")
        urls = {json.loads(item.dataset.source)["url"] for run in sources for item in run.inputs.dataset_inputs}
        assert {url.rpartition("/")[2] for url in urls} == {BATCH_A, BATCH_B} and all(url.startswith("file:///") for url in urls)


def test_publishing_again_changes_nothing(delivered: World, capsys: pytest.CaptureFixture[str]) -> None:
    with delivered.open() as ws:
        before = ws.catalog.versions("parts")
        again = [publish_version(find_version(f"parts@{number}", ws), ws) for number in (1, 2)]
        assert [(one.mlflow_run_id, one.mlflow_version) for one in again] == [(row.mlflow_run_id, row.mlflow_version) for row in reversed(before)]
        assert ws.catalog.versions("parts") == before
    code, shown, _ = answer(capsys, "publish", "--json", "--config", str(delivered.config))
    assert (code, shown["published"], shown["failed"]) == (0, [], [])
    code, shown, _ = answer(capsys, "publish", "--all", "--json", "--config", str(delivered.config))
    assert code == 0 and len(shown["published"]) == 2
    with delivered.open() as ws:
        shown_once(ws, "parts")


def test_a_version_is_walked_by_clicks_to_all_that_it_was_made_from(delivered: World, browser: Browser) -> None:  # noqa: F811
    with delivered.open() as ws:
        grown, first = find_version("parts@2", ws), find_version("parts@1", ws)
        row = ws.catalog.get_version("parts", 2)
        found = lineage("parts@2", ws)
        of = {stage: [node.id for node in found.nodes if node.stage == stage] for stage in ("ingest", "check", "embed", "score", "index", "dedupe", "check_collection")}
        snapshot = ws.store.load_record(IndexSnapshot, grown.snapshot_id)
        novelty = [key for key in grown.inputs if ws.store.load_record(NoveltyReport, key)]
        quality = [report for report in of["check"] if ws.store.load_record(QualityReport, report)]
        sources = [str(delivered.folder / "pictures" / batch) for batch in (BATCH_A, BATCH_B)]
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    page.goto(str(row.mlflow_url))
    expect(page.get_by_text(grown.digest).first).to_be_visible(timeout=60_000)
    pictures = page.locator("img[src*='get-artifact']")
    expect(pictures).to_have_count(2)
    for number in range(2):
        pictures.nth(number).scroll_into_view_if_needed()
        page.wait_for_function("n => document.querySelectorAll(\"img[src*='get-artifact']\")[n].naturalWidth > 300", arg=number)
    assert page.evaluate("document.querySelector(\"img[src*='lineage.png']\").naturalWidth") <= 830
    assert "width_px >= 100 AND source_uri NOT LIKE '%[x](y)`|`%'" in page.locator("body").inner_text()  # said, not rendered
    if folder := os.environ.get("SCREENSHOTS"):
        page.set_viewport_size({"width": 1400, "height": 2400})
        page.screenshot(path=str(Path(folder) / "registered version.png"))

    def clicked(name: str, *seen: str, frame: bool = False) -> None:
        with context.expect_page() as opened:
            page.get_by_role("link", name=name, exact=True).first.click()
        landed: Page = opened.value
        where = landed.frame_locator("iframe").first if frame else landed
        for text in seen:
            expect(where.get_by_text(re.compile(re.escape(text))).first).to_be_visible(timeout=60_000)
        if folder := os.environ.get("SCREENSHOTS"):
            landed.screenshot(path=str(Path(folder) / f"landed {name.replace('/', ' ')}.png"))
        landed.close()

    for manifest in of["ingest"]:
        clicked(manifest[:12], f"ingest {manifest[:8]}", manifest)
    shown = [page.get_by_text(re.compile(re.escape(source))).count() for source in sources]
    assert all(shown)  # and the manifests' pages have them as datasets with a link
    clicked(grown.encoder_id, f"Encoder {grown.encoder_id}", "embedded_assets", "embed ")
    assert snapshot is not None
    clicked(snapshot.id[:12], snapshot.id, "recall_at_10", "parts@2")
    for report in quality:
        clicked(report[:12], "Quality report", frame=True)
    for report in novelty:
        clicked(report[:12], report, frame=True)
    clicked(of["embed"][0][:12], of["embed"][0])
    clicked("parts@1", first.digest)
    context.close()


def test_aliases_and_yanks_are_mirrored_and_said_on_the_page(delivered: World, capsys: pytest.CaptureFixture[str]) -> None:
    with delivered.open() as ws:
        rows = {row.number: str(row.mlflow_version) for row in ws.catalog.versions("parts")}
    config = ("--json", "--config", str(delivered.config))
    client_of_server = None
    code, shown, _ = answer(capsys, "alias", "parts@1", "paper-2026", *config)
    assert code == 0 and shown["aliases"] == {"current": 2, "previous": 1, "paper-2026": 1} and shown["published"] == "yes"
    code, shown, _ = answer(capsys, "yank", "parts@2", "--reason", "a <face> is in it", "--by", "ana", *config)
    assert code == 0 and shown["aliases"] == {"current": 1, "paper-2026": 1} and shown["yanked"] == [2]
    with delivered.open() as ws:
        client_of_server = shown_once(ws, "parts")
        assert client_of_server.get_registered_model("dataset.parts").aliases == {"current": rows[1], "paper-2026": rows[1]}
        item = client_of_server.get_model_version("dataset.parts", rows[2])
        assert "a <face> is in it (ana," in item.tags["discovery.yanked"] and item.description.startswith("> **Yanked by ana on ")
        assert "a &lt;face&gt; is in it" in item.description
    code, shown, _ = answer(capsys, "yank", "parts@2", "--undo", *config)
    assert code == 0 and shown["aliases"] == {"current": 2, "previous": 1, "paper-2026": 1}
    item = client_of_server.get_model_version("dataset.parts", rows[2])
    assert "discovery.yanked" not in item.tags and "Yanked" not in item.description
    code, shown, _ = answer(capsys, "alias", "parts", *config)
    assert [step["by"] for step in shown["history"]][-2] == "ana"


def test_what_was_said_while_mlflow_is_down_is_mirrored_later(delivered: World, capsys: pytest.CaptureFixture[str]) -> None:
    config = ("--json", "--config", str(delivered.config))
    delivered.server.stop()
    code, shown, err = answer(capsys, "rollback", "parts", *config)
    assert code == 1 and shown["aliases"]["current"] == 1 and shown["published"] == "pending" and "did not take the run" in err
    delivered.server.start()
    with delivered.open() as ws:
        rows = {row.number: row.mlflow_version for row in ws.catalog.versions("parts")}
        publish_pending(ws)
        assert shown_once(ws, "parts").get_registered_model("dataset.parts").aliases["current"] == rows[1]


def test_a_publisher_stopped_after_any_call_is_finished_by_the_next(embedded: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        raise Stopped

    changes, stops = 1, 0
    while True:
        with monkeypatch.context() as patch:
            stopping_after(changes, patch.setattr, stop)
            try:
                publish_pending(embedded)
                break
            except Stopped:
                stops += 1
        changes += 1 + stops // 6  # what was finished is not done again, so that each stop is somewhere else
    assert stops >= 12 and pending_versions(embedded) == []
    client = shown_once(embedded, "parts")
    assert [row.mlflow_version for row in sorted(embedded.catalog.versions("parts"), key=lambda row: row.number)] == ["1", "2"]
    pointed = client.get_registered_model("dataset.parts").aliases
    assert {alias: str(number) for alias, number in pointed.items()} == {"previous": "1", "current": "2"}


def test_a_publisher_that_is_killed_is_finished_by_the_next(embedded: Workspace, tmp_path: Path) -> None:
    config = tmp_path / "discovery.toml"
    config.write_text(f'root = "{tmp_path / "root"}"\n[dask]\nscheduler = "inline"\n')
    for changes in (4, 23, 60):
        command = [sys.executable, "-m", "tests.publishing.killed_publisher", str(config), str(changes)]
        killed = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}, capture_output=True)
        assert killed.returncode == -9, killed.stderr.decode()
    publish_pending(embedded)
    shown_once(embedded, "parts")


def test_a_run_that_was_deleted_and_a_version_that_was_deleted_are_made_again(embedded: Workspace) -> None:
    publish_pending(embedded)
    client = shown_once(embedded, "parts")
    row = embedded.catalog.get_version("parts", 2)
    client.delete_model_version("dataset.parts", row.mlflow_version)
    again = publish_version(find_version("parts@2", embedded), embedded)
    assert again.mlflow_version == "3"  # MLflow gives no number twice
    item = shown_once(embedded, "parts").get_model_version("dataset.parts", "3")
    assert "MLflow counts this as version 3 of dataset.parts; its number is 2" in item.description


def test_a_yanked_version_is_no_parent_and_still_keeps_its_members_out(embedded: Workspace) -> None:
    said: list[str] = []
    embedded.report = said.append
    move("parts", lambda state: with_yank(state, 1, Yank("blurred", "ana", "2026-01-01")), "yank", "ana", embedded)
    with pytest.raises(Exception, match=r"parts@1 cannot be a parent: it was yanked by ana on 2026-01-01: blurred"):
        curate(parse_spec("name: parts\nbudget: 20\nparent: parts@1\n"), embedded)
    version = curate(parse_spec("name: rest\nbudget: 5\nmust_not_leak_into: [parts@1]\n"), embedded)
    assert version.removed_for_leakage >= 8 and any("nothing leaks into parts@1, though it was yanked" in line for line in said)
    assert find_version("parts@1", embedded).assets == 8  # by its number
    with pytest.raises(Exception, match="has no version 'previous'"):
        find_version("parts@previous", embedded)
    assert find_version("parts@current", embedded).id == find_version("parts@2", embedded).id
    move("parts", lambda state: promoted(state, 2), "promote", "ana", embedded)
    with pytest.raises(Exception, match="no earlier good version"):
        move("parts", lambda state: rolled_back(state, None), "rollback", "ana", embedded)
