"""One decoder process: takes pictures and videos on stdin, answers on stdout, and dies of one that hangs or crashes it.

Run as `python -m discovery.adapters.decoder_child` by decoder_pool. A request is a header, then the bytes of a picture or the JSON of a
VideoRequest; an answer is a header, the facts as JSON, the thumbnail, and a frame's JPEG. A picture has one answer; a video one for each
frame, then one without facts (or with the reason why it ends there). The kernel ends the process when a picture, or one packet of a video, takes too long (an alarm that nothing
handles), even inside a C library, and even when the parent is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from discovery.adapters.decode import Undecodable, decode, frame_jpeg, thumbnail_webp
from discovery.adapters.metadata import of_video, read_metadata
from discovery.adapters.videos import Broken, Sampling, open_video
from discovery.addressing import frame_id, sha256_hex, stamp_frame
from discovery.types import Reason

REQUEST = struct.Struct("!?QQQdd")  # is a video, bytes, max_pixels, thumbnail_px, seconds, seconds of a whole video
ANSWER = struct.Struct("!QQQ")  # bytes of JSON, of WebP, of JPEG
Answer = tuple[dict[str, Any], bytes, bytes]


def examine(data: bytes, max_pixels: int, thumbnail_px: int) -> Answer:
    """(facts, thumbnail, nothing): the columns of a manifest row that the bytes decide; reason and detail when there are none."""
    try:
        decoded = decode(data, max_pixels)
        facts = asdict(read_metadata(data)) | {
            "format": decoded.format,
            "width_px": decoded.width_px,
            "height_px": decoded.height_px,
            "orientation": decoded.orientation,
            "pixel_sha256": pixel_sha256(decoded.image),
        }
        return facts, thumbnail_webp(decoded.image, thumbnail_px), b""
    except Undecodable as error:
        return {"reason": error.reason, "detail": error.detail}, b"", b""


def examine_video(request: dict[str, Any], max_pixels: int, thumbnail_px: int, on_packet: Callable[[], None]) -> Iterator[Answer]:
    """(facts, thumbnail, JPEG) of each frame; at the end facts without anything, or a reason and detail. on_packet: as `open_video`."""
    video_id = request["video_id"]
    try:
        end: dict[str, Any] = {}
        with open_video(Path(request["path"]), max_pixels, on_packet) as video:
            for item in video.frames(Sampling(**request["sampling"])):
                if isinstance(item, Broken):
                    end = {"reason": item.reason, "detail": item.detail}
                    continue
                facts = asdict(of_video(video.facts, item.time_ns)) | {
                    "asset_id": frame_id(video_id, item.time_ns),
                    "video_id": video_id,
                    "frame_s": item.time_ns / 1e9,
                    "format": video.facts.container,
                    "width_px": item.image.width,
                    "height_px": item.image.height,
                    "orientation": 1,
                    "pixel_sha256": pixel_sha256(item.image),
                }
                yield facts, thumbnail_webp(item.image, thumbnail_px), stamp_frame(frame_jpeg(item.image), video_id, item.time_ns)
        yield end, b"", b""
    except Undecodable as error:
        yield {"reason": error.reason, "detail": error.detail}, b"", b""


def pixel_sha256(image: Image.Image) -> str:
    """Of the size and the pixels."""
    return sha256_hex(f"{image.width}x{image.height}:".encode() + image.tobytes())


@dataclass
class _Watch:
    """The alarm that ends this process unless there are signs of life, and the time that one request took altogether.

    Neither runs while an answer is handed over: that time is the parent's.
    """

    alarm_s: float
    total_s: float
    _spent_s: float = 0.0
    _since_s: float = 0.0

    def go(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, self.alarm_s)
        self._since_s = time.monotonic()

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._spent_s += time.monotonic() - self._since_s

    def show_life(self) -> None:
        """Set the alarm anew; raises Undecodable when the request took too long altogether."""
        self.stop()
        if self._spent_s > self.total_s:
            raise Undecodable(Reason.TIMEOUT, f"not decoded to its end within {self.total_s:g} s (video.max_seconds)")
        self.go()


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Say that it is ready, then answer until the requests end."""
    answers.write(ANSWER.pack(0, 0, 0))
    answers.flush()
    while header := requests.read(REQUEST.size):
        is_video, length, max_pixels, thumbnail_px, seconds, total_s = REQUEST.unpack(header)
        data = requests.read(length)
        watch = _Watch(seconds, total_s)
        watch.go()
        if is_video:
            found = examine_video(json.loads(data), max_pixels, thumbnail_px, watch.show_life)
        else:
            found = iter([examine(data, max_pixels, thumbnail_px)])
        for facts, webp, jpeg in found:
            watch.stop()
            text = json.dumps(facts).encode()
            answers.write(ANSWER.pack(len(text), len(webp), len(jpeg)) + text + webp + jpeg)
            answers.flush()
            watch.go()
        watch.stop()


def main() -> None:
    """Serve on stdin and stdout; what a library prints goes to stderr."""
    memory_bytes = int(sys.argv[1])
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes our stdin
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
