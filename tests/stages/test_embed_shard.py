"""The embedding pipeline: the vectors of a plain loop, in order, whatever ends first; what is no unit vector is never written."""

import time
from pathlib import Path

import numpy as np
import pytest

from discovery.adapters.encoder_spec import EncoderSpec
from discovery.config import Config, DaskConfig
from discovery.errors import InvalidInput
from discovery.stages.check import check
from discovery.stages.embed import embed
from discovery.stages.embed_shard import encode_assets
from discovery.stages.ingest import ingest
from discovery.workspace import open_workspace


class Numbers:
    """The byte of a "picture", as the direction of a vector; takes as long as it likes."""

    spec = EncoderSpec(
        model="numbers", weights_sha256="0" * 64, dim=2, input_px=1, resize_px=1, interpolation="box",
        mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0),
    )  # fmt: skip
    batch_size = 4

    def __init__(self, runtime: str = "numpy") -> None:
        self.runtime = runtime
        self.batches: list[int] = []

    def preprocess(self, data: bytes) -> np.ndarray:
        time.sleep(data[0] % 3 / 1000)
        return np.full((1, 1, 3), data[0], np.uint8)

    def encode(self, batch: np.ndarray) -> np.ndarray:
        time.sleep(batch.sum() % 5 / 1000)
        self.batches.append(len(batch))
        angle = batch[:, 0, 0, 0].astype(np.float64)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


@pytest.mark.parametrize("runtime", ["numpy", "cuda of nothing"])  # the second has two batches at once
@pytest.mark.parametrize("rows", [1, 3, 4, 5, 12, 13, 97])
def test_the_vectors_are_those_of_a_plain_loop_in_order(runtime, rows):
    data = [bytes([value]) for value in np.random.default_rng(rows).integers(0, 256, rows)]
    encoder = Numbers(runtime)
    vectors, seconds = encode_assets(encoder, lambda row: data[row], rows, DaskConfig(read_threads=3, decode_threads=3))
    angles = np.array([picture[0] for picture in data], np.float64)
    assert np.allclose(vectors, np.stack([np.cos(angles), np.sin(angles)], axis=1), atol=1e-6)
    assert sorted(encoder.batches, reverse=True)[: rows // 4] == [4] * (rows // 4) and sum(encoder.batches) == rows
    assert seconds.encode_s > 0 and seconds.decode_s > 0


def test_an_error_of_the_encoder_ends_the_shard():
    class Broken(Numbers):
        def encode(self, batch: np.ndarray) -> np.ndarray:
            raise InvalidInput("no")

    for runtime in ("numpy", "cuda of nothing"):
        with pytest.raises(InvalidInput, match="no"):
            encode_assets(Broken(runtime), lambda row: b"x", 50, DaskConfig())


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 2.0, 0.0])
def test_a_vector_that_is_no_unit_vector_is_never_written(wrong, tiny_pictures: Path, tmp_path, monkeypatch):
    class Wrong(Numbers):
        def preprocess(self, data: bytes) -> np.ndarray:
            return np.zeros((1, 1, 3), np.uint8)

        def encode(self, batch: np.ndarray) -> np.ndarray:
            return np.tile(np.float32([wrong, 0]), (len(batch), 1))

    encoder = Wrong()
    monkeypatch.setattr("discovery.stages.embed_shard.load_encoder", lambda *arguments: encoder)
    for name in ("encoder_spec", "base_spec"):
        monkeypatch.setattr(f"discovery.stages.embed.{name}", lambda ws: encoder.spec)
    with open_workspace(Config(root=str(tmp_path / "root")), map_shards=map) as ws:
        manifest = ingest([str(tiny_pictures)], ws)
        report = check(manifest, ws)
        with pytest.raises(InvalidInput, match=r"not finite or not of length 1 for 12 of 12 pictures, first [0-9a-f]{12}…"):
            embed(manifest, report, ws)
        assert list(ws.store.committed_keys("embed_shard")) == []
