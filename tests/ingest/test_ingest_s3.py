"""Ingest from a real S3 server behind a network that throttles, cuts bodies, stalls, resets and goes away."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import fsspec
import numpy as np
import pytest
import s3fs
from PIL import Image

from discovery.adapters.buckets import list_remote
from discovery.adapters.listing import LeftOut
from discovery.config import Config, S3Config
from discovery.errors import StorageError
from discovery.stages import ingest as stage
from discovery.stages.ingest import ingest
from discovery.types import Manifest
from discovery.workspace import Workspace, open_workspace
from tests.ingest.faulty_s3 import FaultyS3

pytestmark = pytest.mark.live
COUNT = 12


def png(number: int) -> bytes:
    coarse = np.random.default_rng(number).integers(0, 256, (4, 5, 3), np.uint8)
    sink = io.BytesIO()
    Image.fromarray(coarse).resize((60, 40), Image.Resampling.BICUBIC).save(sink, "PNG")
    return sink.getvalue()


@pytest.fixture
def bucket(moto_endpoint: str) -> s3fs.S3FileSystem:
    filesystem = s3fs.S3FileSystem(client_kwargs={"endpoint_url": moto_endpoint})
    filesystem.mkdir("photos")
    filesystem.pipe({f"photos/in/{number:02d}.png": png(number) for number in range(COUNT)})
    return filesystem


@pytest.fixture
def proxy(moto_endpoint: str) -> Iterator[FaultyS3]:
    with FaultyS3(moto_endpoint) as faulty:
        yield faulty


def workspace(root: Path, endpoint: str, timeout_s: float = 1.0) -> AbstractContextManager[Workspace]:
    config = Config(root=str(root)).replace(
        dask={"scheduler": "inline"}, s3={"endpoint_url": endpoint, "timeout_s": timeout_s}, ingest={"decoders": 1}
    )
    return open_workspace(config)


def rows(manifest: Manifest, ws: Workspace) -> list[dict[str, object]]:
    return ws.store.read_table(manifest).to_pylist()


def is_picture(path: str) -> bool:
    return path.endswith(".png")


@pytest.mark.parametrize("kind", ["throttle", "error", "cut", "stall", "reset"])
def test_faults_that_pass_leave_no_trace(kind: str, bucket: s3fs.S3FileSystem, proxy: FaultyS3, moto_endpoint: str, tmp_path: Path) -> None:
    with workspace(tmp_path / "calm", moto_endpoint) as calm:
        expected = rows(ingest(["s3://photos/in"], calm), calm)
    proxy.fault = lambda method, path, nth: kind if method == "GET" and is_picture(path) and nth == 1 and int(path[-6:-4]) % 3 == 0 else ""
    with workspace(tmp_path / "faulty", proxy.url) as ws:
        manifest = ingest(["s3://photos/in"], ws)
        assert rows(manifest, ws) == expected and manifest.rejections == {}
    assert proxy.faults >= COUNT // 3


def test_a_listing_is_tried_again_too(bucket: s3fs.S3FileSystem, proxy: FaultyS3, tmp_path: Path) -> None:
    proxy.fault = lambda method, path, nth: "throttle" if not is_picture(path) and nth == 1 else ""
    with workspace(tmp_path / "root", proxy.url) as ws:
        assert ingest(["s3://photos/in"], ws).assets == COUNT
    assert proxy.faults == 1


def test_what_stays_broken_is_a_rejection_that_the_next_run_tries_again(bucket: s3fs.S3FileSystem, proxy: FaultyS3, tmp_path: Path) -> None:
    proxy.fault = lambda method, path, nth: "cut" if path.endswith("03.png") else ""
    with workspace(tmp_path / "root", proxy.url) as ws:
        first = ingest(["s3://photos/in"], ws)
        assert (first.assets, first.rejections) == (COUNT - 1, {"unreadable": 1})
        proxy.fault = lambda method, path, nth: ""
        before = ws.tally["ingest.objects_read"]
        second = ingest(["s3://photos/in"], ws)
        assert (second.assets, second.rejections, ws.tally["ingest.objects_read"] - before) == (COUNT, {}, 1)


def test_an_object_that_goes_between_listing_and_reading(bucket: s3fs.S3FileSystem, proxy: FaultyS3, tmp_path: Path) -> None:
    def vanish(method: str, path: str, nth: int) -> str:
        if path.endswith("05.png") and bucket.exists("photos/in/05.png"):
            bucket.rm("photos/in/05.png")
        return ""

    proxy.fault = vanish
    with workspace(tmp_path / "root", proxy.url) as ws:
        assert ingest(["s3://photos/in"], ws).rejections == {"vanished": 1}
        assert ingest(["s3://photos/in"], ws).rejections == {}


@pytest.mark.parametrize("name", ["05.png", "x.zip"])
def test_an_object_that_is_replaced_by_one_of_equal_length_is_not_taken_for_the_listed_one(
    name: str, bucket: s3fs.S3FileSystem, proxy: FaultyS3, tmp_path: Path
) -> None:
    def content(number: int) -> bytes:
        data = png(number).ljust(max(len(png(50)), len(png(51))), b"\0")
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w") as archive:
            archive.writestr("in.png", data)
        return data if name.endswith("png") else sink.getvalue()

    def replace(method: str, path: str, nth: int) -> str:
        if path.endswith(name) and nth == 1:
            bucket.pipe({f"photos/in/{name}": content(51)})
        return ""

    assert len(content(50)) == len(content(51))
    bucket.pipe({f"photos/in/{name}": content(50)})
    count = COUNT if name.endswith("png") else COUNT + 1
    proxy.fault = replace
    with workspace(tmp_path / "root", proxy.url) as ws:
        first = ingest(["s3://photos/in"], ws)
        assert (first.assets, first.rejections) == (count - 1, {"unreadable": 1})
        assert proxy.asked["GET", f"/photos/in/{name}"] == 1  # asking again for what is no more would be in vain
        (row,) = [row for row in rows(first, ws) if row["reason"]]
        assert "it was replaced since it was listed with ETag" in str(row["detail"])
        second = ingest(["s3://photos/in"], ws)
        assert (second.assets, second.rejections, second.unchanged) == (count, {}, count - 1)


def test_a_server_that_dies_ends_the_run_and_what_was_read_is_kept(
    bucket: s3fs.S3FileSystem, proxy: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "GIVE_UP_AFTER", 4)
    monkeypatch.setattr("discovery.adapters.files.ATTEMPTS", 1)
    proxy.fault = lambda method, path, nth: "reset" if is_picture(path) and int(path[-6:-4]) >= 6 else ""
    with workspace(tmp_path / "root", proxy.url) as ws:
        with pytest.raises(StorageError, match=r"The last 4 objects could not be read.*run again"):
            ingest(["s3://photos/in"], ws)
        assert ws.catalog.records(Manifest.stage) == []
        proxy.fault = lambda method, path, nth: ""
        before = ws.tally["ingest.objects_read"]
        manifest = ingest(["s3://photos/in"], ws)
        assert manifest.assets == COUNT and manifest.rejections == {}
        assert ws.tally["ingest.objects_read"] - before == 6


def test_an_unchanged_bucket_is_only_listed_and_pages_are_joined(bucket: s3fs.S3FileSystem, moto_endpoint: str, tmp_path: Path, proxy: FaultyS3) -> None:
    data = png(0)
    bucket.pipe({f"photos/many/{number:04d}.png": data for number in range(1, 1203)})
    bucket.pipe({"photos/many2/x.png": data, "photos/many": data})
    with workspace(tmp_path / "root", proxy.url, timeout_s=30) as ws:
        manifest = ingest(["s3://photos/many"], ws)
        assert (manifest.rows, manifest.assets) == (1203, 1)  # the object of that name too, but not its neighbour's
        proxy.asked.clear()
        assert ingest(["s3://photos/many"], ws) == manifest
        assert sum(proxy.asked.values()) == 3 and not any(is_picture(path) for _, path in proxy.asked)


def test_a_list_and_an_archive_in_a_bucket(bucket: s3fs.S3FileSystem, moto_endpoint: str, tmp_path: Path) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("a/inside.png", png(77))
    bucket.pipe({"photos/x.zip": sink.getvalue(), "photos/lists/train.csv": b"uri,label\n../in/00.png,cat\ns3://photos/in,folder\ns3://photos/in/01.png,dog\ns3://photos/in/99.png,dog\n"})
    with workspace(tmp_path / "root", moto_endpoint) as ws:
        (row,) = rows(ingest(["s3://photos/x.zip"], ws), ws)
        assert row["source_uri"] == "zip://a/inside.png::s3://photos/x.zip" and row["asset_id"]
        found = rows(ingest(["s3://photos/lists/train.csv"], ws), ws)
        assert found[0]["source_uri"] == "s3://photos/in" and str(found[0]["detail"]).startswith("a folder, where a list names files")
        assert [(row["source_uri"], row["attributes"], row["reason"]) for row in found][2:] == [
            ("s3://photos/in/99.png", '{"label": "dog"}', "unreadable"),
            ("s3://photos/lists/../in/00.png", '{"label": "cat"}', "unreadable"),
        ]
        assert found[1]["asset_id"]


def test_keys_may_hold_what_chains_addresses_elsewhere(bucket: s3fs.S3FileSystem, moto_endpoint: str, tmp_path: Path) -> None:
    odd = ["x::y.png", "b::c/d.png", "e#f.png", "g?h.png", "i%20j.png", "k l+m.png"]
    for number, key in enumerate(odd):
        bucket.call_s3("put_object", Bucket="photos", Key=f"odd/{key}", Body=png(number))
    bucket.call_s3("put_object", Bucket="photos", Key="odd/x::y.json", Body=b'{"label": "cat"}')
    with workspace(tmp_path / "root", moto_endpoint) as ws:
        manifest = ingest(["s3://photos/odd"], ws)
        assert (manifest.assets, manifest.sidecars, manifest.rejections) == (len(odd), 1, {})
        found = {str(row["source_uri"]).removeprefix("s3://photos/odd/"): row for row in rows(manifest, ws) if row["asset_id"]}
        assert sorted(found) == sorted(odd)
        assert (found["x::y.png"]["attributes"], found["b::c/d.png"]["folder"]) == ('{"label":"cat"}', "b::c")
        (tmp_path / "list.csv").write_text("uri\ns3://photos/odd/x::y.png\n")
        assert ingest([str(tmp_path / "list.csv")], ws).assets == 1


GLOBS = ["*", "in/*", "in/0?.png", "**", "**/*.png", "*/x/*", "*/x*", "d/[xy]/1.png", "d/**/1.png", "d/x/1.*", "d*/x/*", "none/*"]


@pytest.mark.parametrize("pattern", GLOBS)
def test_a_glob_matches_what_fsspecs_glob_matches(pattern: str, bucket: s3fs.S3FileSystem, moto_endpoint: str) -> None:
    bucket.pipe({f"photos/{key}": b"x" for key in ("top.png", "d/x/1.png", "d/x/2.png", "d/y/1.png", "d/y/z/1.png", "e/x/1.png", "e/xx")})
    matched = bucket.glob(f"photos/{pattern}", detail=True)
    expected = sorted(f"s3://{path}" for path, info in matched.items() if info["type"] == "file")
    listed = list_remote(f"s3://photos/{pattern}", S3Config(endpoint_url=moto_endpoint), LeftOut())
    assert sorted(item.object_uri for item in listed) == expected


@pytest.mark.parametrize("pattern", ["many/*.png", "many/**"])
def test_a_glob_is_listed_a_page_at_a_time(pattern: str, bucket: s3fs.S3FileSystem, proxy: FaultyS3) -> None:
    bucket.pipe({f"photos/many/{number:04d}.png": b"x" for number in range(1001)})
    listing = list_remote(f"s3://photos/{pattern}", S3Config(endpoint_url=proxy.url, timeout_s=30), LeftOut())
    assert next(listing).object_uri == "s3://photos/many/0000.png" and sum(proxy.asked.values()) == 1
    assert sum(1 for _ in listing) == 1000 and sum(proxy.asked.values()) == 2


def test_other_file_systems_are_listed_a_folder_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({f"/photos-{__name__}/{name}": b"x" for name in ("1.png", "a/2.png", "a/b/3.png", "a/b/4.txt")})
    for whole in ("find", "glob", "walk"):
        monkeypatch.setattr(type(memory), whole, None)
    listed = {
        pattern: sorted(item.object_uri.rpartition("/")[2] for item in list_remote(f"memory://photos-{__name__}/{pattern}", S3Config(), LeftOut()))
        for pattern in ("", "*.png", "a/*/*", "**/*.png", "a/2.png")
    }
    assert listed == {
        "": ["1.png", "2.png", "3.png", "4.txt"], "*.png": ["1.png"], "a/*/*": ["3.png", "4.txt"], "**/*.png": ["1.png", "2.png", "3.png"], "a/2.png": ["2.png"],
    }  # fmt: skip
