"""Tar and zip archives: each picture inside is an asset, each other member a rejection, and a broken end loses only the end."""

from __future__ import annotations

import io
import json
import random
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from discovery.adapters import archives
from discovery.adapters.archives import Member, members
from discovery.adapters.byte_budget import ByteBudget
from discovery.adapters.ingest_tables import IngestTables
from discovery.config import Config
from discovery.stages import ingest as stage
from discovery.stages.ingest import ingest
from discovery.types import Manifest, Reason
from discovery.workspace import Workspace, open_workspace
from tests.adapters.camera_files import exif, photo


def png(number: int) -> bytes:
    coarse = np.random.default_rng(number).integers(0, 256, (4, 5, 3), np.uint8)
    sink = io.BytesIO()
    Image.fromarray(coarse).resize((60, 40), Image.Resampling.BICUBIC).save(sink, "PNG")
    return sink.getvalue()


FILES = {"a/one.png": png(1), "a/two.png": png(2), "../../b/three.png": png(3), "notes.txt": b"not a picture", "empty.jpg": b""}


def write_tar(path: Path, mode: str, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


def write_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.mkdir("folder")
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with open_workspace(Config(root=str(tmp_path / "root")).replace(dask={"scheduler": "inline"}, ingest={"decoders": 1})) as workspace:
        yield workspace


def rows_of(source: Path, ws: Workspace) -> tuple[Manifest, dict[str, dict[str, object]]]:
    manifest = ingest([str(source)], ws)
    return manifest, {row["source_uri"]: row for row in ws.store.read_table(manifest).to_pylist()}


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tgz", "x.tar.xz", "x.TAR.bz2"])
def test_a_tar_is_its_members(name: str, tmp_path: Path, ws: Workspace) -> None:
    mode = {"gz": "w:gz", "gzip": "w:gz", "xz": "w:xz", "bz2": "w:bz2", "tgz": "w:gz"}.get(name.rsplit(".")[-1], "w")
    path = write_tar(tmp_path / name, mode, FILES)
    manifest, rows = rows_of(path, ws)
    assert (manifest.rows, manifest.assets, manifest.rejections) == (6, 3, {"empty": 1, "unsupported_format": 2})
    row = rows[f"tar://a/one.png::{path}"]
    assert ws.store.get_asset(str(row["asset_id"])) == FILES["a/one.png"]
    assert (row["object_uri"], row["object_bytes"], row["size_bytes"]) == (str(path), path.stat().st_size, len(FILES["a/one.png"]))
    assert row["folder"] == "a"
    assert rows[f"tar://link.jpg::{path}"]["detail"] == "a link or a device, not a file"


def test_a_zip_is_its_members_and_is_not_read_again(tmp_path: Path, ws: Workspace) -> None:
    (tmp_path / "photos").mkdir()
    path = write_zip(tmp_path / "photos" / "x.zip", FILES)
    (tmp_path / "photos" / "four.png").write_bytes(png(4))
    manifest, rows = rows_of(tmp_path / "photos", ws)
    assert (manifest.rows, manifest.assets, manifest.rejections) == (6, 4, {"empty": 1, "unsupported_format": 1})
    (tmp_path / "photos" / "five.png").write_bytes(png(5))
    before = ws.tally["ingest.objects_read"]
    second, again = rows_of(tmp_path / "photos", ws)
    assert ws.tally["ingest.objects_read"] - before == 1 and second.unchanged == 2 and second.assets == 5
    assert {uri: row for uri, row in again.items() if "five" not in uri} == rows
    path.unlink()
    assert ingest([str(tmp_path / "photos")], ws).removed == 3


def test_members_are_kept_even_when_the_originals_stay_where_they_are(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", FILES)
    settings = {"store_bytes": False, "decoders": 1}
    with open_workspace(Config(root=str(tmp_path / "root")).replace(ingest=settings)) as ws:
        _, rows = rows_of(path, ws)
        assert ws.store.has_asset(str(rows[f"zip://a/two.png::{path}"]["asset_id"]))


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_broken_end_loses_only_the_end(kind: str, tmp_path: Path, ws: Workspace) -> None:
    files = {f"{number}.png": png(number) for number in range(6)}
    path = write_tar(tmp_path / "x.tar", "w", files) if kind == "tar" else write_zip(tmp_path / "x.zip", files, zipfile.ZIP_STORED)
    data = path.read_bytes()
    if kind == "tar":
        path.write_bytes(data[: len(data) // 2])
        manifest, rows = rows_of(path, ws)
        assert manifest.rejections == {"corrupt": 1} and 0 < manifest.assets < 6
        assert f"after {manifest.assets} files" in str(rows[str(path)]["detail"])
    else:  # its directory is at the end: a changed byte inside is told by the checksum
        path.write_bytes(data[:200] + bytes([data[200] ^ 255]) + data[201:])
        manifest, rows = rows_of(path, ws)
        assert manifest.rejections == {"corrupt": 1} and manifest.assets == 5
        assert "CRC" in str(rows[f"zip://0.png::{path}"]["detail"])


def test_archives_that_are_none(tmp_path: Path, ws: Workspace) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "text.zip").write_text("hello")
    (tmp_path / "in" / "text.tar").write_text("hello")
    (tmp_path / "in" / "nothing.tgz").write_bytes(b"")
    write_zip(tmp_path / "in" / "empty.zip", {})
    manifest, _ = rows_of(tmp_path / "in", ws)
    assert manifest.assets == 0 and manifest.rejections == {"corrupt": 3, "empty": 1}


def test_a_member_larger_than_the_limit_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"bomb.png": bytes(50_000_000), **FILES})
    assert path.stat().st_size < 100_000
    with open_workspace(Config(root=str(tmp_path / "root")).replace(ingest={"max_bytes": 1_000_000, "decoders": 1})) as ws:
        manifest, rows = rows_of(path, ws)
        assert manifest.assets == 3 and manifest.rejections == {"empty": 1, "too_large": 1, "unsupported_format": 1}
        assert rows[f"zip://bomb.png::{path}"]["size_bytes"] == 50_000_000


def test_an_encrypted_member_and_an_archive_in_an_archive_are_rejections(tmp_path: Path, ws: Workspace) -> None:
    inner = write_zip(tmp_path / "inner.zip", FILES).read_bytes()
    path = write_zip(tmp_path / "x.zip", {"one.png": png(1), "inner.zip": inner})
    data = bytearray(path.read_bytes())
    directory = data.rindex(b"PK\x01\x02", 0, data.rindex(b"PK\x01\x02"))
    assert data[directory + 46 : directory + 53] == b"one.png"
    data[directory + 8] |= 1  # the flag that says encrypted
    path.write_bytes(bytes(data))
    manifest, rows = rows_of(path, ws)
    assert manifest.assets == 0 and manifest.rejections == {"unsupported_format": 2}
    assert rows[f"zip://one.png::{path}"]["detail"] == "encrypted"


def test_names_that_are_not_unicode_and_names_that_come_twice(tmp_path: Path, ws: Workspace) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        for name, data in [("größe.png", png(1)), ("same.png", png(2)), ("same.png", png(3))]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    manifest = ingest([str(path)], ws)
    uris = [row["source_uri"] for row in ws.store.read_table(manifest).to_pylist()]
    assert manifest.assets == 3 and uris[1] == uris[2] == f"tar://same.png::{path}"


def write_pairs(path: Path, pairs: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in pairs:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_a_sidecar_that_comes_twice_is_two_rows(tmp_path: Path, ws: Workspace) -> None:
    path = write_pairs(tmp_path / "x.tar", [("a.jpg", photo()), ("a.json", b'{"label": "cat"}'), ("a.json", b'{"label": "dog", "stars": 2}')])
    manifest = ingest([str(path)], ws)
    assert (manifest.rows, manifest.assets, manifest.sidecars, manifest.rejections) == (3, 1, 2, {})
    (said,) = [row["attributes"] for row in ws.store.read_table(manifest).to_pylist() if row["asset_id"]]
    assert json.loads(said) == {"label": "dog", "stars": 2}


def test_a_burst_with_a_name_that_comes_twice_is_three_rows(tmp_path: Path, ws: Workspace) -> None:
    taken = [datetime(2026, 5, 1, 12, 0, second) for second in (0, 1, 2)]
    shots = [photo(seed=number, tags=exif(at)) for number, at in enumerate(taken)]
    path = write_pairs(tmp_path / "x.tar", list(zip(("a.jpg", "a.jpg", "b.jpg"), shots, strict=True)))
    manifest = ingest([str(path)], ws)
    assert (manifest.rows, manifest.assets) == (3, 3)
    assert [row["burst"] for row in ws.store.read_table(manifest).to_pylist()] == [f"tar://a.jpg::{path}"] * 3


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_members_with_impossible_times_are_read(kind: str, tmp_path: Path, ws: Workspace) -> None:
    if kind == "tar":
        with tarfile.open(tmp_path / "x.tar", "w") as tar:
            for number, mtime in enumerate((-(10**11), 10**15, 0)):
                info = tarfile.TarInfo(f"{number}.png")
                info.size, info.mtime = len(png(number)), mtime
                tar.addfile(info, io.BytesIO(png(number)))
    else:
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for number, when in enumerate(((1980, 0, 0, 0, 0, 0), (2107, 15, 31, 31, 63, 62), (1980, 1, 1, 0, 0, 0))):
                archive.writestr(zipfile.ZipInfo(f"{number}.png", when), png(number))
    assert rows_of(tmp_path / f"x.{kind}", ws)[0].assets == 3


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["tar", "zip"]), st.integers(0, 2**32))
def test_damaged_archives_raise_nothing(tmp_path_factory: pytest.TempPathFactory, kind: str, seed: int) -> None:
    chance = random.Random(seed)
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind}"
    data = bytearray((write_tar(path, "w:gz", FILES) if chance.random() < 0.5 else write_tar(path, "w", FILES)).read_bytes()) if kind == "tar" else bytearray(write_zip(path, FILES).read_bytes())
    for _ in range(chance.randint(1, 30)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    path.write_bytes(bytes(data[: chance.randint(0, len(data))]))
    budget = ByteBudget(10**6)
    for member in members(path, kind, 10**6, budget):
        assert member.reason is None or member.detail
        assert len(member.data) == member.held_bytes <= 10**6
        member.let_go(budget)
        assert member.data == b"" and budget.held == 0  # nothing is left over from members that broke while they were read


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_members_beyond_the_limit_on_their_number_are_said_and_not_read(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zip(tmp_path / "x.zip", FILES) if kind == "zip" else write_tar(tmp_path / "x.tar", "w", FILES)
    budget = ByteBudget(10**6)

    def found() -> list[tuple[str, Reason | None, str]]:
        several = list(members(path, kind, 10**6, budget))
        for member in several:
            member.let_go(budget)
        assert budget.held == 0
        return [(member.name, member.reason, member.detail) for member in several]

    whole = found()
    monkeypatch.setattr(archives, "MAX_MEMBERS", len(whole))
    assert found() == whole  # as many as may be, so nothing is missing
    monkeypatch.setattr(archives, "MAX_MEMBERS", 2)
    assert found() == [*whole[:2], ("", Reason.TOO_LARGE, "more than 2 files; the others were not read")]


def test_members_of_many_archives_hold_no_more_bytes_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their bytes are counted from when they are read until they are let go; unbounded, 4 archives would hold 8 members each."""
    alive, most, lock = 0, 0, threading.Lock()
    read, let_go = archives._read, Member.let_go

    def counted_read(*arguments: Any) -> Member:
        nonlocal alive, most
        member = read(*arguments)
        with lock:
            alive += len(member.data)
            most = max(most, alive)
        return member

    def counted_let_go(member: Member, budget: ByteBudget) -> None:
        nonlocal alive
        with lock:
            alive -= len(member.data)
        let_go(member, budget)

    monkeypatch.setattr(archives, "_read", counted_read)
    monkeypatch.setattr(Member, "let_go", counted_let_go)
    (tmp_path / "in").mkdir()
    noise = random.Random(1).randbytes
    for number in range(4):
        sizes = [100_000 if member % 7 == number else 40_000 for member in range(12)]  # some fill the limit alone
        files = {f"{member}.bin": noise(size) for member, size in enumerate(sizes)}
        write_zip(tmp_path / "in" / f"{number}.zip", {**files, "large.bin": noise(100_001), "a.png": png(number)}, zipfile.ZIP_STORED)
        (tmp_path / "in" / f"{number}.png").write_bytes(png(10 + number))
    with open_workspace(Config(root=str(tmp_path / "root")).replace(ingest={"max_bytes": 100_000, "decoders": 2})) as ws:
        manifest = ingest([str(tmp_path / "in")], ws)
        assert manifest.assets == 8 and manifest.rejections == {"too_large": 4, "unsupported_format": 48}
    assert alive == 0 and 80_000 <= most <= 100_000


def test_the_rows_of_a_large_archive_are_handed_on_in_batches(tmp_path: Path, ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "x.tar", "w", {f"{number}.txt": b"text" for number in range(7)})
    reference = rows_of(path, ws)[1]
    monkeypatch.setattr(stage, "ROWS_AT_ONCE", 4)
    sizes = []
    add_begun = IngestTables.add_begun
    monkeypatch.setattr(IngestTables, "add_begun", lambda tables, rows: (sizes.append(len(rows)), add_begun(tables, rows)))
    with open_workspace(Config(root=str(tmp_path / "other")).replace(ingest={"decoders": 1})) as other:
        assert rows_of(path, other)[1] == reference and len(reference) == 8  # the link too
    assert sizes == [4, 4]
