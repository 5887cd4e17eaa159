"""Ingest on pictures that were made to break decoders: the test data of Pillow, exiv2 and libpng. None escapes, each rejection has its reason."""

from __future__ import annotations

import hashlib
import os
import tarfile
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from discovery.config import Config
from discovery.stages.ingest import ingest
from discovery.types import Manifest, Reason
from discovery.workspace import open_workspace

pytestmark = pytest.mark.live
PILLOW = (
    "https://files.pythonhosted.org/packages/ce/a4/9cc30690a394a8305e8be4c9036aa16d0dfddadd09079860b582f562496d/pillow-13.0.0.tar.gz",
    "cdcd1ba258178f7356d74170c9a81ba4eab6a5d55748bc402a5a2a6fe6be3510",
)
EXIV2 = (
    "http://deb.debian.org/debian/pool/main/e/exiv2/exiv2_0.27.6.orig.tar.gz",
    "f16ee5ff08b6994c66106109417857f13e711fca100ac43c6a403d4f02b59602",
)
LIBPNG = (  # contrib/ holds pngsuite, and pictures that were hard for libpng itself
    "http://deb.debian.org/debian/pool/main/libp/libpng1.6/libpng1.6_1.6.39.orig.tar.gz",
    "a00e9d2f2f664186e4202db9299397f851aea71b36a35e74910b8820e380d441",
)
NEVER = {Reason.CRASHED_DECODER, Reason.TIMEOUT, Reason.UNREADABLE, Reason.VANISHED}  # of a healthy disk


def fetched(source: tuple[str, str], part: str, folder: Path) -> Path:
    """A folder with `source.tar.gz` and, under `unpacked`, the files whose name holds `part`; skips where the network is out of reach."""
    url, sha256 = source
    try:
        with urllib.request.urlopen(url, timeout=120) as answer:
            data = answer.read()
    except OSError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{url} is out of reach: {error}")
    assert hashlib.sha256(data).hexdigest() == sha256
    (folder / "source.tar.gz").write_bytes(data)
    with tarfile.open(folder / "source.tar.gz") as archive:
        archive.extractall(folder / "unpacked", [member for member in archive if member.isreg() and part in member.name], filter="data")
    return folder


def ingested(folder: Path, root: Path) -> tuple[Manifest, list[dict[str, Any]]]:
    """The manifest of a folder and its rows, after checking that every file has one and that each is an asset or a reason."""
    files = {str(path) for path in folder.rglob("*") if path.is_file()}
    with open_workspace(Config(root=str(root))) as ws:
        manifest = ingest([str(folder)], ws)
        rows = ws.store.read_table(manifest).to_pylist()
    assert {row["object_uri"] for row in rows} == files  # some are archives with pictures
    assert all(bool(row["asset_id"]) != bool(row["reason"]) for row in rows)
    assert all(row["detail"] for row in rows if row["reason"])
    assert Counter(row["reason"] for row in rows if row["reason"]) == manifest.rejections
    assert set(manifest.rejections) <= {*Reason} - NEVER
    return manifest, rows


@pytest.fixture(scope="module")
def pillow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fetched(PILLOW, "/Tests/images/", tmp_path_factory.mktemp("pillow"))


def test_none_of_pillows_test_pictures_escapes(pillow: Path, tmp_path: Path) -> None:
    manifest, _ = ingested(pillow / "unpacked", tmp_path / "root")
    assert manifest.rows > 1000 and manifest.assets > 600 and manifest.rejections["too_many_pixels"] == 3


def test_the_archive_they_came_in_gives_the_same_assets(pillow: Path, tmp_path: Path) -> None:
    with open_workspace(Config(root=str(tmp_path / "root"))) as ws:
        folder = ws.store.read_table(ingest([str(pillow / "unpacked")], ws), columns=["asset_id"])["asset_id"].to_pylist()
        archive = ws.store.read_table(ingest([str(pillow / "source.tar.gz")], ws)).to_pylist()
        assert {row["asset_id"] for row in archive if "/Tests/images/" in row["source_uri"]} == set(folder)


# What `exiv2 -PEkv` of Debian's exiv2 0.27.6 says of the same files.
CAMERAS = {
    "exiv2-canon-eos-20d.jpg": ("Canon", "Canon EOS 20D", "2006-08-02T21:53:01", 1 / 60, 5.6, 100),
    "exiv2-bug876.jpg": ("Canon", "Canon EOS 6D", "2013-01-11T13:02:14", 0.6, 2.0, 100),
    "exiv2-bug855.jpg": ("PENTAX", "PENTAX K-x", "2012-01-22T01:54:26", 1 / 20, 5.6, 2500),
    "exiv2-fujifilm-finepix-s2pro.jpg": ("FUJIFILM", "FinePixS2Pro", "2003-09-26T23:16:36", 1 / 60, 4.0, 400),
    "exiv2-sigma-d10.jpg": ("SIGMA", "SIGMA SD10", "2004-03-16T19:52:38", 8.0, 5.6, 100),
    "exiv2-olympus-c8080wz.jpg": ("OLYMPUS CORPORATION", "C8080WZ", "2004-02-08T21:38:45", 1 / 160, 4.5, 50),
    "IMG_1361.dng": ("Apple", "iPhone 12 Pro", "2020-12-29T14:24:45", 1 / 5556, 1.6, 32),
    "ReaganLargePng.png": ("NIKON CORPORATION", "NIKON D1X", "2004-06-21T23:37:53", 1 / 125, 5.0, None),  # 4 MB of colour profile
}


def test_none_of_exiv2s_test_pictures_escapes_and_cameras_are_named(tmp_path: Path) -> None:
    manifest, rows = ingested(fetched(EXIV2, "/test/data/", tmp_path) / "unpacked", tmp_path / "root")
    assert manifest.rows > 500 and manifest.assets > 150
    found = {Path(row["object_uri"]).name: row for row in rows if row["asset_id"]}
    assert {found[name]["format"] for name in ("2021-02-13-1929.heic", "Canon.HIF", "Sony.HIF")} == {"HEIC"}
    for name, (make, model, taken, exposure_s, f_number, iso) in CAMERAS.items():
        row = found[name]
        assert (row["camera_make"], row["camera_model"], row["iso"]) == (make, model, iso), name
        assert row["taken_at"].isoformat(timespec="seconds") == taken, name
        assert (row["exposure_s"], row["f_number"]) == (pytest.approx(exposure_s, rel=1e-3), pytest.approx(f_number)), name


def test_pngsuite_decodes_whole_and_none_of_libpngs_crashers_escapes(tmp_path: Path) -> None:
    manifest, rows = ingested(fetched(LIBPNG, ".png", tmp_path) / "unpacked", tmp_path / "root")
    suite = [row for row in rows if "/pngsuite/" in row["object_uri"]]
    assert len(suite) > 55 and [row["object_uri"] for row in suite if not row["asset_id"]] == []
    assert manifest.rows > 180 and manifest.assets > 150
