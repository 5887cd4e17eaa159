"""Decoders in processes of their own: a picture that crashes or hangs one costs that picture, not the run; a video its tail.

A library's process pool does not fit: multiprocessing imports the parent's main module, which inside an Airflow task is Airflow with a
poisoned database URL (DESIGN section 4), and a worker that dies breaks a concurrent.futures pool for all. See decisions/0011.
"""

from __future__ import annotations

import json
import math
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from discovery.adapters.decoder_child import ANSWER, REQUEST, Answer
from discovery.adapters.videos import Sampling
from discovery.errors import DiscoveryError
from discovery.types import Reason


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What one picture may cost: declared pixels, seconds, and the memory of its process; and the size of its thumbnail.

    seconds: of a video, without one packet decoded. video_seconds: of a whole video.
    """

    max_pixels: int
    thumbnail_px: int
    seconds: float
    memory_bytes: int
    video_seconds: float = math.inf


@dataclass
class DecoderPool:
    """`size` decoder processes, started when first needed. Threads share a pool; each call waits for an idle process."""

    size: int
    limits: DecodeLimits
    module: str = "discovery.adapters.decoder_child"
    _idle: queue.SimpleQueue[subprocess.Popen[bytes] | None] = field(init=False)
    _busy: set[subprocess.Popen[bytes]] = field(init=False)
    _is_stopped: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._idle, self._busy = queue.SimpleQueue(), set()
        for _ in range(self.size):
            self._idle.put(None)

    def examine(self, data: bytes) -> tuple[dict[str, Any], bytes]:
        """(facts, thumbnail WebP) of a picture; facts are a manifest row's columns, or `reason` and `detail`."""
        with closing(self._ask(data, is_video=False)) as answers:
            facts, webp, _ = next(answers)
        return facts, webp

    def examine_video(self, path: Path, video_id: str, sampling: Sampling) -> Iterator[Answer]:
        """(facts, thumbnail WebP, frame JPEG) of each sampled frame of a local file, as it is decoded.

        When the video ends early, the last item has `reason` and `detail`, and no bytes. video_id: the SHA-256 of the file.
        """
        request = json.dumps({"path": str(path), "video_id": video_id, "sampling": asdict(sampling)})
        for facts, webp, jpeg in self._ask(request.encode(), is_video=True):
            if facts:
                yield facts, webp, jpeg

    def stop(self) -> None:
        """Answer no more: kill the processes that are busy; calls under way and later ones raise DiscoveryError."""
        self._is_stopped = True
        for child in list(self._busy):
            child.kill()

    def close(self) -> None:
        """End the processes, each when it is idle."""
        for _ in range(self.size):
            try:
                child = self._idle.get(timeout=self.limits.seconds + 1)
            except queue.Empty:
                continue
            if child is not None:
                _end(child)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "_AIRFLOW"))}
        command = [sys.executable, "-P", "-m", self.module, str(self.limits.memory_bytes)]
        pipe = subprocess.PIPE
        child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment)
        try:
            _exactly(child, ANSWER.size)
        except EOFError as error:
            raise DiscoveryError(
                f"A decoder process ended with exit code {_end(child)} before its first picture. See what `{' '.join(command)}` prints; "
                "ingest.decode_memory_bytes may be too small for it."
            ) from error
        return child

    def _ask(self, request: bytes, is_video: bool) -> Generator[Answer, None, None]:
        """Answers until one has no thumbnail (the end), or the process dies of it; a picture has one in any case."""
        child = self._idle.get()
        has_ended = False
        try:
            self._check_not_stopped()
            child = child or self._start()
            self._busy.add(child)
            self._check_not_stopped()  # for `stop` may have looked before the child was among the busy
            try:
                _send(child, request, is_video, self.limits)
                while not has_ended:
                    answer = _receive(child)
                    has_ended = not is_video or not answer[1]
                    yield answer
            except (OSError, EOFError):
                self._check_not_stopped()
                self._busy.discard(child)
                died, child = child, None
                yield self._death(died), b"", b""
        finally:
            if child is not None:
                self._busy.discard(child)
                if not has_ended:  # nobody wants the rest of the video
                    child.kill()
                    _end(child)
                    child = None
            self._idle.put(child)

    def _check_not_stopped(self) -> None:
        if self._is_stopped:
            raise DiscoveryError("The decoders were stopped; run again.")

    def _death(self, child: subprocess.Popen[bytes]) -> dict[str, Any]:
        code = _end(child)
        if code == -signal.SIGALRM:
            return {"reason": Reason.TIMEOUT, "detail": f"not decoded within {self.limits.seconds:g} s"}
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return {"reason": Reason.CRASHED_DECODER, "detail": f"the decoder process ended by {how}"}


def _send(child: subprocess.Popen[bytes], request: bytes, is_video: bool, limits: DecodeLimits) -> None:
    assert child.stdin
    child.stdin.write(REQUEST.pack(is_video, len(request), limits.max_pixels, limits.thumbnail_px, limits.seconds, limits.video_seconds))
    child.stdin.write(request)
    child.stdin.flush()


def _receive(child: subprocess.Popen[bytes]) -> Answer:
    text_bytes, webp_bytes, jpeg_bytes = ANSWER.unpack(_exactly(child, ANSWER.size))
    return json.loads(_exactly(child, text_bytes)), _exactly(child, webp_bytes), _exactly(child, jpeg_bytes)


def _exactly(child: subprocess.Popen[bytes], length: int) -> bytes:
    assert child.stdout
    data = child.stdout.read(length)
    if len(data) < length:
        raise EOFError
    return data


def _end(child: subprocess.Popen[bytes]) -> int:
    """Exit code of a child that was asked to end by closing its stdin, and killed when it does not."""
    for pipe in (child.stdin, child.stdout):
        try:
            if pipe:
                pipe.close()
        except OSError:
            pass  # the rest of a request that nobody reads any more
    try:
        return child.wait(timeout=5)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()
