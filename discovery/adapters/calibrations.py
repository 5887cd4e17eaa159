"""Calibrations of near-duplicates that come with the package, by encoder id; how they were made is in each file's `about.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from discovery.addressing import sha256_hex
from discovery.core.projection import Projection

FOLDER = Path(__file__).parent / "calibrations"


@dataclass(frozen=True, slots=True)
class PackagedCalibration:
    """`threshold` of the cosine after `projection`; id: of the file's bytes. recall: of planted copies, and its bound at 95 %."""

    id: str
    threshold: float
    projection: Projection
    recall: float
    recall_lower_bound: float


def packaged_calibration(encoder_id: str) -> PackagedCalibration | None:
    """The calibration that the package carries for an encoder, or None."""
    path = FOLDER / f"{encoder_id.replace('@', '-').replace('/', '_')}.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        about = json.loads(str(stored["about"]))
        axes, variances = stored["axes"].astype(np.float32), stored["variances"].astype(np.float64)
        projection = Projection(stored["mean"].astype(np.float32), axes, variances, float(about["explained"]))
    if about["encoder_id"] != encoder_id:
        return None
    return PackagedCalibration(sha256_hex(path.read_bytes()), float(about["threshold"]), projection, float(about["recall"]), float(about["recall_lower_bound"]))


def write_packaged(encoder_id: str, projection: Projection, about: dict[str, object], folder: Path = FOLDER) -> Path:
    """Write a calibration as a file of the package: float16 axes of the given projection, and what is known about it."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{encoder_id.replace('@', '-').replace('/', '_')}.npz"
    text = json.dumps({"encoder_id": encoder_id, "explained": projection.explained, **about}, sort_keys=True)
    np.savez_compressed(
        path, about=np.array(text), mean=projection.mean, axes=projection.axes.astype(np.float16), variances=projection.variances
    )
    return path
