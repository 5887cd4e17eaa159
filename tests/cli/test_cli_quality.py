"""`discovery check` and `curate` at the command line: what they answer, their exit codes, and MLflow before a failure."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import mlflow
import pytest

from discovery.cli import main

BLURRY = ["few_blurry"]  # the generated pictures are, all of them
TOML = '[[check.expectations]]\nname = "wide"\ncolumn = "aspect"\nmin = 9\naction = "{action}"\n'


@pytest.fixture(autouse=True)
def _inline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("DISCOVERY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DISCOVERY_DASK__SCHEDULER", "inline")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def store(tiny_pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISCOVERY_DASK__SCHEDULER", "inline")
        assert main(["run", str(tiny_pictures), "--no-curate", "--root", str(root)]) == 0
    return root


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any], str]:
    code = main([*arguments, "--json"])
    output = capsys.readouterr()
    return code, json.loads(output.out), output.err


def tags(root: Path, run_id: str) -> dict[str, str]:
    found: dict[str, str] = mlflow.MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}").get_run(run_id).data.tags
    return found


def test_a_check_tells_every_expectation_and_ends_with_1_when_one_fails(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found, _ = answer(capsys, "check", "--root", str(store))
    assert (code, found["passed"], found["failed_expectations"], found["warnings"]) == (0, True, [], BLURRY)
    assert found["expectations"][0]["name"] == "side_not_tiny" and (store / found["page"]).is_file()
    for action, wanted in (("report", 0), ("fail", 1)):
        (tmp_path / "discovery.toml").write_text(TOML.format(action=action))
        code, found, _ = answer(capsys, "check", "--root", str(store))
        assert code == wanted and (found["warnings"], found["failed_expectations"]) == (([*BLURRY, "wide"], []) if action == "report" else (BLURRY, ["wide"]))
        assert tags(store, found["mlflow_run_id"])["discovery.check_id"] == found["report_id"]


def test_a_version_is_checked_when_it_is_curated_and_again_by_name(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "store"
    shutil.copytree(store, root)
    (tmp_path / "spec.yaml").write_text("name: mine\nbudget: 6\nsplits: {train: 0.5, test: 0.5}\n")
    code, curated, _ = answer(capsys, "curate", "spec.yaml", "--root", str(root))
    assert code == 0 and curated["collection_passed"] and len(curated["collection_report_id"]) == 64
    assert tags(root, curated["mlflow_run_id"])["discovery.collection_passed"] == "true"
    code, found, _ = answer(capsys, "check", "--version", "mine@1", "--root", str(root))
    assert code == 0 and found["report_id"] == curated["collection_report_id"] and found["mlflow_run_id"] == curated["mlflow_run_id"]

    for asset in (root / "assets").rglob("*"):
        if asset.is_file():
            asset.write_bytes(b"lost")
    code, found, _ = answer(capsys, "check", "--version", "mine@1", "--salt", "today", "--root", str(root))
    assert (code, found["failed_expectations"]) == (1, ["bytes_are_intact"]) and found["defect_rate_bound"] == 1.0
    assert tags(root, found["mlflow_run_id"])["discovery.collection_failed"] == "bytes_are_intact"
    (tmp_path / "other.yaml").write_text("name: other\nbudget: 5\n")
    code, curated, errors = answer(capsys, "curate", "other.yaml", "--root", str(root))
    assert code == 1 and curated["number"] == 1 and not curated["collection_passed"]
    assert "discovery: other@1 failed its collection check: bytes_are_intact" in errors
    assert tags(root, curated["mlflow_run_id"])["discovery.collection_passed"] == "false"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--salt", "x"], "goes with --version"),
        (["--version", "mine@1", "--manifest", "ab"], "not of both"),
        (["--version", "nobody@7"], "nobody"),
    ],
)
def test_what_cannot_be_checked_is_bad_usage(store: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(["check", *arguments, "--root", str(store)]) == 2
    output = capsys.readouterr()
    assert output.out == "" and message in output.err
