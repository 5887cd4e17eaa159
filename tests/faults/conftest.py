"""The pictures that the chain is run on while things break, and what it makes of them when nothing does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.kill_chain import finish, make_pictures
from tests.once import made_once


@pytest.fixture(scope="package")
def chain_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def undisturbed_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root that `discovery run` made of these pictures, with its answer beside it; one for all workers, and only read."""

    def make(folder: Path) -> None:
        (folder / "pictures").mkdir()
        answer = finish(make_pictures(folder / "pictures"), folder / "root")
        (folder / "answer.json").write_text(json.dumps(answer))

    return made_once(tmp_path_factory, "undisturbed", make) / "root"


@pytest.fixture(scope="session")
def undisturbed(undisturbed_root: Path) -> dict[str, object]:
    """The answer of `discovery run` in an empty root."""
    answer: dict[str, object] = json.loads((undisturbed_root.parent / "answer.json").read_text())
    return answer


@pytest.fixture(scope="session")
def needed_kib(undisturbed_root: Path) -> int:
    """What such a root takes of a disk in memory, in KiB: its files in pages of 4 KiB, those of two names once; folders take nothing there."""
    sizes = {found.st_ino: found.st_size for found in (path.stat() for path in undisturbed_root.rglob("*") if path.is_file())}
    return sum(-(-size // 4096) * 4 for size in sizes.values())
