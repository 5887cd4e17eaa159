"""What cannot be looked at is not gone: its assets are kept until the source can be seen again."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from discovery.pipeline import run_pipeline
from discovery.stages.asset_table import asset_table
from discovery.stages.history import current_snapshot
from discovery.workspace import Workspace
from tests.ingest.test_ingest_incremental import open_root, picture, read_by, rows


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(8):
        picture(tmp_path / "photos" / "ab"[number % 2] / f"{number}.png", number)
    return tmp_path / "photos"


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with open_root(tmp_path / "store") as workspace:  # type: ignore[attr-defined]
        yield workspace


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path, int], None]:
    """Lets a function of os fail for one path; the tests run as root, whom no mode keeps out."""

    def failing(name: str, broken: Path, code: int) -> None:
        real = getattr(os, name)

        def call(path: object, *arguments: object, **options: object) -> object:
            if str(path) == str(broken):
                raise OSError(code, os.strerror(code), str(path))
            return real(path, *arguments, **options)

        monkeypatch.setattr(os, name, call)

    return failing


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_folder_that_cannot_be_listed_keeps_what_was_known_below_it(
    code: int, photos: Path, ws: Workspace, fail: Callable[[str, Path, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = read_by(ws, photos)
    before = rows(first, ws)
    fail("scandir", photos / "b", code)
    for number in (1, 2):  # the second time there is only the first blind manifest to go by
        picture(photos / "a" / f"new{number}.png", 100 + number)
        blind, read = read_by(ws, photos)
        assert (blind.removed, blind.moved, blind.assets, blind.rejections) == (0, 0, 8 + number, {"unreadable": 1})
        assert (read, blind.unchanged) == (2, 7 + number)  # read: the new picture, and the folder, which is a row of its own
        assert sum(row in before for row in rows(blind, ws)) == 8
    assert read_by(ws, photos)[0] == blind
    monkeypatch.undo()
    (photos / "b" / "1.png").unlink()
    seen, read = read_by(ws, photos)
    assert (read, seen.rows, seen.assets, seen.removed, seen.rejections, seen.unchanged) == (0, 9, 9, 1, {}, 9)


def test_a_file_that_cannot_be_looked_at_stays_and_is_not_read_again(
    photos: Path, ws: Workspace, fail: Callable[[str, Path, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = read_by(ws, photos)
    fail("stat", photos / "a" / "0.png", errno.EIO)
    blind, _ = read_by(ws, photos)
    assert (blind.rows, blind.assets, blind.removed, blind.rejections) == (9, 8, 0, {"unreadable": 1})
    assert [row["reason"] for row in rows(blind, ws) if row["object_uri"] == f"{photos}/a/0.png"] == [None, "unreadable"]
    monkeypatch.undo()
    seen, read = read_by(ws, photos)
    assert read == 0 and rows(seen, ws) == rows(first, ws)


def test_what_is_kept_is_still_offered(
    photos: Path, ws: Workspace, fail: Callable[[str, Path, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def offered() -> int:
        return asset_table(current_snapshot(ws), ws, []).column("is_removed").to_pylist().count(False)

    run_pipeline([str(photos)], ws)
    assert offered() == 8
    fail("scandir", photos / "b", errno.EIO)
    run_pipeline([str(photos)], ws)
    assert offered() == 8
    monkeypatch.undo()
    (photos / "b" / "1.png").unlink()
    run_pipeline([str(photos)], ws)
    assert offered() == 7


def test_names_beside_a_hidden_folder_and_names_that_are_not_unicode(photos: Path, ws: Workspace, fail: Callable[[str, Path, int], None]) -> None:
    os.link(photos / "b" / "1.png", os.fsencode(photos / "b") + b"/\xff \xfe.png")
    for name in ("b-", "b.png", "b0", "c"):  # each sorts near `b/`
        picture(photos / name / "x.png", 50)
    assert read_by(ws, photos)[0].rows == 13
    fail("scandir", photos / "b", errno.EIO)
    for name in ("b-", "b.png", "b0", "c"):
        (photos / name / "x.png").unlink()
    blind, _ = read_by(ws, photos)
    assert (blind.assets, blind.rows, blind.removed) == (8, 10, 4)  # 4 of a, 5 of b (two names of one picture), 1 rejection


def test_a_name_that_leads_nowhere_is_gone(photos: Path, ws: Workspace) -> None:
    (photos / "link.png").symlink_to(photos / "target")
    picture(photos.parent / "elsewhere.png", 99).rename(photos / "target")
    read_by(ws, photos)
    (photos / "target").unlink()
    manifest, _ = read_by(ws, photos)
    assert (manifest.assets, manifest.removed, manifest.rejections) == (8, 2, {"unreadable": 1})
