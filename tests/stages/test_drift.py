"""Drift between sets of a small real store: what was planted is found, and the page shows it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
from PIL import Image

from discovery.cli import main
from discovery.config import Config
from discovery.errors import EncoderMismatch, InvalidInput
from discovery.pipeline import run_pipeline
from discovery.publish import publish_drift
from discovery.stages.asset_sets import AssetSet, find_set
from discovery.stages.drift import drift, measures_of
from discovery.stages.sweep import sweep
from discovery.stages.verify import verify
from discovery.types import DriftReport, IndexSnapshot
from discovery.workspace import Workspace, open_workspace

COLOURED, DARK, DRAWINGS, BURST = 26, 26, 5, 3
HOSTILE = "<b>bold<b>"


def texture(rng: np.random.Generator, scale: float = 1.0) -> Image.Image:
    """A smooth random picture."""
    coarse = (rng.integers(0, 256, (5, 6, 3)) * scale).astype(np.uint8)
    return Image.fromarray(coarse).resize((120, 90), Image.Resampling.BICUBIC)


def make_source(folder: Path) -> Path:
    rng = np.random.default_rng(21)
    for name in ("plain", "dark", HOSTILE):
        (folder / name).mkdir(parents=True)
    for number in range(COLOURED):
        texture(rng).save(folder / "plain" / f"{number:02}.png")
    for number in range(DARK):
        texture(rng, 0.5).save(folder / "dark" / f"{number:02}.png")
    for number in range(DRAWINGS):  # fine noise, unlike any texture
        Image.fromarray(rng.integers(0, 2, (90, 120), np.uint8) * 255).convert("RGB").save(folder / HOSTILE / f"{number}.png")
    taken = Image.Exif()
    taken[0x010F], taken[0x0110] = "Maker", "Burster"
    for number in range(BURST):
        exif = taken
        exif.get_ifd(0x8769)[0x9003] = "2025:01:02 10:00:00"
        texture(rng).save(folder / HOSTILE / f"burst-{number}.jpg", exif=exif)
    return folder


@dataclass(frozen=True)
class Chain:
    ws: Workspace
    root: Path
    first: IndexSnapshot  # without the third folder
    plain: AssetSet
    dark: AssetSet
    drawn: AssetSet


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    source = make_source(tmp_path_factory.mktemp("pictures"))
    root = tmp_path_factory.mktemp("root") / "store"
    config = Config(root=str(root)).replace(dask={"scheduler": "inline"}, drift={"permutations": 199})
    with open_workspace(config) as ws:
        first = run_pipeline([str(source / "plain"), str(source / "dark")], ws, curate_default=False).records["index"]
        run_pipeline([str(source / HOSTILE)], ws, curate_default=False)
        sets = [find_set(f"where:{text}", ws) for text in ("category = 'plain'", "category = 'dark'", f"category = '{HOSTILE}'")]
        yield Chain(ws, root, first, *sets)


def half(found: AssetSet, start: int) -> AssetSet:
    return replace(found, id=f"{start}" * 64, label=f"half {start}", rows=found.rows[start::2])


def page_of(report: DriftReport, ws: Workspace) -> str:
    return ws.store.read_file(report, "report").decode()


def test_a_darkened_set_is_told_apart_and_is_called_darker(chain: Chain) -> None:
    report = drift(chain.plain, chain.dark, chain.ws)
    assert report.is_drifted and report.p_value == 2 / 200  # the lowest there is
    assert report.auc > 0.9 and report.auc_low > 0.6 and (report.compared_a, report.compared_b) == (COLOURED, DARK)
    measures = {one.name: one for one in measures_of(report, chain.ws)}
    assert measures["brightness"].words == "darker" and measures["brightness"].shift < -1 and "brightness" in report.moved
    assert not measures["width_px"].is_moved and measures["category"].ks == 1.0


def test_halves_of_one_set_do_not_differ(chain: Chain) -> None:
    report = drift(half(chain.plain, 0), half(chain.plain, 1), chain.ws)
    assert not report.is_drifted and report.moved == () and report.auc_low < 0.5 < report.auc_high
    assert not report.a.is_more_than_chance and not report.b.is_more_than_chance
    assert "No difference between A and B was found." in page_of(report, chain.ws)


def test_what_b_alone_has_is_listed_by_theme_with_the_nearest_of_a(chain: Chain) -> None:
    both = np.sort(np.concatenate([chain.plain.rows, chain.drawn.rows]))
    wider = replace(chain.plain, id="f" * 64, label="plain and more", rows=both)
    report = drift(chain.plain, wider, chain.ws)
    assert report.shared == COLOURED and report.a.lacking == 0
    assert report.b.units == COLOURED + DRAWINGS + 1 and report.b.assets == COLOURED + DRAWINGS + BURST  # a burst counts once
    table = chain.ws.store.read_table(report).to_pylist()
    manifests = chain.ws.catalog.records("ingest")
    paths = {row["asset_id"]: row["source_uri"] for one in manifests for row in chain.ws.store.read_table(one).to_pylist()}
    lacking = [row for row in table if row["held_by"] == "b"]
    drawings = [row for row in lacking if re.search(r"/\d\.png$", paths[row["asset_id"]])]
    assert len(drawings) == DRAWINGS and {row["theme"] for row in drawings} == {0} and sum(row["is_exemplar"] for row in drawings) == 1
    assert report.b.lacking == len(lacking) <= DRAWINGS + 1 and report.b.is_more_than_chance
    assert all("/plain/" in paths[row["nearest"]] for row in lacking)


def test_a_set_does_not_differ_from_itself(chain: Chain) -> None:
    report = drift(chain.plain, chain.plain, chain.ws)
    assert (report.p_value, report.auc, report.is_drifted, report.moved) == (1.0, 0.5, False, ())
    assert (report.shared, report.a.lacking, report.b.lacking) == (COLOURED, 0, 0) and "the same assets" in report.note


def test_sets_of_two_snapshots_are_compared_by_what_they_hold(chain: Chain) -> None:
    earlier = find_set("where:category = 'plain'", chain.ws, chain.first)
    assert earlier.snapshot.id != chain.plain.snapshot.id
    same, other = drift(earlier, chain.plain, chain.ws), drift(earlier, chain.dark, chain.ws)
    assert (same.shared, same.p_value) == (COLOURED, 1.0) and other.auc > 0.9
    assert {earlier.snapshot.id, chain.dark.snapshot.id} <= set(other.inputs)


def test_five_assets_are_too_few_and_the_report_says_so(chain: Chain) -> None:
    few = replace(chain.dark, id="5" * 64, label="five", rows=chain.dark.rows[:5])
    report = drift(few, chain.plain, chain.ws)
    assert report.p_value is None and not report.is_drifted and "10 assets" in report.note
    assert report.note in page_of(report, chain.ws)


def test_asked_again_the_report_is_found_and_other_settings_make_another(chain: Chain) -> None:
    first = drift(chain.plain, chain.dark, chain.ws)
    assert drift(chain.plain, chain.dark, chain.ws) == first
    other = replace(chain.ws, config=chain.ws.config.replace(drift={"level": 0.01}))
    assert drift(chain.plain, chain.dark, other).id != first.id


def test_a_sample_gives_the_same_answer_whatever_else_is_there(chain: Chain) -> None:
    ws = replace(chain.ws, config=chain.ws.config.replace(drift={"rows": 20, "coverage_rows": 20}))
    report = drift(chain.plain, chain.dark, ws)
    assert (report.compared_a, report.compared_b, report.a.asked, report.is_drifted) == (20, 20, 20, True)


def test_empty_sets_and_sets_of_other_encoders_are_refused(chain: Chain) -> None:
    with pytest.raises(InvalidInput, match="holds no indexed asset"):
        drift(replace(chain.plain, rows=chain.plain.rows[:0]), chain.dark, chain.ws)
    other = replace(chain.plain, snapshot=replace(chain.plain.snapshot, encoder_id="resnet50@02ab"))
    with pytest.raises(EncoderMismatch, match="has vectors of resnet50@02ab"):
        drift(other, chain.dark, chain.ws)


def test_the_page_is_one_file_without_script_and_escapes_what_others_wrote(chain: Chain) -> None:
    page = page_of(drift(chain.drawn, chain.plain, chain.ws), chain.ws)
    assert "<script" not in page and HOSTILE not in page and "&lt;b&gt;bold&lt;b&gt;" in page
    assert re.sub(r'src="data:image/webp;base64,[A-Za-z0-9+/=]+"', "", page).count("src=") == 0
    assert "href=" not in page and "http" not in page and "url(" not in page
    assert len(page) < 2_500_000 and "<svg" in page


def test_reports_are_verified_and_survive_a_sweep(chain: Chain) -> None:
    report = drift(chain.plain, chain.dark, chain.ws)
    sweep(chain.ws)
    assert verify(chain.ws, report.id).corrupt == [] and "B clearly differs from A." in page_of(report, chain.ws)


def test_the_command_writes_the_page_and_answers_in_json(chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.html"
    common = ["--root", str(chain.root), "--json"]
    assert main(["drift", "where:category = 'plain'", "where:category = 'dark'", "--out", str(out), *common]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert out.read_text().startswith("<!doctype html>") and answer["report"] == str(out)
    assert answer["is_drifted"] and answer["auc"] > 0.9 and set(answer["lacking"]) == {"a_not_in_b", "b_not_in_a"}
    assert {"name", "psi", "ks", "p_value", "shift"} <= set(answer["measures"][0])
    assert main(["drift", "all", "all", "--out", str(tmp_path / "no" / "page.html"), *common]) != 0
    assert "page.html" in capsys.readouterr().err


def test_a_published_report_is_one_run_with_its_page(chain: Chain) -> None:
    report = drift(chain.plain, chain.dark, chain.ws)
    run_id = publish_drift(report, chain.ws)
    client = mlflow.MlflowClient(tracking_uri=chain.ws.config.tracking_uri)
    assert client.get_run(run_id).data.metrics["auc"] == report.auc and client.get_run(run_id).data.params["a"] == report.a.label
    assert {"drift.html", "result.json"} <= {artifact.path for artifact in client.list_artifacts(run_id)}
    assert publish_drift(report, chain.ws) == run_id
