"""The pictures that the chain is run on while things break, and what it makes of them when nothing does."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.kill_chain import finish, make_pictures


@pytest.fixture(scope="package")
def chain_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="package")
def undisturbed(chain_pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The answer of `discovery run` in an empty root."""
    return finish(chain_pictures, tmp_path_factory.mktemp("undisturbed"))
