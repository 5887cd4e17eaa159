"""The shape of the library: who may import whom, what a bare command costs, errors that travel, statements that are used."""

import importlib
import pickle
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

import discovery
from discovery import errors
from discovery.adapters import catalog
from discovery.adapters.catalog import Catalog, load_queries
from discovery.adapters.decode import Undecodable
from discovery.types import Reason

REPOSITORY = Path(__file__).parents[2]
HEAVY = ["torch", "mlflow", "great_expectations", "dask", "distributed", "timm", "hnswlib", "airflow"]


def every_error() -> list[type[BaseException]]:
    """The tree of errors.py with what other modules hang on it."""
    for module in pkgutil.walk_packages(discovery.__path__, "discovery."):
        if ".airflow" not in module.name and ".web" not in module.name:
            importlib.import_module(module.name)
    found, waiting = [], [errors.DiscoveryError]
    while waiting:
        kind = waiting.pop()
        found.append(kind)
        waiting.extend(kind.__subclasses__())
    return sorted(found, key=lambda kind: kind.__name__)


def test_the_import_contracts_of_pyproject_hold():
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([tool, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", done.stdout)


def test_importing_the_command_line_loads_nothing_heavy():
    code = f"import sys, discovery.cli; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_tree_of_errors_is_walked_whole():
    names = {kind.__name__ for kind in every_error()}
    assert {"DiscoveryError", "SpecError", "StorageFull", "QualityFailed"} <= names and len(names) >= 18


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling(kind):
    copy = pickle.loads(pickle.dumps(kind("index 3f9a holds other vectors")))
    assert type(copy) is kind and str(copy) == "index 3f9a holds other vectors" and copy.exit_code in (1, 2)


def test_undecodable_survives_pickling_with_its_reason():
    copy = pickle.loads(pickle.dumps(Undecodable(Reason.TRUNCATED, "9 bytes")))
    assert (copy.reason, copy.detail) == (Reason.TRUNCATED, "9 bytes")


def test_usage_errors_end_with_2_and_failures_with_1():
    assert {kind.exit_code for kind in every_error() if issubclass(kind, errors.UsageError)} == {2}
    assert {kind.exit_code for kind in every_error() if not issubclass(kind, errors.UsageError)} == {1}


@pytest.mark.parametrize("name", sorted(load_queries()))
def test_a_named_query_has_a_caller(name):
    assert f'"{name}"' in Path(catalog.__file__).read_text(encoding="utf-8")


def test_every_statement_of_the_files_is_named():
    files = (catalog.sql_folder() / "queries").glob("*.sql")
    statements = sum(file.read_text().count(";\n") for file in files)
    assert statements == len(load_queries()) > 10


@pytest.mark.parametrize("name", sorted(load_queries()))
def test_a_named_query_explains_on_the_migrated_schema(name, tmp_path):
    database = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    database.migrate()
    query = load_queries()[name]
    values = dict.fromkeys(re.findall(r":(\w+)", re.sub(r"--.*", "", query)), 1)
    with database.engine.begin() as connection:
        assert list(connection.execute(text(f"EXPLAIN {query}"), values))
    database.close()
