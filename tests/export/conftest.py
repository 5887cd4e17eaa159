"""A small store of photographs with labels, made by the whole chain, and what is exported of it."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pillow_heif
import pytest
import sklearn.datasets
from PIL import Image

from discovery.config import Config, S3Config
from discovery.pipeline import run_pipeline
from discovery.spec import parse_spec
from discovery.stages.curate import curate
from discovery.workspace import Workspace, open_workspace
from tests.adapters.clips import clip

ROTATED = 0x0112, 6  # EXIF: a quarter turn clockwise is needed
LABELS = ("flower", "chien/chat", "Ärzte 🩺", "")
SPEC = "name: photos\nbudget: 1000\nduplicates: keep\nsplits: {train: 0.6, test: 0.4}\n"


def photographs() -> list[Image.Image]:
    """Three real photographs that come with libraries."""
    folder = Path(sklearn.datasets.__file__).parent / "images"
    hopper = Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")
    return [Image.open(path).convert("RGB") for path in (folder / "flower.jpg", folder / "china.jpg", hopper)]


def make_source(folder: Path) -> Path:
    """24 parts of the photographs as JPEG, PNG and WebP, one HEIC, one JPEG that is stored turned, an odd name, a clip of 2 scenes, and the list of them."""
    rng = np.random.default_rng(11)
    rows: list[dict[str, str]] = []

    def keep(name: str, label: str, boxes: str = "") -> Path:
        rows.append({"uri": name, "label": label, "kind": f"kind {len(rows) % 3}", "boxes": boxes})
        return folder / name

    pictures = photographs()
    for number in range(24):
        whole = pictures[number % 3]
        left, top = int(rng.integers(0, whole.width - 200)), int(rng.integers(0, whole.height - 160))
        part = whole.crop((left, top, left + 200, top + 160))
        suffix = ("jpg", "png", "webp")[number // 3 % 3]
        name = "odd name #1 ü?.jpg" if number == 0 else f"part {number:02}.{suffix}"
        part.save(keep(name, LABELS[number % 4], '[{"bbox": [10, 20, 30, 40], "label": "petal"}]' if number == 1 else ""))
    exif = Image.Exif()
    exif[ROTATED[0]] = ROTATED[1]
    pictures[1].resize((240, 160)).save(keep("turned.jpg", "town"), exif=exif)
    pillow_heif.from_pillow(pictures[2].resize((160, 200))).save(keep("phone.heic", "town"))
    clip(keep("clip.mp4", "film"), scenes=2)
    with open(folder / "list.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "list.csv"


def settings(root: str | Path, s3: S3Config | None = None, **sections: Any) -> Config:
    return Config(root=str(root), s3=s3 or S3Config()).replace(dask={"scheduler": "inline", "read_threads": 3}, **sections)


def fill(source: Path, config: Config) -> None:
    """The chain and the version photos@1."""
    with open_workspace(config) as ws:
        run_pipeline([str(source)], ws, curate_default=False)
        curate(parse_spec(SPEC), ws)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("a source"))


@pytest.fixture(scope="session")
def store(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root; only read by most tests."""
    root = tmp_path_factory.mktemp("root") / "store"
    fill(source, settings(root))
    return root


@pytest.fixture
def ws(store: Path) -> Iterator[Workspace]:
    with open_workspace(settings(store)) as here:
        yield here


@pytest.fixture
def own_ws(store: Path, tmp_path: Path) -> Iterator[Workspace]:
    """Of a copy of the store, to be broken."""
    shutil.copytree(store, tmp_path / "own store", ignore=shutil.ignore_patterns("mlflow.db", "mlartifacts"))
    with open_workspace(settings(tmp_path / "own store")) as here:
        yield here


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
