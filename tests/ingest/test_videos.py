"""Videos: frames by time and by scene, the same on every pass; a broken end loses only the end, and no other file is ever opened."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from discovery.adapters.decode import Undecodable
from discovery.adapters.videos import Broken, Sampling, VideoFacts, VideoFrame, frames, open_video, video_suffix
from discovery.addressing import content_id, frame_id
from discovery.types import Reason

FPS = 25
SCENES = ((1, 50), (2, 40), (3, 60))  # (seed, frames): cuts at 50 / 25 = 2.0 s and 90 / 25 = 3.6 s; 6 s in all
SIZE = (160, 120)
LIMIT = 10**6
SECOND = Sampling(interval_s=1.0)
SECOND_NS = 10**9
BY_SCENE = Sampling("scenes")
FAST = {"libx264": {"preset": "ultrafast", "x264-params": "keyint=25"}, "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"}}
KINDS = {  # suffix: codec, pixel format, name of the container, name of the codec
    "a.mp4": ("libx264", "yuv420p", "MP4", "h264"),
    "a.mov": ("libx264", "yuv420p", "MOV", "h264"),
    "a.3gp": ("libx264", "yuv420p", "3GP", "h264"),
    "a.mkv": ("libx264", "yuv420p", "MKV", "h264"),
    "a.webm": ("libvpx-vp9", "yuv420p", "WEBM", "vp9"),
    "mjpeg.avi": ("mjpeg", "yuvj420p", "AVI", "mjpeg"),
    "mpeg4.avi": ("mpeg4", "yuv420p", "AVI", "mpeg4"),
    "a.ts": ("libx264", "yuv420p", "MPEGTS", "h264"),
    "a.mpg": ("mpeg2video", "yuv420p", "MPEG", "mpeg2video"),
    "a.wmv": ("wmv2", "yuv420p", "ASF", "wmv2"),
}


def textures(scenes: tuple[tuple[int, int], ...], size: tuple[int, int]) -> Any:
    """Pictures of coarse random colours that move one pixel a frame; each seed is another picture."""
    width, height = size
    for seed, count in scenes:
        coarse = np.random.default_rng(seed).integers(0, 256, (6, 16, 3), np.uint8)
        wide = np.asarray(Image.fromarray(coarse).resize((width * 2, height), Image.Resampling.BICUBIC))
        for shift in range(count):
            yield np.ascontiguousarray(wide[:, shift : shift + width])


def write(
    path: Path,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    pictures: Any = None,
    size: tuple[int, int] = SIZE,
    audio_s: float = 0,
    rotation: float | None = None,
    hflip: bool = False,
    tags: dict[str, str] | None = None,
    gaps: dict[int, int] | None = None,
    full_range: bool = False,
) -> Path:
    """A video of SCENES, or of `pictures`. gaps: frame number: frames of nothing before it."""
    options = {"movflags": "faststart+use_metadata_tags"} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", options=options) as container:
        container.metadata.update(tags or {})
        stream: Any = container.add_stream(codec, rate=FPS, options=FAST.get(codec, {}))
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        if full_range:
            stream.codec_context.color_range = 2
        if rotation is not None:
            stream.set_display_rotation(rotation, hflip=hflip)
        sound: Any = container.add_stream("aac", rate=8000, layout="mono") if audio_s else None
        pts = 0
        for number, picture in enumerate(textures(SCENES, size) if pictures is None else pictures):
            frame = picture if isinstance(picture, av.VideoFrame) else av.VideoFrame.from_ndarray(picture, format="rgb24")
            pts += (gaps or {}).get(number, 0)
            frame.pts, frame.time_base = pts, Fraction(1, FPS)
            pts += 1
            container.mux(stream.encode(frame))
        if sound is not None:
            write_tone(container, sound, audio_s)
        container.mux(stream.encode(None))
    return path


def write_tone(container: Any, stream: Any, seconds: float) -> None:
    for start in range(0, int(8000 * seconds), 1024):
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        tone.sample_rate, tone.pts, tone.time_base = 8000, start, Fraction(1, 8000)
        container.mux(stream.encode(tone))
    container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    return {name: write(folder / name, codec, pix_fmt) for name, (codec, pix_fmt, _, _) in KINDS.items()}


def run(path: Path, sampling: Sampling = SECOND, max_pixels: int = LIMIT) -> tuple[list[VideoFrame], Broken | None]:
    items = list(frames(path, sampling, max_pixels))
    broken = [item for item in items if isinstance(item, Broken)]
    assert len(broken) <= 1 and all(isinstance(item, VideoFrame) for item in items[: len(items) - len(broken)])
    return [item for item in items if isinstance(item, VideoFrame)], broken[0] if broken else None


def times_s(path: Path, sampling: Sampling = SECOND) -> list[float]:
    shown, broken = run(path, sampling)
    assert broken is None
    return [frame.time_ns / 1e9 for frame in shown]


def facts(path: Path) -> VideoFacts:
    with open_video(path, LIMIT) as video:
        return video.facts


def refusal(path: Path, max_pixels: int = LIMIT) -> Undecodable:
    with pytest.raises(Undecodable) as caught:
        list(frames(path, SECOND, max_pixels))
    return caught.value


def mean_difference(left: Image.Image, right: Any) -> float:
    return float(np.abs(np.asarray(left).astype(int) - np.asarray(right).astype(int)).mean())


# which frames


@pytest.mark.parametrize("name", KINDS)
def test_every_container_gives_the_first_frame_of_each_second(clips: dict[str, Path], name: str) -> None:
    assert times_s(clips[name]) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", KINDS)
def test_every_container_gives_the_three_scenes_and_no_more(clips: dict[str, Path], name: str) -> None:
    found = times_s(clips[name], BY_SCENE)
    assert len(found) == 3
    assert np.allclose(found, [0, 2.0, 3.6], atol=1 / FPS)  # MPEG-2's two-pass reordering may put a cut one frame later


@pytest.mark.parametrize("name", KINDS)
def test_facts_name_container_codec_size_and_length(clips: dict[str, Path], name: str) -> None:
    _, _, container, codec = KINDS[name]
    found = facts(clips[name])
    assert (found.container, found.codec, found.width_px, found.height_px) == (container, codec, 160, 120)
    assert found.duration_s == pytest.approx(6, abs=0.25) and found.frame_rate == pytest.approx(25)
    assert found.created_at is None and found.make is None and found.location is None and found.content_identifier is None


def test_pictures_are_those_that_were_filmed(clips: dict[str, Path]) -> None:
    filmed = list(textures(SCENES, SIZE))
    for name in ("a.mp4", "a.mkv", "a.webm", "mjpeg.avi"):
        shown, _ = run(clips[name])
        assert max(mean_difference(frame.image, filmed[25 * second]) for second, frame in enumerate(shown)) < 12  # of 255; lossy codecs


def test_an_interval_between_frames_gives_the_frame_after_it(clips: dict[str, Path]) -> None:
    assert times_s(clips["a.mp4"], Sampling(interval_s=0.5))[:4] == [0, 0.52, 1.0, 1.52]  # frames are 0.04 s apart


def test_a_gap_of_some_intervals_gives_one_frame_not_some(tmp_path: Path) -> None:
    path = write(tmp_path / "gap.mp4", pictures=textures(((1, 60),), SIZE), gaps={30: 75})  # 30 frames, 3 s of nothing, 30 frames
    assert times_s(path) == [0, 1, 4.2, 5.0]  # frame 30 stands at (30 + 75) / 25 = 4.2 s and serves 2, 3 and 4


def test_a_threshold_no_cut_reaches_leaves_the_first_frame(clips: dict[str, Path]) -> None:
    assert times_s(clips["a.mp4"], Sampling("scenes", scene_threshold=100)) == [0]


def test_two_passes_give_the_same_frames_and_pixels(clips: dict[str, Path]) -> None:
    for sampling in (Sampling(interval_s=0.25), BY_SCENE):
        for path in clips.values():
            first, second = ([(frame.time_ns, frame.image.tobytes()) for frame in run(path, sampling)[0]] for _ in range(2))
            assert first == second


def test_sampling_does_not_change_a_frame(clips: dict[str, Path]) -> None:
    by_time = {frame.time_ns: frame.image.tobytes() for frame in run(clips["a.mp4"], Sampling(interval_s=0.04))[0]}
    assert len(by_time) == 150
    assert all(by_time[frame.time_ns] == frame.image.tobytes() for frame in run(clips["a.mp4"], BY_SCENE)[0])


def test_more_frames_than_the_limit_end_with_too_large(clips: dict[str, Path]) -> None:
    shown, broken = run(clips["a.mp4"], Sampling(interval_s=1.0, max_frames=4))
    assert len(shown) == 4
    assert broken is not None and broken.reason == Reason.TOO_LARGE and broken.time_ns == 4 * 10**9
    assert run(clips["a.mp4"], Sampling(interval_s=1.0, max_frames=6))[1] is None  # exactly as many as there are


def test_every_packet_shows_life_and_a_watch_that_gives_up_ends_the_video(clips: dict[str, Path]) -> None:
    left = 60  # packets; one a frame, in their order here, and the first of them is decoded by opening

    def watch() -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Undecodable(Reason.TIMEOUT, "enough")

    with open_video(clips["mjpeg.avi"], LIMIT, watch) as video:
        *shown, end = video.frames(SECOND)
    assert [frame.time_ns // 10**9 for frame in shown] == [0, 1, 2] and end == Broken(Reason.TIMEOUT, "enough", 58 * SECOND_NS // 25)


def test_times_that_go_back_are_put_right(tmp_path: Path) -> None:
    # As VLC 2.1 wrote MP4: the frames lie in the order they are shown, their presentation times do not (here: each pair swapped).
    path = tmp_path / "swapped.mp4"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number, picture in enumerate(textures(((1, 100),), SIZE)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            for packet in stream.encode(frame):
                packet.pts += 2 * (number % 2 == 0)
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    shown, broken = run(path, Sampling(interval_s=0.04))
    assert broken is None and len(shown) >= 97  # all but the first few, until the times are known to be wrong
    assert [frame.time_ns for frame in shown] == sorted({frame.time_ns for frame in shown})


def test_frame_ids_are_the_hash_of_video_and_time() -> None:
    assert frame_id("0" * 64, 5) == content_id(["frame", "0" * 64, 5]) != frame_id("0" * 64, 6)


def test_video_names() -> None:
    assert [video_suffix(name) for name in ("A.MP4", "s3://b/c.MoV", "x.m2ts", "clip.mp4.txt", "mp4")] == [".mp4", ".mov", ".m2ts", "", ""]


# turned, coloured, dated


@pytest.mark.parametrize(
    ("rotation", "hflip", "turn"),
    [
        (0, True, Image.Transpose.FLIP_LEFT_RIGHT),
        (90, False, Image.Transpose.ROTATE_90),  # counterclockwise, as PIL's
        (180, False, Image.Transpose.ROTATE_180),
        (270, False, Image.Transpose.ROTATE_270),
        (180, True, Image.Transpose.FLIP_TOP_BOTTOM),
    ],
)
def test_frames_are_turned_as_the_display_matrix_says(tmp_path: Path, rotation: float, hflip: bool, turn: Image.Transpose) -> None:
    filmed = next(textures(((1, 1),), SIZE))
    path = write(tmp_path / "turned.mp4", pictures=[filmed] * 5, rotation=rotation, hflip=hflip)
    expected = Image.fromarray(filmed).transpose(turn)
    shown, _ = run(path)
    assert shown[0].image.size == expected.size and mean_difference(shown[0].image, expected) < 12
    assert (facts(path).width_px, facts(path).height_px) == expected.size


def flat(luma: int, full_range: bool, size: tuple[int, int]) -> av.VideoFrame:
    width, height = size
    planes = np.concatenate([np.full(width * height, luma), np.full(width * height // 4, 90), np.full(width * height // 4, 240)])
    frame = av.VideoFrame.from_ndarray(planes.astype(np.uint8).reshape(height * 3 // 2, width), format="yuv420p")
    frame.color_range = 2 if full_range else 1
    return frame


@pytest.mark.parametrize(
    ("full_range", "size", "expected"),
    [
        # Y 81, Cb 90, Cr 240. Limited: red = 1.164 (81 - 16) + k (240 - 128), k = 1.596 in BT.601 and 1.793 in BT.709
        (False, SIZE, (254, 0, 0)),
        # green = 75.7 - 0.213 (90 - 128) - 0.533 (112) = 24; blue = 75.7 + 2.112 (-38) = -5
        (False, (1280, 720), (255, 24, 0)),
        # Full: red = 81 + 1.402 x 112 = 238; green = 81 + 0.344 x 38 - 0.714 x 112 = 14; blue = 81 - 1.772 x 38 = 14
        (True, SIZE, (238, 14, 14)),
    ],
)
def test_colours_follow_range_and_matrix(tmp_path: Path, full_range: bool, size: tuple[int, int], expected: tuple[int, ...]) -> None:
    path = write(tmp_path / "flat.mp4", pictures=[flat(81, full_range, size) for _ in range(3)], size=size, full_range=full_range)
    pixel = np.asarray(run(path, max_pixels=10**7)[0][0].image)[60, 80]
    assert np.abs(pixel.astype(int) - expected).max() <= 3


def test_what_phones_write_of_a_video(tmp_path: Path) -> None:
    tags = {
        "creation_time": "2026-05-04T03:02:01.000000Z",
        "com.apple.quicktime.make": "Apple",
        "com.apple.quicktime.model": "iPhone 17",
        "com.apple.quicktime.location.ISO6709": "+48.2082+016.3738+171.000/",
        "com.apple.quicktime.content.identifier": "0E1B-42",
    }
    found = facts(write(tmp_path / "IMG_0001.MOV".lower(), tags=tags))
    assert found.created_at == datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
    assert (found.make, found.model, found.location) == ("Apple", "iPhone 17", "+48.2082+016.3738+171.000/")
    assert found.content_identifier == "0E1B-42"
    android = {"com.android.manufacturer": "Google", "com.android.model": "Pixel 12", "location": "+48.2082+016.3738/"}
    found = facts(write(tmp_path / "PXL.mp4", tags=android))
    assert (found.make, found.model, found.location) == ("Google", "Pixel 12", "+48.2082+016.3738/")


def test_the_local_time_of_filming_goes_before_the_time_of_export(tmp_path: Path) -> None:
    tags = {"creation_time": "2026-05-04T00:00:00Z", "com.apple.quicktime.creationdate": "2026-05-01T10:00:00+0200"}
    assert facts(write(tmp_path / "a.mov", tags=tags)).created_at == datetime(2026, 5, 1, 8, tzinfo=UTC)


def test_an_unset_clock_is_no_date(tmp_path: Path) -> None:
    assert facts(write(tmp_path / "a.mp4", tags={"creation_time": "1970-01-01T00:00:00Z"})).created_at is None


# broken


def cut(path: Path, share: float, to: Path) -> Path:
    to.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return to


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "mjpeg.avi", "mpeg4.avi"])
def test_a_cut_video_gives_the_frames_before_the_cut_then_says_so(clips: dict[str, Path], tmp_path: Path, name: str, share: float) -> None:
    whole, _ = run(clips[name], Sampling(interval_s=0.2))
    shown, broken = run(cut(clips[name], share, tmp_path / name), Sampling(interval_s=0.2))
    assert broken is not None and broken.reason == Reason.TRUNCATED and "of 6.000 s" in broken.detail
    assert 1 < len(shown) < len(whole) and broken.time_ns >= shown[-1].time_ns
    assert [(frame.time_ns, frame.image.tobytes()) for frame in shown] == [
        (frame.time_ns, frame.image.tobytes()) for frame in whole[: len(shown)]
    ]


def test_a_cut_in_the_first_frame_is_refused(clips: dict[str, Path], tmp_path: Path) -> None:
    data = clips["a.mp4"].read_bytes()
    path = tmp_path / "a.mp4"
    path.write_bytes(data[: data.index(b"mdat") + 40])
    assert refusal(path).reason == Reason.TRUNCATED


def test_a_file_without_its_index_is_corrupt(clips: dict[str, Path], tmp_path: Path) -> None:
    assert refusal(cut(clips["a.3gp"], 0.9, tmp_path / "a.3gp")).reason == Reason.CORRUPT


@pytest.mark.parametrize("name", ["a.mp4", "mpeg4.avi", "a.ts", "a.mpg"])
def test_damage_in_the_middle_costs_the_middle(clips: dict[str, Path], tmp_path: Path, name: str) -> None:
    data = bytearray(clips[name].read_bytes())
    start, length = len(data) // 2, len(data) // 50
    data[start : start + length] = bytes(length)
    path = tmp_path / name
    path.write_bytes(data)
    shown, broken = run(path, Sampling(interval_s=0.04))
    assert broken is not None and broken.reason == Reason.CORRUPT and "packets failed" in broken.detail
    assert shown[-1].time_ns > 5.7e9 and 100 <= len(shown) < 150
    if name == "a.mp4":  # whose packets are found by its index: what came out is whole, no smeared picture
        whole = {frame.time_ns: frame.image for frame in run(clips[name], Sampling(interval_s=0.04))[0]}
        assert all(frame.image == whole[frame.time_ns] for frame in shown)


def test_a_size_that_changes_on_the_way(tmp_path: Path) -> None:
    path = tmp_path / "sizes.mkv"
    parts = [write(tmp_path / f"{width}.avi", "mjpeg", "yuvj420p", textures(((1, 50),), (width, 96)), (width, 96)) for width in (128, 256)]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mjpeg", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuvj420p"
        for number, part in enumerate(parts):
            with av.open(str(part)) as source:
                for packet in source.demux(video=0):
                    if packet.size:
                        packet.pts = packet.dts = (packet.pts or 0) + 50 * number
                        packet.stream = stream
                        container.mux(packet)
    for sampling, expected in ((SECOND, [128, 128, 256, 256]), (BY_SCENE, [128, 256])):
        shown, broken = run(path, sampling)
        assert [frame.image.width for frame in shown] == expected and broken is None
    shown, broken = run(path, SECOND, max_pixels=128 * 96)
    assert [frame.image.width for frame in shown] == [128, 128]
    assert broken is not None and broken.reason == Reason.TOO_MANY_PIXELS and broken.time_ns == 49 * 40_000_000


def test_a_slide_show_whose_last_picture_stands_long_is_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "slides.mkv", pictures=textures(((1, 5),), SIZE), gaps={number: 249 for number in range(1, 5)})
    assert times_s(path, Sampling(interval_s=10)) == [0, 10, 20, 30, 40]


def test_sound_that_outlasts_the_picture_is_no_cut(tmp_path: Path) -> None:
    assert times_s(write(tmp_path / "long.mp4", audio_s=12)) == [0, 1, 2, 3, 4, 5]


# refused


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    assert refusal(tmp_path / "a.mp4").reason == Reason.EMPTY


@pytest.mark.parametrize("text", ["hello, not a video\n" * 100, "GIF89a" + "\0" * 500, "\0" * 4096], ids=["text", "gif", "zeros"])
def test_what_is_no_video(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.mp4").write_text(text)
    assert refusal(tmp_path / "a.mp4").reason == Reason.UNSUPPORTED_FORMAT


def test_sound_alone_is_unsupported(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        write_tone(container, container.add_stream("aac", rate=8000, layout="mono"), 2)
    error = refusal(tmp_path / "a.mp4")
    assert error.reason == Reason.UNSUPPORTED_FORMAT and error.detail == "no video stream"


def test_more_pixels_than_allowed_are_refused_by_the_header(clips: dict[str, Path], tmp_path: Path) -> None:
    error = refusal(clips["a.mp4"], max_pixels=160 * 120 - 1)
    assert error.reason == Reason.TOO_MANY_PIXELS and "160 x 120 px declared" in error.detail
    assert len(run(clips["a.mp4"], max_pixels=160 * 120)[0]) == 6


def test_frames_larger_than_the_header_says_are_not_decoded(clips: dict[str, Path], tmp_path: Path) -> None:
    data = clips["mjpeg.avi"].read_bytes()
    place = data.index(b"\xff\xc0") + 5  # after SOF0: length, precision; then height, width
    bomb = data.replace(data[place - 5 : place + 4], data[place - 5 : place] + struct.pack(">HH", 30_000, 30_000))
    (tmp_path / "bomb.avi").write_bytes(bomb)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert refusal(tmp_path / "bomb.avi").reason in (Reason.TOO_MANY_PIXELS, Reason.CORRUPT)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 100 * 1024  # one such frame is 30,000^2 x 1.5 = 1.3 GiB


def test_a_missing_file_is_the_callers_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(frames(tmp_path / "none.mp4", SECOND, LIMIT))


def playlists(other: Path) -> dict[str, str]:
    url = other.as_posix()
    return {
        "hls": f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:6\n#EXTINF:6.0,\n{url}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile '{url}'\n",
        "dash": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:isoff-live:2011"'
        f' type="static"><Period><AdaptationSet><Representation id="1" bandwidth="1"><BaseURL>{url}</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    }


@pytest.mark.parametrize("kind", ["hls", "concat", "dash", "sdp"])
@pytest.mark.parametrize("suffix", [".mp4", ".ts"])
def test_a_playlist_under_a_videos_name_is_refused_and_what_it_names_is_not_read(
    clips: dict[str, Path], tmp_path: Path, kind: str, suffix: str
) -> None:
    other = tmp_path / "other.ts"
    other.write_bytes(clips["a.ts"].read_bytes())
    os.utime(other, (1, 1))  # an access would be newer than the last change, so that even relatime writes it down
    path = tmp_path / f"clip{suffix}"
    path.write_text(playlists(other)[kind])
    assert refusal(path).reason == Reason.UNSUPPORTED_FORMAT
    assert other.stat().st_atime == 1


def test_the_watch_for_reads_sees_a_read(clips: dict[str, Path], tmp_path: Path) -> None:
    other = tmp_path / "other.ts"
    other.write_bytes(clips["a.ts"].read_bytes())
    os.utime(other, (1, 1))
    assert times_s(other)[0] == 0
    assert other.stat().st_atime > 1


def test_a_file_named_as_a_protocol_or_a_pattern_is_itself(
    clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a|b.mp4", "clip%03d.mp4", "https:x.mp4"):
        Path(name).write_bytes(clips["a.mp4"].read_bytes())
        assert times_s(Path(name)) == [0, 1, 2, 3, 4, 5]


# quiet and small


def test_nothing_is_printed_and_memory_stays_that_of_a_few_frames(tmp_path: Path) -> None:
    path = write(tmp_path / "long.mp4", pictures=textures(((1, 160), (2, 160), (3, 160)), (640, 480)), size=(640, 480))
    cut(path, 0.9, tmp_path / "cut.mp4")
    code = (
        "import resource, sys, pathlib\n"
        "from discovery.adapters.videos import Sampling, frames\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "items = frames(pathlib.Path(sys.argv[1]), Sampling(interval_s=0.04), 10**6)\n"
        "next(items); before = peak(); count = sum(1 for _ in items)\n"
        "print(count, peak() - before)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path / "cut.mp4")], capture_output=True, text=True, check=True)
    count, grown_kib = map(int, result.stdout.split())
    assert result.stderr == ""
    assert count > 300  # as pictures they are 300 x 640 x 480 x 3 bytes = 264 MiB
    assert grown_kib < 40 * 1024
