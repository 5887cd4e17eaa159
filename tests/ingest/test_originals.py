"""Originals are only read: the whole chain, run twice, leaves every file of its sources as it was, and asks buckets for nothing but reads."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import s3fs

from discovery.config import Config
from discovery.pipeline import run_pipeline
from discovery.spec import parse_spec
from discovery.types import Manifest
from discovery.workspace import open_workspace
from tests.adapters.camera_files import dng, photo
from tests.adapters.clips import clip
from tests.ingest.faulty_s3 import FaultyS3

SPEC = parse_spec("name: some\nbudget: 5\n")
ASSETS = 6 + 1 + 3 + 2  # pictures, the RAW file, frames of the clip, members of the archive
HEADER = struct.Struct("iIII")  # of an inotify event: watch, mask, cookie, length of the name
CHANGES = {  # of inotify(7); the first is seen too when nothing was written
    "opened for writing": 0x8, "modified": 0x2, "attributes": 0x4, "moved from": 0x40, "moved to": 0x80, "created": 0x100, "deleted": 0x200,
    "itself deleted": 0x400, "itself moved": 0x800,
}  # fmt: skip


@pytest.fixture
def originals(tmp_path: Path) -> Path:
    """Pictures, one of them broken, a RAW file, a video, an archive, sidecars, and a list in a folder of its own."""
    folder = tmp_path / "originals"
    (folder / "photos" / "trip").mkdir(parents=True)
    for number in range(6):
        (folder / "photos" / f"{number}.jpg").write_bytes(photo(seed=number))
    (folder / "photos" / "broken.jpg").write_bytes(photo(seed=0)[:700])
    (folder / "photos" / "trip" / "raw.dng").write_bytes(dng())
    clip(folder / "photos" / "trip" / "clip.mp4")
    with zipfile.ZipFile(folder / "photos" / "more.zip", "w") as archive:
        for number in (20, 21):
            archive.writestr(f"in/{number}.jpg", photo(seed=number))
    (folder / "photos" / "0.json").write_text('{"stars": 5}')
    (folder / "photos" / "1.jpg.xmp").write_text(
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"/></rdf:RDF></x:xmpmeta>'
    )
    (folder / "lists").mkdir()
    (folder / "lists" / "train.csv").write_text("path,label\n../photos/0.jpg,cat\n../photos/1.jpg,dog\n../photos/gone.jpg,dog\n")
    return folder


def run_twice(sources: list[str], root: Path, *, store_bytes: bool, **sections: dict[str, object]) -> Manifest:
    """The chain, and the chain again with the store opened anew; what the second ingest says."""
    for _ in range(2):
        config = Config(root=str(root)).replace(dask={"scheduler": "inline"}, ingest={"decoders": 1, "store_bytes": store_bytes}, **sections)
        with open_workspace(config) as ws:
            manifest = run_pipeline(sources, ws, spec=SPEC).records["ingest"]
    assert isinstance(manifest, Manifest)
    return manifest


def state(folder: Path) -> dict[str, tuple[object, ...]]:
    """Everything that could change of a folder, the files and folders below it, but the time of the last reading."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted([folder, *folder.rglob("*")]):
        stat = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (content, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_mode, stat.st_ino, stat.st_nlink, stat.st_uid, stat.st_gid)
    return found


@contextmanager
def watched(folder: Path) -> Iterator[list[tuple[str, str]]]:
    """What any process does to the files of a folder while the block runs, as (what, name): told by the kernel, filled in at its end."""
    seen: list[tuple[str, str]] = []
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.inotify_init1(os.O_NONBLOCK)
    assert handle >= 0, os.strerror(ctypes.get_errno())
    try:
        for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
            assert libc.inotify_add_watch(handle, os.fsencode(path), sum(CHANGES.values())) >= 0, os.strerror(ctypes.get_errno())
        yield seen
        try:
            events = os.read(handle, 2**20)
        except BlockingIOError:
            return
        while events:
            _, mask, _, length = HEADER.unpack_from(events)
            name = events[HEADER.size : HEADER.size + length].rstrip(b"\0").decode()
            seen += [(what, name) for what, bit in CHANGES.items() if mask & bit]
            events = events[HEADER.size + length :]
    finally:
        os.close(handle)


@pytest.mark.parametrize("store_bytes", [True, False], ids=["copied", "left where they are"])
def test_the_whole_chain_changes_no_original_and_opens_none_for_writing(originals: Path, tmp_path: Path, store_bytes: bool) -> None:
    before = state(originals)
    with watched(originals) as seen:
        manifest = run_twice([str(originals / "photos"), str(originals / "lists" / "train.csv")], tmp_path / "root", store_bytes=store_bytes)
    assert (manifest.assets, manifest.sidecars) == (ASSETS, 2)
    assert manifest.rejections == {"truncated": 1, "unreadable": 1}  # broken.jpg; gone.jpg of the list
    assert state(originals) == before and seen == []


def test_the_watch_sees_a_file_that_is_opened_for_writing_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x").write_bytes(b"1")
    before = state(tmp_path)
    with watched(tmp_path) as seen:
        os.close(os.open(tmp_path / "sub" / "x", os.O_RDWR))
    assert seen == [("opened for writing", "x")] and state(tmp_path) == before
    with watched(tmp_path) as seen:
        shutil.move(tmp_path / "sub" / "x", tmp_path / "y")
    assert seen == [("moved from", "x"), ("moved to", "y")] and state(tmp_path) != before


@pytest.mark.live
@pytest.mark.parametrize("store_bytes", [True, False], ids=["copied", "left where they are"])
def test_a_bucket_is_asked_for_nothing_but_reads(originals: Path, moto_endpoint: str, tmp_path: Path, store_bytes: bool) -> None:
    filesystem = s3fs.S3FileSystem(client_kwargs={"endpoint_url": moto_endpoint})
    filesystem.mkdir("camera")
    filesystem.pipe({f"camera/{path.relative_to(originals)}": path.read_bytes() for path in originals.rglob("*") if path.is_file()})
    filesystem.pipe({"camera/lists/train.csv": b"uri,label\ns3://camera/photos/0.jpg,cat\ns3://camera/photos/gone.jpg,dog\n"})
    with FaultyS3(moto_endpoint) as proxy:
        sources = ["s3://camera/photos", "s3://camera/lists/train.csv"]
        manifest = run_twice(sources, tmp_path / "root", store_bytes=store_bytes, s3={"endpoint_url": proxy.url})
    assert (manifest.assets, manifest.sidecars) == (ASSETS, 2)
    assert {method for method, _ in proxy.asked} == {"GET", "HEAD"}
    assert {path for _, path in proxy.asked} >= {f"/camera/photos/{name}" for name in ("0.jpg", "0.json", "more.zip", "trip/clip.mp4", "trip/raw.dng")}
