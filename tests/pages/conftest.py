"""A small real store, made by the real stages, with hostile file names and two batches."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from discovery.config import Config
from discovery.pipeline import run_pipeline
from discovery.spec import parse_spec
from discovery.workspace import open_workspace

HOSTILE = "<img src=x onerror=document.title='owned'>.png"


@pytest.fixture(scope="package")
def store_config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(8)

    def texture() -> Image.Image:
        return Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8)).resize((160, 120), Image.Resampling.BICUBIC)

    for batch, count in (("first", 100), ("second", 25)):
        (folder / batch).mkdir()
        for number in range(count):
            texture().save(folder / batch / f"{batch}-{number}.png")
    with Image.open(folder / "first" / "first-0.png") as original:
        original.resize((120, 90)).save(folder / "first" / "smaller.png")
    (folder / "first" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    Image.fromarray(rng.integers(0, 2, (120, 160), np.uint8) * 255).convert("RGB").save(folder / "second" / HOSTILE)
    fdr = 0.6  # with 50 calibration rows the lowest p of 26 candidates has q 26 / 51
    config = Config(root=str(tmp_path_factory.mktemp("root") / "store"))
    config = config.replace(dask={"scheduler": "inline"}, novelty={"fdr": fdr}, index={"exact_rows": 110})  # the second batch makes a graph of both
    with open_workspace(config) as ws:
        for batch in ("first", "second"):
            run_pipeline([str(folder / batch)], ws, spec=parse_spec("name: shown\nbudget: 12\n"))
    return config
