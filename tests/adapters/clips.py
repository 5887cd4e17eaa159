"""Small real videos, made with FFmpeg: scenes of moving texture with hard cuts between them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image


def scene(number: int, height: int = 96, width: int = 128) -> np.ndarray:
    """(h, 2w, 3) uint8: a soft texture of its own, twice as wide as a frame, so that a camera can pan over it."""
    rng = np.random.default_rng(100 + number)
    base = rng.integers(20, 80, 3) + 100 * (number % 2)  # a cut shows in brightness too
    coarse = np.clip(base + rng.integers(-50, 56, (6, 14, 3)), 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((2 * width, height), Image.Resampling.BICUBIC))


def clip(
    path: Path, scenes: int = 3, frames: int = 25, first: int = 0, rate: int = 25, codec: str = "libx264", pix_fmt: str = "yuv420p", rotate: int = 0,
    metadata: dict[str, str] | None = None, **options: str,
) -> Path:  # fmt: skip
    """A video of so many scenes from that one on, each so many frames long."""
    with av.open(str(path), "w", options=options) as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 128, 96, pix_fmt
        stream.codec_context.gop_size = 12
        if rotate:
            stream.set_display_rotation(rotate)
        for number in range(scenes * frames):
            pan = number % frames
            picture = scene(first + number // frames)[:, pan : pan + 128]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def sound(path: Path) -> Path:
    """A file without pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
