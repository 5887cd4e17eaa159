"""Encoders are named by weights and preprocessing, and a vector does not depend on its batch."""

import subprocess
import sys

import numpy as np
import pytest

from discovery.adapters.encoders import encode_pictures, load_encoder, spec_key
from discovery.config import EncoderConfig, S3Config
from discovery.errors import EncoderNotFound

TINY = "test_efficientnet"


@pytest.fixture(scope="module")
def default():
    return load_encoder(EncoderConfig(), S3Config())


@pytest.fixture(scope="module")
def batch(default, tiny_pictures):
    return np.stack([default.preprocess(file.read_bytes()) for file in sorted(tiny_pictures.iterdir())])


def test_the_default_encoder_has_1280_dimensions_and_a_name_with_its_digest(default):
    assert default.spec.dim == 1280 and default.spec.model == "tf_efficientnet_lite0"
    assert default.spec.encoder_id.startswith("tf_efficientnet_lite0@") and len(default.spec.encoder_id.split("@")[1]) == 12


def test_a_vector_is_the_same_bit_for_bit_whatever_shares_its_batch(default, batch):
    together, alone, backwards = default.encode(batch), default.encode(batch[3:4]), default.encode(batch[::-1].copy())
    assert (together[3] == alone[0]).all() and (together == backwards[::-1]).all()


def test_vectors_have_unit_length(default, batch):
    vectors = default.encode(batch)
    assert vectors.dtype == np.float32 and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_no_pictures_give_no_vectors(default):
    assert encode_pictures(default, []).shape == (0, 1280)


def test_an_unknown_name_is_refused_with_near_ones():
    with pytest.raises(EncoderNotFound, match="No encoder named 'resnet5O'"):
        load_encoder(EncoderConfig(name="resnet5O"), S3Config())


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_a_file_that_holds_no_weights_is_refused(name, tmp_path):
    (tmp_path / name).write_bytes(b"no weights at all")
    with pytest.raises(EncoderNotFound, match="cannot be loaded safely"):
        load_encoder(EncoderConfig(name="resnet10t", weights=str(tmp_path / name)), S3Config())


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    import torch

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"x": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(EncoderNotFound, match="cannot be loaded safely"):
        load_encoder(EncoderConfig(name="resnet10t", weights=str(tmp_path / "evil.pt")), S3Config())
    assert not (tmp_path / "ran").exists()


def test_weights_from_a_file_make_an_encoder_of_another_name_and_misfits_are_refused(default, tmp_path):
    import torch
    from safetensors.torch import save_file

    from discovery.adapters.torchvision_compat import import_timm

    timm = import_timm()
    ids = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        save_file(timm.create_model(TINY, pretrained=False).state_dict(), tmp_path / f"{seed}.safetensors")
        encoder = load_encoder(EncoderConfig(name=TINY, weights=str(tmp_path / f"{seed}.safetensors")), S3Config())
        pictures = np.random.default_rng(0).integers(0, 256, (2, encoder.spec.input_px, encoder.spec.input_px, 3), np.uint8)
        assert encoder.encode(pictures).shape == (2, encoder.spec.dim)
        ids.append(encoder.spec.encoder_id)
    assert len({*ids, default.spec.encoder_id}) == 3
    with pytest.raises(EncoderNotFound, match="do not fit resnet10t"):
        load_encoder(EncoderConfig(name="resnet10t", weights=str(tmp_path / "1.safetensors")), S3Config())


def test_what_decides_speed_alone_does_not_name_an_encoder(default):
    fast = EncoderConfig(threads=2, device="cpu", batch_size=8, precision="float32")
    assert load_encoder(fast, S3Config()).spec.encoder_id == default.spec.encoder_id


@pytest.mark.parametrize("setting", [{"pooling": "mean"}, {"pooling": "gem"}, {"views": "flip"}, {"views": "three_crops"}])
def test_what_moves_a_vector_does(default, setting):
    assert load_encoder(EncoderConfig(**setting), S3Config()).spec.encoder_id != default.spec.encoder_id


def test_another_process_knows_the_spec_by_the_same_key() -> None:
    """It held the address of an object, so that no process found what another had remembered, and each loaded the encoder."""
    code = "from discovery.adapters.encoders import spec_key; from discovery.config import EncoderConfig; print(spec_key(EncoderConfig()))"
    keys = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert keys == [f"{spec_key(EncoderConfig())}\n"] * 2 and len(keys[0]) == 65
