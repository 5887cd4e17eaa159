"""The default encoder's vectors of ten synthetic pictures are those of the version that first made them, and the same on every run.

`python -m tests.adapters.test_golden_vectors` writes them anew: only together with another `decoder` in EncoderSpec, which names
another encoder.
"""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from discovery.adapters.encoders import encode_pictures, load_encoder
from discovery.adapters.torch_encoder import MAX_COSINE_DISTANCE
from discovery.config import EncoderConfig, S3Config
from discovery.core.probe_pictures import PROBES, probe_pictures

PROJECT = Path(__file__).parents[2]
FILE = PROJECT / "tests" / "golden" / "tf_efficientnet_lite0.npy"
PRINT_DIGEST = """
import hashlib
from tests.adapters.test_golden_vectors import vectors
print(hashlib.sha256(vectors().tobytes()).hexdigest())
"""


def as_png(pixels: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def vectors() -> np.ndarray:
    """(10, 1280) of the probe pictures at 400 px, as PNG files of three shapes, so that resizing and cropping are part of it."""
    pictures = probe_pictures(400)
    shapes = [(400, 400), (300, 400), (400, 260)]
    return encode_pictures(
        load_encoder(EncoderConfig(), S3Config()),
        [as_png(picture[: shapes[row % 3][0], : shapes[row % 3][1]]) for row, picture in enumerate(pictures)],
    )


def test_the_default_encoders_vectors_stay_what_they_were():
    golden = np.load(FILE).astype(np.float32)
    golden /= np.linalg.norm(golden, axis=1, keepdims=True)
    distances = dict(zip(PROBES, 1.0 - (vectors() * golden).sum(axis=1), strict=True))
    assert max(distances.values()) <= MAX_COSINE_DISTANCE, distances


def test_two_processes_of_one_machine_give_the_same_bytes():
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONWARNINGS": "ignore"}
    runs = [
        subprocess.Popen([sys.executable, "-c", PRINT_DIGEST], stdout=subprocess.PIPE, text=True, cwd=PROJECT, env=environment)
        for _ in range(2)
    ]
    first, second = (run.communicate(timeout=300)[0].strip() for run in runs)
    assert len(first) == 64 and first == second


if __name__ == "__main__":
    np.save(FILE, vectors().astype(np.float16))
