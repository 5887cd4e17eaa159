"""The DAG files parse lightly, keep our conventions, and chain through assets."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DAG_FILES = sorted((ROOT / "dags").glob("*.py"))
DAG_IDS = {
    "visual_discovery", "ingest_batch", "embed_batch", "index_batch", "refresh_collections", "curate_collection", "maintain_index",
}  # fmt: skip
HEAVY = {"torch", "timm", "mlflow", "dask", "distributed", "great_expectations", "hnswlib", "duckdb", "pandas", "pyarrow", "numpy"}
PARSE_LIMIT_S = 0.5

PARSE = """
import json, os, runpy, sys, time
import airflow.sdk  # what Airflow itself costs
from airflow.sdk import Param, dag, task, Asset, PartitionedAssetTimetable, CronPartitionTimetable, FixedKeyMapper, Metadata, PartitionedAtRuntime
before = set(sys.modules)
def parse(file):  # in a child of its own, so that no file profits from what another imported
    read, write = os.pipe()
    if os.fork() == 0:
        started = time.perf_counter()
        runpy.run_path(file)
        seconds = time.perf_counter() - started
        new = sorted({name.split(".")[0] for name in set(sys.modules) - before})
        os.write(write, json.dumps({"seconds": seconds, "new": new, "all": sorted({n.split(".")[0] for n in sys.modules})}).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.wait()
    return json.loads(text) if text else None
print(json.dumps({file: [parse(file) for _ in range(3)] for file in sys.argv[1:]}))
"""


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("airflow home")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "DISCOVERY"))},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONWARNINGS": "ignore",
    }


def run_python(code: str, environment: dict[str, str], *arguments: str) -> Any:
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="session")
def parsed(environment: dict[str, str]) -> Any:
    return run_python(PARSE, environment, *map(str, DAG_FILES))


@pytest.mark.parametrize("file", DAG_FILES, ids=lambda file: file.stem)
def test_a_dag_file_parses_fast_and_imports_nothing_heavy(file: Path, parsed: Any) -> None:
    answers = parsed[str(file)]
    assert not HEAVY & set(answers[0]["all"])
    assert statistics.median(answer["seconds"] for answer in answers) < PARSE_LIMIT_S


STRUCTURE = """
import json, os
from pathlib import Path
from airflow.utils import db
db.initdb()
from airflow.dag_processing.dagbag import BundleDagBag
bag = BundleDagBag(dag_folder=os.environ["AIRFLOW__CORE__DAGS_FOLDER"], bundle_path=Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"]), bundle_name="dags-folder")
def assets_of(timetable):
    condition = getattr(timetable, "asset_condition", None)
    return [condition.name] if condition is not None and hasattr(condition, "name") else []
out = {"errors": {str(k): str(v) for k, v in bag.import_errors.items()}, "dags": {}}
for dag_id, dag in bag.dags.items():
    out["dags"][dag_id] = {
        "catchup": dag.catchup, "tags": sorted(dag.tags), "doc": bool(dag.doc_md), "max_active_runs": dag.max_active_runs,
        "consumes": assets_of(dag.timetable), "params": sorted(dag.params),
        "tasks": {t.task_id: {"retries": t.retries, "timeout_s": t.execution_timeout.total_seconds() if t.execution_timeout else None,
                               "outlets": [o.name for o in t.outlets], "waits_s": t.response_timeout.total_seconds() if hasattr(t, "response_timeout") else None, "downstream": sorted(t.downstream_task_ids), "owner": t.owner}
                  for t in dag.tasks}}
print(json.dumps(out))
"""


@pytest.fixture(scope="session")
def structure(environment: dict[str, str]) -> Any:
    return run_python(STRUCTURE, environment)


def test_every_dag_of_the_interface_is_there_and_imports(structure: Any) -> None:
    assert structure["errors"] == {}
    assert set(structure["dags"]) == DAG_IDS


def test_every_task_retries_and_has_a_time_limit(structure: Any) -> None:
    for dag_id, dag in structure["dags"].items():
        assert dag["catchup"] is False and dag["tags"] == ["discovery"] and dag["doc"], dag_id
        for task_id, task in dag["tasks"].items():
            assert task["retries"] == 2 and task["owner"] == "discovery", (dag_id, task_id)
            if task["waits_s"]:  # for a person, without a slot
                assert task["waits_s"] <= timedelta(days=7).total_seconds() and task["timeout_s"] is None, (dag_id, task_id)
            else:
                assert 0 < task["timeout_s"] <= timedelta(days=1).total_seconds(), (dag_id, task_id)


def test_the_chain_of_a_request_is_in_order(structure: Any) -> None:
    tasks = structure["dags"]["visual_discovery"]["tasks"]
    order = ["ingest", "check", "embed", "dedupe", "score", "index", "curate", "check_collection", "publish"]
    assert set(tasks) == set(order)
    for earlier, later in itertools.pairwise(order):
        assert later in tasks[earlier]["downstream"]


def test_the_scheduled_dags_are_chained_by_assets(structure: Any) -> None:
    dags = structure["dags"]
    produces = {dag_id: {name for task in dag["tasks"].values() for name in task["outlets"]} for dag_id, dag in dags.items()}
    chain = ["ingest_batch", "embed_batch", "index_batch", "refresh_collections"]
    assert [sorted(produces[dag_id]) for dag_id in chain] == [["manifest"], ["embeddings"], ["index"], ["dataset_version"]]
    assert [dags[dag_id]["consumes"] for dag_id in chain[1:]] == [["manifest"], ["embeddings"], ["index"]]


def test_batches_are_indexed_one_at_a_time(structure: Any) -> None:
    assert structure["dags"]["index_batch"]["max_active_runs"] == 1  # novelty is scored against what was indexed before


def test_an_approval_stands_between_preview_and_collection(structure: Any) -> None:
    tasks = structure["dags"]["curate_collection"]["tasks"]
    downstream = {task_id: task["downstream"] for task_id, task in tasks.items()}
    assert downstream == {
        "preview": ["curate", "decide"], "decide": ["approve", "curate"], "approve": ["curate"], "curate": ["check_collection", "publish"],
        "check_collection": ["publish"], "publish": [],
    }  # fmt: skip


def test_what_was_left_behind_is_indexed_after_the_batch(structure: Any) -> None:
    assert structure["dags"]["index_batch"]["tasks"]["index"]["downstream"] == ["catch_up"]


PARAMS = """
import json, runpy, sys
params = runpy.run_path(sys.argv[1])["PARAMS"]
def attempt(name, value):
    try:
        params[name].resolve(value)
    except Exception as error:
        return type(error).__name__
    return "accepted"
print(json.dumps([attempt(name, value) for name, value in json.loads(sys.argv[2])]))
"""


@pytest.mark.parametrize(
    ("dag_id", "wrong", "right"),
    [
        ("visual_discovery", [("budget", 0), ("fdr", 1), ("fdr", 0), ("source", ""), ("collection", "Not a name"), ("max_rejected", 2)],
         [("budget", 5), ("fdr", 0.2), ("source", "/a\n/b"), ("collection", "a.b-c_1"), ("weights", None), ("spec", "name: x")]),
        ("curate_collection", [("spec", ""), ("budget_override", 0), ("dry_run", "maybe")],
         [("spec", "name: x"), ("budget_override", None), ("budget_override", 3), ("approval", True)]),
        ("ingest_batch", [("batch", 7)], [("batch", None), ("source", "")]),
    ],
)  # fmt: skip
def test_a_form_refuses_what_cannot_be(dag_id: str, wrong: list[Any], right: list[Any], environment: dict[str, str]) -> None:
    answers = run_python(PARAMS, environment, str(ROOT / "dags" / f"{dag_id}.py"), json.dumps(wrong + right))
    assert answers == ["ParamValidationError"] * len(wrong) + ["accepted"] * len(right)
