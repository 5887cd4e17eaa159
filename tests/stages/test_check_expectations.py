"""Expectations of the user's in the batch check: what they quarantine, what they stop, and what is refused before any work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from discovery.adapters.mlflow_tracking import create_embedded
from discovery.config import Config, load_config, parse_config
from discovery.core.issues import ISSUES
from discovery.errors import ConfigError
from discovery.pipeline import QualityFailed, run_pipeline
from discovery.stages.check import accepted_assets, check
from discovery.stages.ingest import ingest
from discovery.types import Manifest, QualityReport
from discovery.workspace import Workspace, open_workspace

DARK, ALL = 3, 20


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures, three of them dark, listed with a shelf each."""
    folder = tmp_path_factory.mktemp("shelves")
    rng = np.random.default_rng(9)
    lines = ["uri,shelf,weight"]
    for number in range(ALL):
        high = 40 if number < DARK else 256
        coarse = Image.fromarray(rng.integers(0, high, (5, 6, 3), np.uint8))
        coarse.resize((64, 48), Image.Resampling.BICUBIC).save(folder / f"{number:02}.png")
        lines.append(f"{number:02}.png,{'low' if number % 2 else 'high'},{number if number else ''}")
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    return folder / "list.csv"


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    root = tmp_path_factory.mktemp("root") / "store"
    with open_workspace(Config(root=str(root)).replace(dask={"scheduler": "inline"})) as opened:
        yield opened


@pytest.fixture(scope="module")
def manifest(source: Path, ws: Workspace) -> Manifest:
    return ingest([str(source)], ws)


def expecting(ws: Workspace, *expectations: dict[str, object], **settings: object) -> Workspace:
    import dataclasses

    return dataclasses.replace(ws, config=ws.config.replace(check={"expectations": expectations, **settings}))


def told(report: QualityReport) -> tuple[str, ...]:
    """The warnings but for those of issues, which generated pictures have."""
    assert {name for name in report.warnings if name.startswith("few_")} <= {f"few_{issue}" for issue in ISSUES}
    return tuple(name for name in report.warnings if not name.startswith("few_"))


def outcomes(report: QualityReport, ws: Workspace) -> dict[str, dict[str, object]]:
    return {one["name"]: one for one in json.loads(ws.store.read_file(report, "expectations"))["outcomes"]}


def test_the_built_in_ones_are_met_and_say_that_all_rows_were_looked_at(manifest: Manifest, ws: Workspace) -> None:
    report = check(manifest, ws)
    assert report.passed and told(report) == () and report.quarantined == 0
    found = outcomes(report, ws)
    issues = [f"few_{issue}" for issue in ISSUES if issue not in ("blank", "odd_aspect")]  # which the first ones are about
    assert list(found) == [
        "side_not_tiny", "aspect_not_extreme", "not_blank", "not_marked_junk", *issues, "batch_has_assets", "few_rejected", "few_quarantined",
    ]  # fmt: skip
    assert all((found[name]["severity"], found[name]["action"]) == ("info", "report") for name in issues)
    assert found["not_blank"]["statement"] == "0 of 20 rows, all of which were looked at"
    assert (found["not_blank"]["severity"], found["not_blank"]["action"], found["not_blank"]["mostly"]) == ("critical", "quarantine", 0.8)


@pytest.mark.parametrize(
    ("action", "severity", "mostly", "quarantined", "passed", "warnings"),
    [
        ("report", "critical", 1.0, 0, True, ("not_dark",)),
        ("quarantine", "warning", 0.9, DARK, True, ("not_dark",)),  # 17 of 20 meet it: .85
        ("quarantine", "warning", 0.85, DARK, True, ()),
        ("quarantine", "critical", 0.9, DARK, False, ()),
        ("fail", "warning", 0.9, 0, False, ()),
    ],
)
def test_action_and_severity_decide_what_a_miss_leads_to(
    manifest: Manifest, ws: Workspace, action: str, severity: str, mostly: float, quarantined: int, passed: bool, warnings: tuple[str, ...]
) -> None:
    mine = {"name": "not_dark", "column": "brightness", "min": 0.2, "action": action, "severity": severity, "mostly": mostly}
    here = expecting(ws, mine)
    report = check(manifest, here)
    assert (report.quarantined, report.passed, told(report)) == (quarantined, passed, warnings)
    assert report.failed_expectations == (() if passed else ("not_dark",))
    assert len(accepted_assets(report, ws)) == ALL - quarantined
    assert outcomes(report, ws)["not_dark"]["missed"] == DARK
    assert report.id != check(manifest, ws).id  # an expectation is part of the key
    assert b"not_dark" in ws.store.read_file(report, "report") and b"<script" not in ws.store.read_file(report, "report")


def test_a_condition_may_be_on_all_columns_a_list_brings_too_and_null_misses_bounds(manifest: Manifest, ws: Workspace) -> None:
    here = expecting(
        ws, {"name": "dark_ones_are_low", "where": "brightness > 0.2 OR shelf = 'low'"}, {"name": "weighed", "column": "weight", "min": 0},
        {"name": "no_weight_is_fine", "where": "weight IS NULL OR weight > 0"},
    )  # fmt: skip
    report = check(manifest, here)
    found = outcomes(report, ws)
    assert found["dark_ones_are_low"]["missed"] == 2  # 00 and 02 are dark and high, 01 is low
    assert found["weighed"]["missed"] == 1 and found["no_weight_is_fine"]["missed"] == 0
    assert told(report) == ("dark_ones_are_low", "weighed")


@pytest.mark.parametrize(
    ("expectation", "message"),
    [
        ({"name": "a", "column": "brightnes", "min": 0}, "no column 'brightnes'. Did you mean \"brightness\""),
        ({"name": "a", "column": "shelf", "min": 0}, "holds string, not numbers"),
        ({"name": "a", "where": "shelv = 'low'"}, 'no column "shelv". Did you mean "shelf"'),
        ({"name": "a", "where": "EXISTS (SELECT 1)"}, "must be one expression"),
        ({"name": "not_blank", "column": "contrast", "min": 0}, "is a built-in one"),
        ({"name": "few_rejected", "column": "contrast", "min": 0}, "is a built-in one"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_anything_is_measured(source: Path, tmp_path: Path, expectation: dict[str, object], message: str) -> None:
    config = Config(root=str(tmp_path / "store")).replace(dask={"scheduler": "inline"}, check={"expectations": [expectation]})
    with open_workspace(config) as fresh:
        batch = ingest([str(source)], fresh)
        with pytest.raises(ConfigError, match="Expectation") as refusal:
            check(batch, fresh)
        assert message in str(refusal.value)
        assert fresh.tally["measure.computed"] == 0


@pytest.mark.parametrize(
    ("expectation", "message"),
    [
        ({"name": "a", "column": "x", "minimum": 1}, 'unknown setting check.expectations.0.minimum. Did you mean "min"'),
        ({"name": "a"}, "either a column with min or max, or a where"),
        ({"name": "a", "column": "x", "where": "x > 1"}, "either a column with min or max, or a where"),
        ({"name": "a", "column": "x"}, "a column needs min, max or both"),
        ({"name": "a", "where": "x > 1", "min": 3}, "min and max go with a column"),
        ({"name": "a", "column": "x", "min": 3, "max": 2}, "min is above max"),
        ({"name": "Not so", "column": "x", "min": 3}, "check.expectations.0.name"),
        ({"name": "a", "column": "x", "min": 3, "severity": "bad"}, "'info', 'warning' or 'critical'"),
        ({"name": "a", "column": "x", "min": 3, "mostly": 0}, "greater than 0"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_place(expectation: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse_config({"check": {"expectations": [expectation]}}, "discovery.toml")
    assert message in str(refusal.value)


def test_names_are_unique_and_a_version_quarantines_nothing() -> None:
    one = {"name": "a", "column": "x", "min": 3}
    with pytest.raises(ConfigError, match="two expectations are named a"):
        parse_config({"check": {"expectations": [one, one]}}, "discovery.toml")
    with pytest.raises(ConfigError, match="a version's members stay"):
        parse_config({"collection": {"expectations": [{**one, "action": "quarantine"}]}}, "discovery.toml")


def test_expectations_come_from_a_file_and_from_a_variable(tmp_path: Path) -> None:
    file = tmp_path / "discovery.toml"
    file.write_text('[[check.expectations]]\nname = "not_dark"\ncolumn = "brightness"\nmin = 0.05\naction = "quarantine"\nseverity = "warning"\nmostly = 0.9\n')
    (one,) = load_config(file, {}).check.expectations
    assert (one.name, one.min, one.max, one.action, one.mostly) == ("not_dark", 0.05, None, "quarantine", 0.9)
    variable = {"DISCOVERY_CHECK__EXPECTATIONS": '[{"name": "wide", "column": "aspect", "max": 2}]'}
    assert load_config(file, variable).check.expectations[0].name == "wide"


def test_a_failed_report_is_in_mlflow_before_the_run_stops(source: Path, ws: Workspace) -> None:
    import mlflow

    here = expecting(ws, {"name": "all_bright", "column": "brightness", "min": 0.2, "action": "fail"})
    with pytest.raises(QualityFailed, match=r"failed: all_bright .* and in MLflow run \w+; correct the source") as failure:
        run_pipeline([str(source)], here)
    client = mlflow.MlflowClient(tracking_uri=ws.config.tracking_uri)
    (run,) = client.search_runs([client.get_experiment_by_name("discovery").experiment_id])
    assert run.info.run_id in str(failure.value) and run.data.metrics["quality_passed"] == 0.0
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"quality.html", "expectations.json"}


def test_a_failed_report_is_told_even_when_mlflow_does_not_answer(source: Path, ws: Workspace, tmp_path: Path) -> None:
    import dataclasses

    create_embedded(f"sqlite:///{tmp_path / 'm.db'}", tmp_path.as_uri())
    (tmp_path / "m.db").write_bytes(b"no database, but there is a file")
    here = expecting(ws, {"name": "all_bright", "column": "brightness", "min": 0.2, "action": "fail"})
    here = dataclasses.replace(here, config=here.config.replace(mlflow={"tracking_uri": f"sqlite:///{tmp_path / 'm.db'}"}))
    with pytest.raises(QualityFailed, match=r"MLflow did not take it"):
        run_pipeline([str(source)], here)
