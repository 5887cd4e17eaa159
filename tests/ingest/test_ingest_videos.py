"""Videos: each sampled frame is an asset of its own, linked to its video; what cannot be read of one is said, and costs no more."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from discovery.adapters.decoder_pool import DecodeLimits, DecoderPool
from discovery.adapters.videos import Sampling
from discovery.addressing import file_sha256, frame_id, matches
from discovery.config import Config
from discovery.pipeline import run_pipeline
from discovery.spec import parse_spec
from discovery.stages import ingest as ingest_module
from discovery.stages.curate import curate
from discovery.stages.ingest import ingest
from discovery.stages.search import search
from discovery.stages.verify import verify
from discovery.types import Manifest, Reason
from discovery.workspace import Workspace, open_workspace
from tests.adapters.camera_files import photo
from tests.adapters.clips import clip, scene


def opened(root: Path, **sections: dict[str, object]) -> Workspace:
    return open_workspace(Config(root=str(root)).replace(dask={"scheduler": "inline"}, **{"ingest": {"decoders": 1}, **sections}))


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with opened(tmp_path / "root") as workspace:
        yield workspace


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    (tmp_path / "clips").mkdir()
    return tmp_path / "clips"


def rows_of(source: Path, ws: Workspace) -> tuple[Manifest, list[dict[str, object]]]:
    manifest = ingest([str(source)], ws)
    return manifest, ws.store.read_table(manifest).to_pylist()


def test_a_frame_is_an_asset_with_its_video_and_time(clips: Path, ws: Workspace) -> None:
    path = clip(clips / "a.mp4", scenes=3, metadata={"creation_time": "2026-05-01T10:00:00Z"})
    manifest, rows = rows_of(clips, ws)
    video_id = file_sha256(path)
    assert (manifest.rows, manifest.assets, manifest.rejected) == (3, 3, 0)
    assert [row["frame_s"] for row in rows] == [0.0, 1.0, 2.0]
    assert [row["source_uri"] for row in rows] == [f"{path}#t={second}.000" for second in range(3)]
    for number, row in enumerate(rows):
        assert row["asset_id"] == frame_id(video_id, number * 10**9) and row["video_id"] == video_id and row["object_uri"] == str(path)
        assert (row["format"], row["width_px"], row["height_px"], row["folder"]) == ("MP4", 128, 96, "clips")
        assert (row["taken_at"], row["taken_offset_min"]) == (datetime(2026, 5, 1, 10, 0, number), 0)
        pixels = np.asarray(Image.open(io.BytesIO(ws.store.get_asset(str(row["asset_id"])))))
        assert np.abs(pixels.astype(int) - scene(number)[:, :128]).mean() < 12  # that scene, and no other


def test_frames_are_stored_whole_or_told_to_be_broken(clips: Path, ws: Workspace) -> None:
    clip(clips / "a.mp4", scenes=1)
    _, rows = rows_of(clips, ws)
    asset_id = str(rows[0]["asset_id"])
    data = ws.store.get_asset(asset_id)
    assert matches(data, asset_id) and not matches(data, "0" * 64)
    for place in (5, 40, 120, len(data) // 2, len(data) - 1):
        assert not matches(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], asset_id)
    assert verify(ws).corrupt == []
    path = ws.config.local_folder / "assets" / asset_id[:2] / asset_id[2:4] / asset_id
    path.chmod(0o644)
    path.write_bytes(data[:-1] + b"\0")
    assert len(verify(ws).corrupt) == 1


def test_an_unchanged_video_is_not_read_and_other_sampling_reads_it_alone(clips: Path, ws: Workspace) -> None:
    clip(clips / "a.mp4", scenes=2)
    (clips / "b.jpg").write_bytes(photo())
    (clips / "c.mov").write_bytes(b"\0\0\0\x14ftypqt  ")
    first, _ = rows_of(clips, ws)
    assert first.rejections == {"corrupt": 1}
    (clips / "d.jpg").write_bytes(photo(seed=1))
    before = ws.tally["ingest.objects_read"]
    second, rows = rows_of(clips, ws)
    assert ws.tally["ingest.objects_read"] == before + 1 and second.assets == first.assets + 1
    with opened(ws.config.local_folder, video={"interval_s": 0.5}) as other:
        third, rows = rows_of(clips, other)
        assert [row["frame_s"] for row in rows if row["frame_s"] is not None] == [0.0, 0.52, 1.0, 1.52]
        assert (other.tally["ingest.objects_read"], third.unchanged) == (2, 2)  # the videos, whole and broken
        assert (third.assets, third.new_assets) == (6, 2)  # the frames that were known keep their ids


def test_scenes(clips: Path, tmp_path: Path) -> None:
    clip(clips / "a.mp4", scenes=4, frames=20)
    with opened(tmp_path / "root", video={"sampling": "scenes"}) as ws:
        _, rows = rows_of(clips, ws)
        assert [row["frame_s"] for row in rows] == [0.0, 0.8, 1.6, 2.4]


def test_a_broken_tail_loses_the_tail_alone(clips: Path, ws: Workspace) -> None:
    path = clip(clips / "a.mkv", scenes=6)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    manifest, rows = rows_of(clips, ws)
    seconds = [row["frame_s"] for row in rows if row["asset_id"]]
    assert seconds == [float(number) for number in range(len(seconds))] and 2 <= len(seconds) <= 4
    (bad,) = [row for row in rows if row["reason"]]
    assert (bad["reason"], bad["source_uri"], manifest.rows) == ("truncated", str(path), len(seconds) + 1)
    path.write_bytes(data)
    manifest, rows = rows_of(clips, ws)
    assert [row["frame_s"] for row in rows] == [float(number) for number in range(6)]


def test_too_many_frames_and_too_many_bytes_are_said(clips: Path, tmp_path: Path) -> None:
    clip(clips / "a.mp4", scenes=3)
    with opened(tmp_path / "few", video={"max_frames": 2}) as ws:
        manifest, _ = rows_of(clips, ws)
        assert (manifest.assets, manifest.rejections) == (2, {"too_large": 1})
    with opened(tmp_path / "small", video={"max_bytes": 1000}) as ws:
        manifest, _ = rows_of(clips, ws)
        assert (manifest.assets, manifest.rejections) == (0, {"too_large": 1})
    with opened(tmp_path / "pixels", ingest={"max_pixels": 1000, "decoders": 1}) as ws:
        manifest, _ = rows_of(clips, ws)
        assert (manifest.assets, manifest.rejections) == (0, {"too_many_pixels": 1})


def still(path: Path, frames: int) -> Path:
    """A video in which nothing moves: one scene, whose first frame is the only one taken by scenes."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.full((96, 128, 3), 90, np.uint8), format="rgb24")
        for number in range(frames):
            picture.pts, picture.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def test_a_long_scene_is_no_hang(clips: Path) -> None:
    path = still(clips / "a.mp4", frames=5_000)
    limits = DecodeLimits(10**7, 64, 60.0, 2**33)
    with DecoderPool(1, limits) as pool:
        for _ in range(2):  # the second without the start of the process
            began = time.monotonic()
            (whole,) = pool.examine_video(path, "00" * 32, Sampling("scenes"))
            took_s = time.monotonic() - began
    with DecoderPool(1, replace(limits, seconds=took_s / 4)) as pool:  # longer than a packet takes, shorter than all of them
        assert [facts for facts, _, _ in pool.examine_video(path, "00" * 32, Sampling("scenes"))] == [whole[0]]


def test_a_video_that_takes_too_long_altogether_gives_what_there_is_and_says_so(clips: Path, tmp_path: Path) -> None:
    still(clips / "a.mp4", frames=2_500)
    with opened(tmp_path / "root", video={"max_seconds": 0.4, "interval_s": 0.04}) as ws:  # all of them take some seconds
        manifest, rows = rows_of(clips, ws)
        seconds = sorted(row["frame_s"] for row in rows if row["asset_id"])  # the rows are in order of their URIs
        assert 1 <= len(seconds) < 2_500 and seconds == [number / 25 for number in range(len(seconds))]
        (bad,) = [row for row in rows if row["reason"]]
        assert (bad["reason"], bad["detail"]) == ("timeout", "not decoded to its end within 0.4 s (video.max_seconds)")
    with opened(tmp_path / "root", video={"interval_s": 50.0}) as ws:
        manifest, _ = rows_of(clips, ws)
        assert (manifest.assets, manifest.rejected) == (2, 0)  # at 0 and 50 s of 100; read again under the other limit


@pytest.mark.parametrize("name", ["a.mp4", "a.zip", "a.tar"])
def test_a_large_object_that_vanishes_as_it_is_opened_costs_itself(name: str, clips: Path, ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    (clips / "b.jpg").write_bytes(photo())
    (clips / name).write_bytes(b"some bytes, which nobody will see")

    @contextmanager
    def vanishing(*arguments: object) -> Iterator[Path]:
        (clips / name).unlink()
        yield clips / name

    monkeypatch.setattr(ingest_module, "local_copy", vanishing)
    manifest, _ = rows_of(clips, ws)
    assert (manifest.assets, manifest.rejections) == (1, {"vanished": 1})


def test_a_live_photo_is_one_capture(clips: Path, ws: Workspace) -> None:
    (clips / "IMG_7.HEIC").write_bytes(photo("HEIF"))
    clip(clips / "IMG_7.MOV", scenes=2)
    clip(clips / "IMG_8.MOV", scenes=1)
    (clips / "IMG_7.MOV.json").write_text(json.dumps({"label": "cat"}))
    manifest, rows = rows_of(clips, ws)
    captures = Counter(row["capture"] for row in rows if row["asset_id"])
    assert captures == {f"{clips}/IMG_7": 3, None: 1} and manifest.rejected == 0
    assert sum(row["attributes"] == '{"label":"cat"}' for row in rows) == 2


def test_a_video_inside_an_archive(clips: Path, ws: Workspace) -> None:
    clip(clips / "a.mp4", scenes=2)
    with zipfile.ZipFile(clips / "all.zip", "w") as archive:
        archive.write(clips / "a.mp4", "day/a.mp4")
        archive.writestr("day/a.jpg", photo())
    manifest, rows = rows_of(clips, ws)
    assert (manifest.rows, manifest.assets, manifest.rejected) == (5, 3, 0)  # the same frames, by content
    inside = [row["source_uri"] for row in rows if str(row["object_uri"]).endswith(".zip")]
    assert inside == [f"zip://day/a.jpg::{clips}/all.zip", *(f"zip://day/a.mp4#t={n}.000::{clips}/all.zip" for n in range(2))]
    assert {row["capture"] for row in rows if str(row["object_uri"]).endswith(".zip")} == {f"zip://day/a::{clips}/all.zip"}


def test_a_decoder_that_dies_within_a_video_costs_the_rest_of_it(clips: Path) -> None:
    path = clip(clips / "a.mp4", scenes=4)
    pool = DecoderPool(1, DecodeLimits(10**7, 64, 20.0, 2**33), "tests.ingest.crashing_decoder")
    with pool:
        answers = list(pool.examine_video(path, "61" * 32, Sampling("interval", 1.0, 10.0, 100)))
        assert [facts.get("frame_s") for facts, _, _ in answers] == [0.0, 1.0, None]
        assert answers[-1][0]["reason"] == Reason.CRASHED_DECODER
        again = pool.examine_video(path, "00" * 32, Sampling("interval", 1.0, 10.0, 100))
        next(again)
        again.close()  # nobody wants the rest
        assert len(list(pool.examine_video(path, "00" * 32, Sampling("interval", 1.0, 10.0, 100)))) == 4


def test_the_whole_chain_on_videos_keeps_each_in_one_split(clips: Path, ws: Workspace) -> None:
    for number in range(6):
        clip(clips / f"{number}.mp4", scenes=1 + number % 3, first=10 * number)
    run_pipeline([str(clips)], ws)
    version = curate(parse_spec("name: frames\nbudget: 100\nduplicates: keep\nsplits: {train: 0.5, test: 0.5}\n"), ws)
    members = ws.store.read_table(version).to_pylist()
    splits: dict[str, set[str]] = {}
    for member in members:
        splits.setdefault(member["source_uri"].split("#")[0], set()).add(member["split"])
    assert all(len(names) == 1 for names in splits.values())
    answer = search(ws, like=[members[0]["asset_id"]], k=3, where="video_id IS NOT NULL AND frame_s < 1")
    assert answer.results and verify(ws).corrupt == verify(ws).missing == []
