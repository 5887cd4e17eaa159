"""Ingest on pictures that were made to break decoders: those of Pillow's own tests. None escapes, each rejection has its reason."""

from __future__ import annotations

import hashlib
import os
import tarfile
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from discovery.config import Config
from discovery.stages.ingest import ingest
from discovery.types import Reason
from discovery.workspace import open_workspace

pytestmark = pytest.mark.live
SDIST = (
    "https://files.pythonhosted.org/packages/ce/a4/9cc30690a394a8305e8be4c9036aa16d0dfddadd09079860b582f562496d/pillow-13.0.0.tar.gz",
    "cdcd1ba258178f7356d74170c9a81ba4eab6a5d55748bc402a5a2a6fe6be3510",
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    url, sha256 = SDIST
    try:
        with urllib.request.urlopen(url, timeout=120) as answer:
            data = answer.read()
    except OSError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"PyPI is out of reach: {error}")
    assert hashlib.sha256(data).hexdigest() == sha256
    folder = tmp_path_factory.mktemp("sdist")
    (folder / "pillow.tar.gz").write_bytes(data)
    with tarfile.open(folder / "pillow.tar.gz") as archive:
        images = [member for member in archive if member.isreg() and "/Tests/images/" in member.name]
        archive.extractall(folder / "unpacked", images, filter="data")
    return folder


def test_none_of_pillows_test_pictures_escapes(hostile: Path, tmp_path: Path) -> None:
    files = [path for path in (hostile / "unpacked").rglob("*") if path.is_file()]
    assert len(files) > 1000
    with open_workspace(Config(root=str(tmp_path / "root"))) as ws:
        manifest = ingest([str(hostile / "unpacked")], ws)
        rows = ws.store.read_table(manifest).to_pylist()
        assert {row["object_uri"] for row in rows} == set(map(str, files))  # one is an archive with pictures
        assert all(bool(row["asset_id"]) != bool(row["reason"]) for row in rows)
        assert Counter(row["reason"] for row in rows if row["reason"]) == manifest.rejections
        assert set(manifest.rejections) <= {*Reason} - {Reason.CRASHED_DECODER, Reason.TIMEOUT, Reason.UNREADABLE, Reason.VANISHED}
        assert manifest.assets > 600 and manifest.rejections["too_many_pixels"] == 3
        assert all(row["detail"] for row in rows if row["reason"])


def test_the_archive_they_came_in_gives_the_same_assets(hostile: Path, tmp_path: Path) -> None:
    with open_workspace(Config(root=str(tmp_path / "root"))) as ws:
        folder = ws.store.read_table(ingest([str(hostile / "unpacked")], ws), columns=["asset_id"])["asset_id"].to_pylist()
        archive = ws.store.read_table(ingest([str(hostile / "pillow.tar.gz")], ws)).to_pylist()
        assert {row["asset_id"] for row in archive if "/Tests/images/" in row["source_uri"]} == set(folder)
