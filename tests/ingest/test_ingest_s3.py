"""Ingest from a real S3 server behind a network that throttles, cuts bodies, stalls, resets and goes away."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import s3fs
from PIL import Image

from discovery.config import Config
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
    with workspace(tmp_path / "root", proxy.url) as ws:
        manifest = ingest(["s3://photos/many"], ws)
        assert (manifest.rows, manifest.assets) == (1203, 1)  # the object of that name too, but not its neighbour's
        proxy.asked.clear()
        assert ingest(["s3://photos/many"], ws) == manifest
        assert sum(proxy.asked.values()) == 3 and not any(is_picture(path) for _, path in proxy.asked)


def test_a_list_and_an_archive_in_a_bucket(bucket: s3fs.S3FileSystem, moto_endpoint: str, tmp_path: Path) -> None:
    import zipfile

    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("a/inside.png", png(77))
    bucket.pipe({"photos/x.zip": sink.getvalue(), "photos/lists/train.csv": b"uri,label\n../in/00.png,cat\ns3://photos/in/01.png,dog\ns3://photos/in/99.png,dog\n"})
    with workspace(tmp_path / "root", moto_endpoint) as ws:
        (row,) = rows(ingest(["s3://photos/x.zip"], ws), ws)
        assert row["source_uri"] == "zip://a/inside.png::s3://photos/x.zip" and row["asset_id"]
        found = rows(ingest(["s3://photos/lists/train.csv"], ws), ws)
        assert [(row["source_uri"], row["attributes"], row["reason"]) for row in found][1:] == [
            ("s3://photos/in/99.png", '{"label": "dog"}', "unreadable"),
            ("s3://photos/lists/../in/00.png", '{"label": "cat"}', "unreadable"),
        ]
        assert found[0]["asset_id"]


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
