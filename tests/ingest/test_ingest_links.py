"""Linked folders are followed, each real folder is listed once, and a listing never holds a folder."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from glob import iglob
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from discovery.adapters import folders
from discovery.adapters.folders import list_folder, list_glob
from discovery.adapters.listing import LeftOut
from tests.ingest.test_ingest_incremental import open_root, picture, read_by


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """a.jpg, album/b.jpg and raw/c.jpg."""
    for name in ("a.jpg", "album/b.jpg", "raw/c.jpg"):
        write(tmp_path / "photos" / name)
    return tmp_path / "photos"


@pytest.fixture(params=["as they come", "the other way round"])
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The order in which the file system names what is in a folder."""
    scandir = os.scandir

    class Reversed:
        def __init__(self, folder: str) -> None:
            with scandir(folder) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> Iterator[os.DirEntry[str]]:
            return iter(self.entries)

        def __exit__(self, *arguments: object) -> None:
            pass

    if request.param == "the other way round":
        monkeypatch.setattr(os, "scandir", Reversed)
    return str(request.param)


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(path.name)
    return path


def names(source: Path) -> list[str]:
    """What a source lists, sorted, relative to the folder `photos`."""
    listing = list_glob if "*" in str(source) else list_folder
    found = sorted(item.object_uri for item in listing(str(source), LeftOut()))
    return [uri.partition("/photos/")[2] for uri in found]


def test_a_linked_album_is_part_of_the_source(photos: Path, order: str) -> None:
    for name in ("2026/one.jpg", "2026/may/two.jpg"):
        write(photos.parent / "disk" / name)
    (photos / "holidays").symlink_to(photos.parent / "disk" / "2026")
    assert names(photos) == ["a.jpg", "album/b.jpg", "holidays/may/two.jpg", "holidays/one.jpg", "raw/c.jpg"]
    assert names(photos / "h*") == ["holidays/may/two.jpg", "holidays/one.jpg"]
    assert names(photos / "*" / "*.jpg") == ["album/b.jpg", "holidays/one.jpg", "raw/c.jpg"]


def test_a_name_without_links_goes_first_and_then_the_first_by_name(photos: Path, order: str) -> None:
    write(photos.parent / "disk" / "one.jpg")
    (photos / "aaa").symlink_to(photos / "raw")
    for name in ("m", "k", "l"):
        (photos / name).symlink_to(photos.parent / "disk")
    assert names(photos) == ["a.jpg", "album/b.jpg", "k/one.jpg", "raw/c.jpg"]
    assert names(photos / "**" / "*.jpg") == ["a.jpg", "album/b.jpg", "k/one.jpg", "raw/c.jpg"]


def test_loops_end(photos: Path, order: str) -> None:
    (photos / "album" / "self").symlink_to(photos)
    (photos / "album" / "here").symlink_to(".")
    (photos / "raw" / "up").symlink_to(photos.parent)
    write(photos.parent / "beside.jpg")
    expected = ["a.jpg", "album/b.jpg", "raw/c.jpg", "raw/up/beside.jpg"]
    assert names(photos) == names(photos / "**" / "*.jpg") == names(photos / "**") == names(photos / "**" / "**" / "*") == expected


def test_a_link_to_itself_is_a_rejection(photos: Path, tmp_path: Path) -> None:
    (photos / "knot").symlink_to("knot")
    (found,) = [item for item in list_folder(str(photos), LeftOut()) if item.problem]
    assert found.object_uri == f"{photos}/knot" and found.problem == "Too many levels of symbolic links"


def test_a_linked_album_is_ingested_and_is_gone_when_its_link_is(tmp_path: Path) -> None:
    picture(tmp_path / "photos" / "a.png", 1)
    picture(tmp_path / "disk" / "b.png", 2)
    (tmp_path / "photos" / "album").symlink_to(tmp_path / "disk")
    with open_root(tmp_path / "store") as ws:  # type: ignore[attr-defined]
        assert read_by(ws, tmp_path / "photos")[0].assets == 2
        (tmp_path / "photos" / "album").unlink()
        second, read = read_by(ws, tmp_path / "photos")
        assert (read, second.assets, second.removed) == (0, 1, 1)


PARTS = st.sampled_from(["*", "**", "a", "b", "a*", "?", "[ab]", "*.jpg", "?.jpg", "x.jpg", ".*", "[!a]*"])


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three levels of folders a, b, ab and .c with a few files each."""
    base = tmp_path_factory.mktemp("tree")
    for one in ("", "a", "b", "ab", ".c"):
        for two in ("", "a", "b", ".c"):
            for name in ("x.jpg", "y.png", ".z.jpg"):
                write(base / one / two / name)
    return base


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PARTS, min_size=1, max_size=4).filter(lambda parts: any("*" in part or "?" in part or "[" in part for part in parts)))
def test_a_glob_matches_what_pythons_glob_matches(tree: Path, parts: list[str]) -> None:
    """And of folders that match, all that is in them."""
    pattern = "/".join([str(tree), *parts])
    expected: set[str] = set()
    for match in iglob(pattern, recursive=True):
        expected.update([match] if os.path.isfile(match) else (os.path.join(top, name) for top, _, files in os.walk(match) for name in files))
    try:
        found = [item.object_uri for item in list_glob(pattern, LeftOut())]
    except (FileNotFoundError, NotADirectoryError):  # what comes before the first wildcard
        found = []
    assert sorted(found) == sorted(map(os.path.normpath, expected))


def test_memory_does_not_grow_with_a_flat_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "PAGE", 250)
    peaks = []
    for count in (1_000, 8_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            os.close(os.open(folder / f"{number:06}.jpg", os.O_CREAT))
        tracemalloc.start()
        assert sum(1 for _ in list_folder(str(folder), LeftOut())) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
