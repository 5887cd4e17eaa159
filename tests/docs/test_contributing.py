"""CONTRIBUTING is true: its examples, appended to a copy of the library, pass the contract tests and work in the whole chain."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from discovery.core.measures import MEASURES, measure_image
from tests.docs.examples import PROJECT, examples

PAGE = "CONTRIBUTING.md"
EXAMPLES = examples(PAGE)


@pytest.fixture(scope="module")
def extended_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the library and its core tests, each example at the end of the one file it names."""
    copy = tmp_path_factory.mktemp("extended library")
    for folder in ("discovery", "sql", "tests/core"):
        shutil.copytree(PROJECT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", copy)
    for file, code in EXAMPLES.values():
        with open(copy / file, "a") as source:
            source.write(f"\n\n{code}")
    return copy


def run(library: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DISCOVERY_", "PYTEST_"))}
    environment |= {"PYTHONPATH": str(library), "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [sys.executable, *command], cwd=library, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_there_is_an_example_of_an_encoder_a_measure_and_a_selector():
    assert {name: file for name, (file, _) in EXAMPLES.items()} == {
        "measure": "discovery/core/measures.py",
        "selector": "discovery/core/selection.py",
        "encoder": "discovery/adapters/encoders.py",
    }


def test_the_examples_work_in_the_whole_chain(extended_library, tiny_pictures, tmp_path):
    ended = run(extended_library, str(Path(__file__).with_name("use_examples.py")), str(tiny_pictures), str(tmp_path / "root"))
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["library"] == str(extended_library)
    # red: red-green 255, yellow-blue 127.5, no spread: 0.3 * sqrt(255² + 127.5²) = 85.5296
    assert found["red"] == pytest.approx(85.5296, abs=1e-3) and found["grey"] == 0.0
    assert found["older"] == [None] * 12  # unknown in an index made before the measure was added, until the next run
    assert len(found["newer"]) == 12 and None not in found["newer"] and found["embedded"] == 12  # and that embeds nothing again
    assert found["shape"] == [12, 769] and found["dtype"] == "float32"
    assert found["norms"] == pytest.approx([1.0] * 12, abs=1e-5) and not found["batch_mates_matter"]
    assert found["encoder_id"].startswith("colour_grid@") and found["elements"] == 12
    assert (found["members"], found["bound"], found["leaked"]) == (4, None, 0)


def test_the_examples_pass_the_contract_tests_and_their_doctests(extended_library):
    ended = run(
        extended_library, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/core/test_core_selection.py",
        "tests/core/test_core_splits_measures.py", "discovery/core/measures.py",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-3000:]
    listed = run(extended_library, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", "tests/core", "discovery/core")
    assert "[central]" in listed.stdout and "discovery.core.measures.colourfulness" in listed.stdout


def test_an_unknown_method_is_refused_with_the_registered_ones(extended_library):
    code = "from discovery.spec import parse_spec; parse_spec('name: a\\nbudget: 1\\nselect: {method: typcal}')"
    assert "expected one of central, cluster_balanced, facility_location, k_center, most_novel, random, stratified, typical" in run(extended_library, "-c", code).stderr


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (8, 8)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_every_measure_is_finite_for_every_picture(shape, value):
    measured = measure_image(np.full((*shape, 3), value, np.uint8))
    assert set(measured) == set(MEASURES) and np.isfinite(list(measured.values())).all()
