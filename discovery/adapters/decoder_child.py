"""One decoder process: takes pictures on stdin, answers on stdout, and dies of a picture that hangs or crashes it.

Run as `python -m discovery.adapters.decoder_child` by decoder_pool. A request is a header, then the bytes; an answer is a header, the
facts as JSON, then the thumbnail. The kernel ends the process when a picture takes too long (an alarm that nothing handles), even
inside a C library, and even when the parent is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import struct
import sys
from typing import Any, BinaryIO

from discovery.adapters.decode import Undecodable, decode, thumbnail_webp
from discovery.addressing import sha256_hex

REQUEST = struct.Struct("!QQQd")  # bytes, max_pixels, thumbnail_px, seconds
ANSWER = struct.Struct("!QQ")  # bytes of JSON, bytes of WebP


def examine(data: bytes, max_pixels: int, thumbnail_px: int) -> tuple[dict[str, Any], bytes]:
    """(facts, thumbnail): the columns of a manifest row that the pixels decide; reason and detail when there are none."""
    try:
        decoded = decode(data, max_pixels)
        size = f"{decoded.image.width}x{decoded.image.height}:".encode()
        facts = {
            "format": decoded.format,
            "width_px": decoded.width_px,
            "height_px": decoded.height_px,
            "orientation": decoded.orientation,
            "pixel_sha256": sha256_hex(size + decoded.image.tobytes()),
        }
        return facts, thumbnail_webp(decoded.image, thumbnail_px)
    except Undecodable as error:
        return {"reason": error.reason, "detail": error.detail}, b""


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Say that it is ready, then answer until the requests end."""
    answers.write(ANSWER.pack(0, 0))
    answers.flush()
    while header := requests.read(REQUEST.size):
        length, max_pixels, thumbnail_px, seconds = REQUEST.unpack(header)
        data = requests.read(length)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        facts, webp = examine(data, max_pixels, thumbnail_px)
        signal.setitimer(signal.ITIMER_REAL, 0)
        text = json.dumps(facts).encode()
        answers.write(ANSWER.pack(len(text), len(webp)) + text + webp)
        answers.flush()


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
