"""Embedded databases appear whole or not at all."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from discovery.adapters.embedded import made_whole
from discovery.adapters.mlflow_tracking import SCHEMA, RunContent, create_embedded, publish_content
from tests.adapters.mlflow_schema import dump, migrated
from tests.contracts.writer import no_links

CONTENT = RunContent("experiment", "run", "0" * 64, {}, {}, {"assets": 3.0}, "described")


def test_it_comes_to_its_name_at_the_end_alone(tmp_path: Path):
    path = tmp_path / "new" / "a.db"
    with made_whole(path) as draft:
        assert draft is not None and draft.parent == path.parent
        draft.write_text("whole")
        Path(f"{draft}-journal").write_text("left")
        assert not path.exists()
    assert path.read_text() == "whole" and list(path.parent.iterdir()) == [path]
    with made_whole(path) as draft:
        assert draft is None


def test_an_error_leaves_nothing(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), made_whole(tmp_path / "a.db") as draft:
        draft.write_text(str(1 / 0))
    assert not list(tmp_path.iterdir())


def test_of_two_makers_the_first_wins(tmp_path: Path):
    with made_whole(tmp_path / "a.db") as first, made_whole(tmp_path / "a.db") as second:
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a.db").read_text() == "second"  # the inner block ended first
    assert len(list(tmp_path.iterdir())) == 1


def test_of_two_makers_the_first_wins_without_hard_links_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.link", no_links)
    with made_whole(tmp_path / "a.db") as first, made_whole(tmp_path / "a.db") as second:
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a.db").read_text() == "second" and len(list(tmp_path.iterdir())) == 1


def test_mlflow_works_after_its_database_was_being_made_when_killed(tmp_path: Path):
    """MLflow's migrations are not undone by SQLite: a run killed in one could never publish again."""
    code = "import sys; from discovery.adapters.mlflow_tracking import create_embedded; create_embedded(sys.argv[1], 'file:///tmp')"
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    process = subprocess.Popen([sys.executable, "-c", code, uri], start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(_tables(path) > 3 for path in tmp_path.iterdir()):
        assert process.poll() is None and time.monotonic() < deadline, "it ended before its tables were seen"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "mlflow.db").exists()
    run_id, _ = publish_content(CONTENT, uri, tmp_path / "artifacts")
    assert publish_content(CONTENT, uri, tmp_path / "artifacts")[0] == run_id


def test_the_database_is_what_mlflow_itself_would_make(tmp_path: Path):
    """After an update of MLflow: python -m tests.adapters.mlflow_schema"""
    create_embedded(f"sqlite:///{tmp_path / 'mlflow.db'}", "file:///tmp")
    assert SCHEMA.read_text().startswith(f"-- MLflow {version('mlflow')}\n")
    assert sorted(map(_parts, dump(tmp_path / "mlflow.db"))) == sorted(map(_parts, migrated()))  # indexes and constraints come in any order


def test_another_mlflow_makes_its_database_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "other.sql").write_text("-- MLflow 1.0\nCREATE TABLE of_another_release (id INTEGER);\n")
    monkeypatch.setattr("discovery.adapters.mlflow_tracking.SCHEMA", tmp_path / "other.sql")
    create_embedded(f"sqlite:///{tmp_path / 'mlflow.db'}", "file:///tmp")
    assert not any("of_another_release" in one for one in dump(tmp_path / "mlflow.db")) and _tables(tmp_path / "mlflow.db") > 20


def test_a_server_and_nothing_to_make(tmp_path: Path):
    create_embedded("http://127.0.0.1:1", "file:///tmp")
    assert not list(tmp_path.iterdir())


def _parts(statement: str) -> list[str]:
    """Its lines, one a column or constraint, in an order that is always the same."""
    return sorted(line.strip().rstrip(",") for line in statement.splitlines())


def _tables(path: Path) -> int:
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            return int(connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0])
    except sqlite3.Error:
        return 0
