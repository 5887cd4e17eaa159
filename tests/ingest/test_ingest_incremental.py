"""Ingest over a source that grows, shrinks and changes: only what is new is read, and every listed object is accounted for."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from discovery import schemas
from discovery.adapters.ingest_tables import IngestTables
from discovery.config import Config
from discovery.errors import DiscoveryError, SourceNotFound
from discovery.stages import ingest as stage
from discovery.stages.ingest import ingest
from discovery.types import IngestPart, Manifest
from discovery.workspace import Workspace, open_workspace


def picture(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(number).integers(0, 256, (4, 5, 3), np.uint8)
    Image.fromarray(coarse).resize((60, 40), Image.Resampling.BICUBIC).save(path)
    return path


def open_root(root: Path, **settings: object) -> object:
    return open_workspace(Config(root=str(root)).replace(dask={"scheduler": "inline"}, ingest={"decoders": 1, **settings}))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(8):
        picture(tmp_path / "photos" / "ab"[number % 2] / f"{number}.png", number)
    return tmp_path / "photos"


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with open_root(tmp_path / "store") as workspace:  # type: ignore[attr-defined]
        yield workspace


def read_by(ws: Workspace, *sources: Path) -> tuple[Manifest, int]:
    """The manifest, and how many objects were read for it."""
    before = Counter(ws.tally)
    manifest = ingest([str(source) for source in sources], ws)
    return manifest, (Counter(ws.tally) - before)["ingest.objects_read"]


def rows(manifest: Manifest, ws: Workspace) -> list[dict[str, object]]:
    return ws.store.read_table(manifest).to_pylist()


def test_an_unchanged_source_is_the_same_manifest_and_nothing_is_read(photos: Path, ws: Workspace) -> None:
    first, read = read_by(ws, photos)
    assert (read, first.rows, first.assets, first.new_assets, first.unchanged, first.previous) == (8, 8, 8, 8, 0, "")
    assert read_by(ws, photos) == (first, 0)


def test_only_new_and_changed_objects_are_read(photos: Path, ws: Workspace) -> None:
    first, _ = read_by(ws, photos)
    picture(photos / "c" / "new.png", 100)
    picture(photos / "a" / "0.png", 200)
    second, read = read_by(ws, photos)
    assert read == 2 and (second.rows, second.unchanged, second.new_assets, second.removed) == (9, 7, 2, 0)
    assert second.previous == first.id and first.id in second.inputs
    same = {row["source_uri"]: row for row in rows(first, ws)}
    assert sum(same.get(str(row["source_uri"])) == row for row in rows(second, ws)) == 7


def test_what_is_gone_is_listed_and_what_moved_is_recognised_by_its_bytes(photos: Path, ws: Workspace) -> None:
    first, _ = read_by(ws, photos)
    ids = {Path(str(row["source_uri"])).name: row["asset_id"] for row in rows(first, ws)}
    (photos / "a" / "0.png").unlink()
    (photos / "a" / "2.png").rename(photos / "b" / "renamed.png")
    shutil.copy2(photos / "a" / "4.png", photos / "b" / "copy.png")
    second, read = read_by(ws, photos)
    assert read == 2 and (second.rows, second.assets, second.new_assets, second.removed, second.moved) == (8, 7, 0, 2, 1)
    gone = ws.store.read_table(second, "removed").to_pylist()
    assert [(Path(row["source_uri"]).name, row["asset_id"]) for row in gone] == [("0.png", ids["0.png"]), ("2.png", ids["2.png"])]
    now = {Path(str(row["source_uri"])).name: row["asset_id"] for row in rows(second, ws)}
    assert now["renamed.png"] == ids["2.png"] and now["copy.png"] == now["4.png"]


def test_a_source_that_returns_to_an_earlier_state_is_a_manifest_of_its_own(photos: Path, ws: Workspace) -> None:
    first, _ = read_by(ws, photos)
    shutil.move(photos / "a" / "0.png", photos.parent / "aside.png")
    second, _ = read_by(ws, photos)
    shutil.move(photos.parent / "aside.png", photos / "a" / "0.png")
    third, read = read_by(ws, photos)
    assert third.listing == first.listing and third.previous == second.id and third.id != first.id
    assert read == 1 and rows(third, ws) == rows(first, ws)
    assert read_by(ws, photos) == (third, 0)


def test_another_source_over_the_same_files_reads_nothing(photos: Path, ws: Workspace) -> None:
    read_by(ws, photos)
    part, read = read_by(ws, photos / "a")
    assert read == 0 and part.rows == part.unchanged == 4 and part.previous == ""
    both, read = read_by(ws, photos / "b", photos)  # they overlap: each object once
    assert read == 0 and both.rows == 8
    pattern, read = read_by(ws, photos / "*" / "?.png")
    assert read == 0 and pattern.rows == 8


def test_a_stranger_beside_the_source_does_not_count_as_below_it(photos: Path, ws: Workspace) -> None:
    picture(photos.parent / "photos2" / "x.png", 5)
    assert read_by(ws, photos)[0].rows == 8


def test_other_limits_look_again_at_what_they_touch(photos: Path, ws: Workspace, tmp_path: Path) -> None:
    picture(photos / "a" / "large.png", 9).write_bytes((photos / "a" / "0.png").read_bytes() + bytes(9000))
    with open_root(tmp_path / "store", max_bytes=8000) as strict:  # type: ignore[attr-defined]
        manifest, read = read_by(strict, photos)
        assert manifest.rejections == {"too_large": 1}
    manifest, read = read_by(ws, photos)
    assert (read, manifest.rejections, manifest.unchanged) == (1, {}, 8)
    with open_root(tmp_path / "store", max_pixels=100) as strict:  # type: ignore[attr-defined]
        manifest, read = read_by(strict, photos)
    assert (read, manifest.rejections) == (9, {"too_many_pixels": 9})


def test_another_thumbnail_size_makes_them_all(photos: Path, ws: Workspace, tmp_path: Path) -> None:
    first, _ = read_by(ws, photos)
    with open_root(tmp_path / "store", thumbnail_px=32) as small:  # type: ignore[attr-defined]
        second, read = read_by(small, photos)
        assert read == 8 and second.previous == first.id
        assert all(small.store.thumbnail(str(row["asset_id"]), 32) for row in rows(second, small))


def test_an_earlier_manifest_is_never_read_into_memory(photos: Path, ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    read_by(ws, photos)
    (photos / "a" / "0.png").unlink()
    monkeypatch.setattr(type(ws.store), "read_file", None)
    second, read = read_by(ws, photos)
    assert (read, second.unchanged, second.removed) == (0, 7, 1)


def test_a_killed_ingest_goes_on_where_it_was(photos: Path, ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "CHECKPOINT_S", 0.0)
    reference, _ = read_by(ws, photos)
    with open_root(photos.parent / "other") as other:  # type: ignore[attr-defined]
        monkeypatch.setattr(stage, "_commit", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            read_by(other, photos)
        monkeypatch.undo()
        assert sum(part.rows for part in other.catalog.records(IngestPart.stage)) == 8
        picture(photos / "late.png", 77)
        manifest, read = read_by(other, photos)
        assert read == 1 and manifest.rows == 9 and manifest.previous == ""
        assert [row for row in rows(manifest, other) if "late" not in str(row["source_uri"])] == rows(reference, ws)
        assert list((photos.parent / "other" / "scratch").iterdir()) == []


def test_what_cannot_be_listed_is_a_rejection_and_tried_again(photos: Path, ws: Workspace) -> None:
    (photos / "dangling.jpg").symlink_to(photos / "nowhere.jpg")
    (photos / "loop").symlink_to(photos)
    os.mkfifo(photos / "pipe.jpg")
    manifest, _ = read_by(ws, photos)
    assert manifest.rejections == {"unreadable": 2} and manifest.rows == 10
    details = {Path(str(row["source_uri"])).name: row["detail"] for row in rows(manifest, ws) if row["reason"]}
    assert details == {"dangling.jpg": "No such file or directory", "pipe.jpg": "neither a file nor a folder"}
    assert read_by(ws, photos) == (manifest, 2)  # tried again, with the same result: the same manifest
    picture(photos / "nowhere.jpg", 3)
    manifest, _ = read_by(ws, photos)
    assert manifest.rejections == {"unreadable": 1}


def test_a_folder_without_rights_is_a_rejection(photos: Path, ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(folder: str) -> object:  # root may read everything, so that a mode would not do
        if str(folder).endswith("/b"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    manifest, _ = read_by(ws, photos)
    assert manifest.rejections == {"unreadable": 1} and manifest.assets == 4
    monkeypatch.undo()
    manifest, read = read_by(ws, photos)
    assert (manifest.assets, manifest.rejected, read) == (8, 0, 4)


def test_a_name_that_is_not_unicode_is_read(ws: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "odd names"
    good = picture(folder / "ü % # ?.png", 1)
    os.link(good, os.fsencode(folder) + b"/\xff\xfe.png")
    manifest, _ = read_by(ws, folder)
    assert (manifest.rows, manifest.assets, manifest.rejected) == (2, 1, 0)
    assert read_by(ws, folder)[1] == 0


def test_times_before_1970_and_beyond_2262_are_told_apart(photos: Path, ws: Workspace) -> None:
    year_2300_s = 10_413_792_000  # nanoseconds in 64 bits end on 2262-04-11
    for number, seconds in enumerate((-1, -2_000_000_000, 0, year_2300_s)):
        os.utime(photos / "ab"[number % 2] / f"{number}.png", ns=(seconds * 10**9 + 7,) * 2)
    manifest, _ = read_by(ws, photos)
    times = {Path(str(row["source_uri"])).name: row["modified_at"] for row in rows(manifest, ws)}
    assert [times[f"{number}.png"] for number in range(4)] == [
        "1969-12-31T23:59:59.000000007Z", "1906-08-16T20:26:40.000000007Z", "1970-01-01T00:00:00.000000007Z", "2300-01-01T00:00:00.000000007Z",
    ]  # fmt: skip
    assert manifest.assets == 8 and read_by(ws, photos) == (manifest, 0)
    os.utime(photos / "b" / "3.png", ns=(year_2300_s * 10**9 + 8,) * 2)
    assert read_by(ws, photos)[1] == 1


def after_listing(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Lets something happen to the source between listing and reading."""
    end_listing = IngestTables.end_listing

    def changed(tables: IngestTables) -> tuple[int, str]:
        change()
        return end_listing(tables)

    monkeypatch.setattr(IngestTables, "end_listing", changed)


@pytest.mark.parametrize("name", ["x.png", "x.zip"])
def test_a_file_that_is_replaced_by_one_of_equal_length_is_not_taken_for_the_listed_one(
    name: str, photos: Path, ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (picture(photos.parent / f"{number}.png", number).read_bytes() for number in (90, 91))
    length = max(len(old), len(new))

    def content(data: bytes) -> bytes:
        if name.endswith("png"):
            return data.ljust(length, b"\0")
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w") as archive:
            archive.writestr("in.png", data.ljust(length, b"\0"))
        return sink.getvalue()

    (photos / name).write_bytes(content(old))
    os.utime(photos / name, ns=(10**18, 10**18))
    after_listing(monkeypatch, lambda: (photos / name).write_bytes(content(new)))
    manifest, _ = read_by(ws, photos)
    monkeypatch.undo()
    assert (manifest.assets, manifest.rejections) == (8, {"unreadable": 1})
    (row,) = [row for row in rows(manifest, ws) if row["reason"]]
    assert "SourceChanged" in str(row["detail"]) and "listed as of 2001-09-09T01:46:40" in str(row["detail"])
    manifest, read = read_by(ws, photos)
    assert (manifest.assets, manifest.rejections, read) == (9, {}, 1)


def test_a_file_that_grows_while_it_is_read_is_tried_again(photos: Path, ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = (photos / "a" / "0.png").read_bytes()
    (photos / "a" / "0.png").write_bytes(whole[:50])
    after_listing(monkeypatch, lambda: (photos / "a" / "0.png").write_bytes(whole))
    manifest, _ = read_by(ws, photos)
    monkeypatch.undo()
    assert manifest.rejections == {"unreadable": 1}
    (row,) = [row for row in rows(manifest, ws) if row["reason"]]
    assert "50 were listed" in str(row["detail"])
    (photos / "a" / "0.png").write_bytes(whole)
    assert read_by(ws, photos)[0].rejections == {}


def test_rows_that_do_not_add_up_are_never_recorded(photos: Path, ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("discovery.adapters.ingest_tables.IngestTables.add_rows", lambda *arguments: None)
    with pytest.raises(DiscoveryError, match="8 objects were listed and 0 accounted for"):
        read_by(ws, photos)
    assert ws.catalog.records(Manifest.stage) == []


def test_the_store_inside_the_source_is_left_out(photos: Path) -> None:
    with open_root(photos / "store") as inside:  # type: ignore[attr-defined]
        assert read_by(inside, photos)[0].rows == 8
        assert read_by(inside, photos)[1] == 0
        with pytest.raises(SourceNotFound, match="is empty"):
            read_by(inside, photos / "store")


def test_a_join_that_doubles_rows_is_never_recorded(photos: Path, ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def every_stem_twice(tables: IngestTables) -> None:
        one = "SELECT lower(stem_of(source_uri)) AS stem, 'x' AS capture FROM found"
        tables._run(f"CREATE TABLE captures AS {one} UNION ALL {one}")

    monkeypatch.setattr(IngestTables, "_find_captures", every_stem_twice)
    with pytest.raises(DiscoveryError, match=r"^8 rows came in and 16 came out\. Nothing was recorded"):
        read_by(ws, photos)
    assert ws.catalog.records(Manifest.stage) == []


def test_a_row_that_is_neither_asset_nor_rejection_is_never_recorded(photos: Path, ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    add_rows = IngestTables.add_rows
    place = schemas.READ_ROWS.get_field_index("asset_id")

    def without_ids(tables: IngestTables, table: pa.Table) -> None:
        add_rows(tables, table.set_column(place, schemas.READ_ROWS.field(place), pa.nulls(len(table), pa.string())))

    monkeypatch.setattr(IngestTables, "add_rows", without_ids)
    with pytest.raises(DiscoveryError, match=r"^8 rows are not exactly one of asset, rejection and sidecar"):
        read_by(ws, photos)
    assert ws.catalog.records(Manifest.stage) == []


KINDS = st.sampled_from(["picture", "copy", "truncated", "empty", "text"])
CHANGES = st.lists(st.tuples(st.integers(0, 9), st.none() | KINDS), min_size=1, max_size=8)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CHANGES, min_size=1, max_size=4))
def test_every_listed_object_is_accounted_for_after_any_changes(tmp_path_factory: pytest.TempPathFactory, rounds: list[list[tuple[int, str | None]]]) -> None:
    """Files come, change and go; after each round the manifest equals that of a fresh store over the same files."""
    base = tmp_path_factory.mktemp("any")
    folder = base / "photos"
    picture(folder / "always.png", 1)
    serial = 0
    with open_root(base / "grown") as grown:  # type: ignore[attr-defined]
        for changes in rounds:
            for number, kind in changes:
                serial += 1
                path = folder / f"{number}.png"
                if kind is None:
                    path.unlink(missing_ok=True)
                elif kind in ("picture", "copy"):
                    picture(path, 1 if kind == "copy" else 1000 + serial)
                else:
                    path.write_bytes({"truncated": (folder / "always.png").read_bytes()[:70], "empty": b"", "text": b"hello"}[kind])
                if path.exists():
                    os.utime(path, ns=(serial * 10**9, serial * 10**9))
            manifest, _ = read_by(grown, folder)
            with open_root(base / f"fresh-{serial}") as fresh:  # type: ignore[attr-defined]
                assert rows(manifest, grown) == rows(read_by(fresh, folder)[0], fresh)
            listed = rows(manifest, grown)
            assert len(listed) == manifest.rows == len(list(folder.iterdir()))
            assert all(bool(row["asset_id"]) != bool(row["reason"]) for row in listed)
            assert sum(manifest.rejections.values()) == manifest.rejected
