"""The example of the how-to on exports runs on a real version, and its tables name what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from discovery.adapters.exports import FORMATS
from discovery.core.boxes import COLUMNS
from discovery.stages import export
from tests.docs.examples import PROJECT
from tests.export.conftest import source, store  # noqa: F401

PAGE = (PROJECT / "docs/howto/export.md").read_text()


def test_the_training_example_runs(store: Path, tmp_path: Path) -> None:  # noqa: F811
    (code,) = re.findall(r"<!-- example: training -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "photos").symlink_to(store)
    script = tmp_path / "train.py"
    script.write_text(f"{code}print(len(train), images.shape[1:], model[2].weight.grad.abs().sum() > 0)\n")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)], cwd=tmp_path, env={"PYTHONPATH": str(PROJECT), "HOME": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d+ torch\.Size\(\[3, 64, 64\]\) tensor\(True\)\n", done.stdout), done.stdout


def test_the_table_of_formats_is_that_of_the_code() -> None:
    rows = PAGE.split("| format | layout | read by |\n|---|---|---|\n")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", rows, re.MULTILINE) == list(FORMATS)


def test_the_files_and_columns_named_are_those_of_the_code() -> None:
    for name in (export.MEMBERS, export.SUMS, export.CROISSANT, export.SPEC, export.MARKER, f"{export.STATE}/", *COLUMNS):
        assert f"`{name}`" in PAGE, name
