"""Video files to pictures: frames by time or by scene, one in memory at a time; a broken end loses only the end."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast

import av
import av.logging
from av.container import InputContainer
from av.filter import Graph
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream
from PIL import Image

from discovery.adapters.decode import Undecodable
from discovery.types import Reason

av.logging.set_level(None)  # FFmpeg's own log would go to stderr; what failed is counted here

SUFFIXES = frozenset(
    {".3g2", ".3gp", ".asf", ".avi", ".f4v", ".flv", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts"}
    | {".ogv", ".qt", ".ts", ".vob", ".webm", ".wmv"}
)
# Only demuxers that read the one file they are given: no playlists (hls, dash, concat), image sequences, devices or filter graphs.
DEMUXERS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg"
# Demuxers whose files say how long they are; the others' length is estimated from what is there, so that it cannot show a cut.
LENGTH_IN_HEADER = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "asf", "flv"})
NAMES = {"avi": "AVI", "mpegts": "MPEGTS", "mpeg": "MPEG", "mpegvideo": "MPEG", "asf": "ASF", "flv": "FLV", "ogg": "OGG"}
BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
SIGNATURES = (b"\x1aE\xdf\xa3", b"RIFF", b"\x30\x26\xb2\x75", b"FLV\x01", b"OggS", b"\0\0\x01\xba", b"\0\0\x01\xb3")
DAY_ZERO = datetime(1970, 1, 1, tzinfo=UTC)  # what writers put who know no date (or 1904, QuickTime's)
MAX_READ_FAILURES = 100  # in a row; a demuxer that stands still says the same for ever
SMEAR_NS = 10 * 10**9  # x264 writes a key frame every 250 frames; streams that never do mend themselves bit by bit
OUT_OF_ORDER = 25  # frames; writers with wrong times leave one or two, a jump back in time leaves the rest
SCDET_SIDE_PX = 256  # the detector sees the frame with its longer side at this size: noise goes, cuts stay
EXACT = Interpolation.ACCURATE_RND | Interpolation.BITEXACT  # the same pixels whatever SIMD the CPU has
PICTURE = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | EXACT
UNSPECIFIED_MATRIX = 2  # AVCOL_SPC_UNSPECIFIED
TURNS = {  # signs of (a, b, c, d) of the display matrix, x' = ax + cy and y' = bx + dy with y down
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which frames of a video: the first at or after each multiple of `interval_s`, or the first of every scene.

    scene_threshold: FFmpeg scdet's score in [0, 100] at which a frame starts a scene; larger finds fewer, 10 is FFmpeg's own. Hard cuts
    are found, slow fades are not. max_frames: no more come out; at least 1.
    """

    method: Literal["interval", "scenes"] = "interval"
    interval_s: float = 1.0
    scene_threshold: float = 10.0
    max_frames: int = 10_000


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """One picture: RGB, turned as the display matrix says, pixels as stored (not made square); `time_ns` from the start of the stream."""

    time_ns: int
    image: Image.Image


@dataclass(frozen=True, slots=True)
class Broken:
    """The last item where not all of a video could be had: why, and the time of the last whole frame before it ended."""

    reason: Reason
    detail: str
    time_ns: int


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What the file says of itself; None where it says nothing.

    `width_px` and `height_px` are those of the pictures, after rotation. `created_at` has the zone that the file names, else UTC; `location` ISO 6709 (+48.2+016.4/),
    `content_identifier` what the two halves of a Live Photo share.
    """

    container: str
    codec: str
    width_px: int
    height_px: int
    duration_s: float | None
    frame_rate: float | None
    created_at: datetime | None
    make: str | None
    model: str | None
    location: str | None
    content_identifier: str | None


def video_suffix(uri: str) -> str:
    """The suffix of a video by its name, in lower case; empty for anything else.

    >>> video_suffix("s3://clips/2026/A.MP4"), video_suffix("a.jpg")
    ('.mp4', '')
    """
    suffix = PurePosixPath(uri).suffix.lower()
    return suffix if suffix in SUFFIXES else ""


def frames(path: Path, sampling: Sampling, max_pixels: int) -> Iterator[VideoFrame | Broken]:
    """Sampled frames in the order of their times, each time once; then one Broken if something is missing.

    max_pixels: a video that declares more a frame is refused before decoding. Raises Undecodable where no frame at all can be had:
    empty, no video, audio only, too many pixels, broken from the start.
    """
    with open_video(path, max_pixels) as video:
        yield from video.frames(sampling)


@contextmanager
def open_video(path: Path, max_pixels: int, on_packet: Callable[[], None] = lambda: None) -> Iterator[Video]:
    """A local video, open, with its facts, its first frame decoded. Nothing but `path` is ever opened. Raises Undecodable as `frames`.

    on_packet: called whenever the decoder has taken a packet of the pictures, so also between sampled frames; an Undecodable that it
    raises ends the video there.
    """
    with path.open("rb") as stream:
        head = stream.read(1024)
    if not head:
        raise Undecodable(Reason.EMPTY, "0 bytes")
    options = {"protocol_whitelist": "file", "format_whitelist": DEMUXERS, "max_pixels": str(_decoder_limit(max_pixels))}
    try:
        # an absolute path, so that no name ("concat:a|b", "http:x") reads as a protocol
        container = av.open(str(path.absolute()), "r", options=options, metadata_errors="replace")
    except av.FFmpegError as error:
        known = head.startswith(SIGNATURES) or head[4:8] in BOXES
        detail = f"header cannot be read: {error.strerror}" if known else "not a video that we read"
        raise Undecodable(Reason.CORRUPT if known else Reason.UNSUPPORTED_FORMAT, detail) from error
    with container:
        yield Video(container, _picture_stream(container, max_pixels), head, max_pixels, on_packet)


@dataclass(slots=True)
class _Progress:
    """How far a video was read and decoded, in ns from its start, and what failed on the way."""

    video_read_ns: int = 0
    read_ns: int = 0
    shown_ns: int = 0
    last_ns: int = -1
    longest_gap_ns: int = 0
    damaged: int = 0
    smeared: int = 0
    out_of_order: int = 0
    read_error: str = ""
    damaged_pts: set[int] = field(default_factory=set)


class _Clock:
    """Which of a frame's two times to believe: FFmpeg's guess_correct_pts, of which PyAV hands out only the parts.

    Some AVI and MP4 writers store decoding times as presentation times; the frames come in the right order, their pts do not.
    """

    def __init__(self) -> None:
        self._last_pts = self._last_dts = -(2**63)
        self._faulty_pts = self._faulty_dts = 0

    def ticks(self, pts: int | None, dts: int | None) -> int | None:
        if dts is not None:
            self._faulty_dts += dts <= self._last_dts
        if pts is not None:
            self._faulty_pts += pts <= self._last_pts
        self._last_dts = next((ticks for ticks in (dts, pts) if ticks is not None), self._last_dts)
        self._last_pts = next((ticks for ticks in (pts, dts) if ticks is not None), self._last_pts)
        return pts if pts is not None and (dts is None or self._faulty_pts <= self._faulty_dts) else dts


class Video:
    """An open video: `facts`, and `frames`, once. Made by `open_video`."""

    def __init__(
        self, container: InputContainer, stream: VideoStream, head: bytes, max_pixels: int, on_packet: Callable[[], None] = lambda: None
    ) -> None:
        self._container = container
        self._stream = stream
        self._max_pixels = max_pixels
        self._on_packet = on_packet
        self._tick = stream.time_base or Fraction(1, 1)
        self._rate = stream.average_rate or stream.guessed_rate
        self._start = stream.start_time
        self._progress = _Progress()
        self._clock = _Clock()
        self._convert = VideoReformatter()
        self._declared_s = _declared_s(container, stream)
        # One thread: what is made of damaged packets would hang on timing otherwise, and work is spread by files.
        stream.codec_context.thread_type = av.codec.context.ThreadType.NONE
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"max_pixels": str(_decoder_limit(max_pixels))}
        self._decoded = self._whole_frames()
        first = next(self._decoded, None)
        if first is None:
            broken = self._broken()
            if broken is None:
                raise Undecodable(Reason.EMPTY, "a video without frames")
            raise Undecodable(broken.reason, f"no frame: {broken.detail}")
        self._first = first
        self.facts = _facts(container, stream, head, _turn(first[1]), first[1], self._declared_s, self._rate)

    def frames(self, sampling: Sampling) -> Iterator[VideoFrame | Broken]:
        """As the function `frames`."""
        starts = SAMPLERS[sampling.method](sampling)
        count, limit = 0, None
        try:
            for time_ns, frame in self._all_frames():
                if not starts(time_ns, frame):
                    continue
                if count == sampling.max_frames:
                    yield Broken(Reason.TOO_LARGE, f"more than {count:,} frames; from {time_ns / 1e9:.3f} s on nothing was read", time_ns)
                    return
                count += 1
                yield VideoFrame(time_ns, self._image(frame))
        except Undecodable as error:
            limit = Broken(error.reason, error.detail, self._progress.last_ns)
        except av.FFmpegError as error:  # of a decoder's or demuxer's nothing comes here
            limit = Broken(Reason.UNSUPPORTED_FORMAT, f"pixels cannot be converted: {error.strerror}", self._progress.last_ns)
        broken = limit or self._broken()
        if broken is not None:
            yield broken

    def _all_frames(self) -> Iterator[tuple[int, av.VideoFrame]]:
        yield self._first
        yield from self._decoded

    def _whole_frames(self) -> Iterator[tuple[int, av.VideoFrame]]:
        """(time_ns, frame), times rising; after damage nothing until a picture that needs no other, for those between are smeared."""
        progress = self._progress
        smeared_until_ns = -1
        for packet in self._packets():
            try:
                decoded = self._stream.decode(packet)
                is_failed = packet is not None and packet.is_corrupt
                if is_failed and packet is not None and packet.pts is not None:
                    progress.damaged_pts.add(packet.pts)
            except av.FFmpegError:
                decoded, is_failed = [], True
                smeared_until_ns = progress.last_ns + SMEAR_NS
            self._on_packet()
            for frame in decoded:
                if frame.width * frame.height > self._max_pixels:
                    raise Undecodable(Reason.TOO_MANY_PIXELS, f"{frame.width} x {frame.height} px a frame; the limit is {self._max_pixels}")
                time_ns = self._time_ns(frame)
                if frame.is_corrupt or frame.pts in progress.damaged_pts:
                    is_failed = True
                    smeared_until_ns = time_ns + SMEAR_NS
                elif frame.key_frame or frame.pict_type == PictureType.I:
                    smeared_until_ns = -1
                if time_ns <= smeared_until_ns:
                    progress.smeared += 1
                elif time_ns <= progress.last_ns:
                    progress.out_of_order += time_ns < progress.last_ns
                else:
                    progress.longest_gap_ns = max(progress.longest_gap_ns, time_ns - max(progress.last_ns, 0))
                    progress.shown_ns = time_ns + round((frame.duration or 0) * self._tick * 10**9)
                    progress.last_ns = time_ns
                    yield time_ns, frame
            progress.damaged += is_failed

    def _packets(self) -> Iterator[Packet[VideoStream] | None]:
        """Packets of the stream, then None to flush the decoder; reading goes on behind errors while anything comes."""
        timed = [stream for stream in self._container.streams if stream.type in ("video", "audio")]
        failures = 0
        is_end = False
        while not is_end and failures < MAX_READ_FAILURES:
            try:
                for packet in self._container.demux(timed):
                    failures = 0
                    if packet.size:  # an empty one would end the decoder; FFmpeg's last are, and AVI's "as before"
                        self._note(packet)
                        if packet.stream_index == self._stream.index:
                            yield cast("Packet[VideoStream]", packet)
                is_end = True
            except av.FFmpegError as error:
                failures += 1
                self._progress.read_error = f"{type(error).__name__}: {error.strerror}"
        yield None

    def _note(self, packet: Packet[Any]) -> None:
        pts = packet.pts if packet.pts is not None else packet.dts
        if pts is None:
            return
        end_s = (pts + (packet.duration or 0)) * packet.time_base
        progress = self._progress
        progress.read_ns = max(progress.read_ns, round(end_s * 10**9) - (self._container.start_time or 0) * 1000)
        if packet.stream_index == self._stream.index:
            if self._start is None:
                self._start = pts
            progress.video_read_ns = max(progress.video_read_ns, round((end_s - self._start * self._tick) * 10**9))

    def _time_ns(self, frame: av.VideoFrame) -> int:
        ticks = self._clock.ticks(frame.pts, frame.dts)
        if ticks is None:
            return self._progress.last_ns + (round(10**9 / self._rate) if self._rate else 1)
        return max(0, round((ticks - (self._start or 0)) * self._tick * 10**9))

    def _image(self, frame: av.VideoFrame) -> Image.Image:
        # without a matrix in the file: BT.709 for HD, BT.601 below, as players do; swscale alone takes 601 for all
        guess = Colorspace.ITU709 if frame.width >= 1280 or frame.height > 576 else Colorspace.ITU601
        matrix = guess if frame.colorspace == UNSPECIFIED_MATRIX else None
        rgb = self._convert.reformat(
            frame, format="rgb24", src_colorspace=matrix, interpolation=PICTURE, dst_color_range=ColorRange.JPEG, threads=1
        )
        image = cast(Image.Image, cast(Any, rgb).to_image())
        turn = _turn(frame)
        return image if turn is None else image.transpose(turn)

    def _broken(self) -> Broken | None:
        progress = self._progress
        declared_ns = round((self._declared_s or 0) * 1e9) if self._container.format.name in LENGTH_IN_HEADER else 0
        # a slide show's last picture may stand as long as any before it
        needed_ns = declared_ns - max(10**9, declared_ns // 20, progress.longest_gap_ns)
        read_ns = progress.video_read_ns if self._stream.duration else max(progress.video_read_ns, progress.read_ns)
        parts = []
        if min(read_ns, progress.shown_ns) < needed_ns:
            parts.append(f"ends at {progress.shown_ns / 1e9:.3f} s of {declared_ns / 1e9:.3f} s")
        if progress.damaged:
            parts.append(f"{progress.damaged} packets failed, {progress.smeared} frames until the next whole one left out")
        if progress.out_of_order > OUT_OF_ORDER:
            parts.append(f"{progress.out_of_order} frames left out whose time goes back")
        if progress.read_error:
            parts.append(progress.read_error)
        if not parts:
            return None
        return Broken(Reason.TRUNCATED if read_ns < needed_ns else Reason.CORRUPT, "; ".join(parts), max(progress.last_ns, 0))


def _decoder_limit(max_pixels: int) -> int:
    return 2 * max_pixels + 128 * 128  # the decoder counts whole blocks; `max_pixels` itself is checked on the picture


def _picture_stream(container: InputContainer, max_pixels: int) -> VideoStream:
    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    stream = next((stream for stream in container.streams.video if not stream.disposition & covers), None)
    if stream is None:
        raise Undecodable(Reason.UNSUPPORTED_FORMAT, "no video stream")
    if cast(object, stream.codec_context) is None:
        raise Undecodable(Reason.UNSUPPORTED_FORMAT, "a codec that FFmpeg cannot decode")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > max_pixels:
        raise Undecodable(Reason.TOO_MANY_PIXELS, f"{width} x {height} px declared a frame; the limit is {max_pixels}")
    return stream


def _declared_s(container: InputContainer, stream: VideoStream) -> float | None:
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        return float(stream.frames / stream.average_rate)  # FFmpeg shortens a cut AVI's duration; its frame count stays
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


def _turn(frame: av.VideoFrame) -> Image.Transpose | None:
    data = cast(Any, frame.side_data).get("DISPLAYMATRIX")
    if data is None:
        return None
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data))
    if abs(a) >= abs(b):  # to the nearest quarter turn
        b = c = 0
    else:
        a = d = 0
    return TURNS.get((_sign(a), _sign(b), _sign(c), _sign(d)))


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


def _by_interval(sampling: Sampling) -> Callable[[int, av.VideoFrame], bool]:
    interval_ns = max(1, round(sampling.interval_s * 1e9))
    due_ns = 0

    def starts(time_ns: int, _: av.VideoFrame) -> bool:
        nonlocal due_ns
        if time_ns < due_ns:
            return False
        due_ns = (time_ns // interval_ns + 1) * interval_ns
        return True

    return starts


def _by_scene(sampling: Sampling) -> Callable[[int, av.VideoFrame], bool]:
    shrink = VideoReformatter()
    graph: Graph | None = None
    width = height = 0

    def starts(_: int, frame: av.VideoFrame) -> bool:
        nonlocal graph, width, height
        is_first = graph is None
        if graph is None:
            scale = min(1.0, SCDET_SIDE_PX / max(frame.width, frame.height))
            width, height = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
            graph = Graph()
            graph.threads = 1
            source = graph.add("buffer", video_size=f"{width}x{height}", pix_fmt="gray", time_base="1/1000", pixel_aspect="1/1")
            graph.link_nodes(source, graph.add("scdet", threshold=f"{sampling.scene_threshold:f}"), graph.add("buffersink")).configure()
        # full range, so that a threshold means the same for every video
        small = shrink.reformat(
            frame, width, height, "gray", interpolation=Interpolation.AREA | EXACT, dst_color_range=ColorRange.JPEG, threads=1
        )
        graph.push(small)
        return "lavfi.scd.time" in graph.pull().metadata or is_first

    return starts


SAMPLERS: dict[str, Callable[[Sampling], Callable[[int, av.VideoFrame], bool]]] = {"interval": _by_interval, "scenes": _by_scene}


def _facts(
    container: InputContainer,
    stream: VideoStream,
    head: bytes,
    turn: Image.Transpose | None,
    frame: av.VideoFrame,
    duration_s: float | None,
    rate: Fraction | None,
) -> VideoFacts:
    tags = {key.lower(): value.strip() for key, value in {**stream.metadata, **container.metadata}.items()}

    def said(*keys: str) -> str | None:
        return next((tags[key] for key in keys if tags.get(key)), None)

    is_quarter = turn is not None and turn in (
        Image.Transpose.ROTATE_90,
        Image.Transpose.ROTATE_270,
        Image.Transpose.TRANSPOSE,
        Image.Transpose.TRANSVERSE,
    )
    width, height = (frame.height, frame.width) if is_quarter else (frame.width, frame.height)
    return VideoFacts(
        container=_container_name(container.format.name, head, said("major_brand") or ""),
        codec=stream.codec_context.codec.canonical_name,
        width_px=width,
        height_px=height,
        duration_s=duration_s,
        frame_rate=float(rate) if rate else None,
        created_at=_moment(said("com.apple.quicktime.creationdate")) or _moment(said("creation_time")),
        make=said("com.apple.quicktime.make", "com.android.manufacturer", "com.android.make", "make"),
        model=said("com.apple.quicktime.model", "com.android.model", "model"),
        location=said("com.apple.quicktime.location.iso6709", "location"),
        content_identifier=said("com.apple.quicktime.content.identifier"),
    )


def _container_name(demuxer: str, head: bytes, brand: str) -> str:
    if demuxer.startswith("matroska"):
        return "WEBM" if b"webm" in head[:64] else "MKV"
    if demuxer.startswith("mov"):
        if not brand or brand.startswith("qt"):
            return "MOV"  # QuickTime's own files need name no brand
        return "3GP" if brand.startswith("3g") else "MP4"
    return NAMES.get(demuxer, demuxer.upper())


def _moment(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text or "")
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        return moment if moment > DAY_ZERO else None
    except (ValueError, OverflowError):
        return None
