"""Encoders with a text tower: a small CLIP of random weights gives open_clip's own vectors, of pictures and of words."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from discovery.adapters.encoder_spec import TextEncoder
from discovery.adapters.encoders import encode_pictures, load_encoder
from discovery.adapters.torchvision_compat import import_timm
from discovery.config import EncoderConfig, S3Config
from discovery.errors import ConfigError, EncoderNotFound, InvalidInput

SMALL = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}


def make_clip(folder: Path, resize_mode: str = "shortest") -> Path:
    """A folder as a hub would give it: configuration and weights. Its tokenizer is the one that open_clip carries."""
    import torch
    from safetensors.torch import save_file

    import_timm()
    import open_clip

    folder.mkdir()
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bicubic", "resize_mode": resize_mode}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": SMALL, "preprocess_cfg": preprocess}))
    torch.manual_seed(8)
    model = open_clip.CLIP(**{**SMALL, "vision_cfg": open_clip.CLIPVisionCfg(**SMALL["vision_cfg"]), "text_cfg": open_clip.CLIPTextCfg(**SMALL["text_cfg"])})
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "small")


@pytest.fixture(scope="module")
def encoder(folder):
    return load_encoder(EncoderConfig(name=f"open_clip:local-dir:{folder}", precision="float32", batch_size=4), S3Config())


def peer(folder: Path):
    """open_clip's own model, transform and tokenizer."""
    import_timm()
    import open_clip

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return model.eval(), transform, open_clip.get_tokenizer(f"local-dir:{folder}")


def test_pictures_and_words_have_the_vectors_that_open_clip_gives(encoder, folder, tiny_pictures):
    import torch

    model, transform, tokenizer = peer(folder)
    files = sorted(tiny_pictures.iterdir())
    words = ["a dog on a beach", "snow"]
    with torch.inference_mode():
        pictures = model.encode_image(torch.stack([transform(Image.open(file)) for file in files]), normalize=True).numpy()
        texts = model.encode_text(tokenizer(words), normalize=True).numpy()
    assert isinstance(encoder, TextEncoder) and encoder.spec.dim == 24
    ours = encode_pictures(encoder, [file.read_bytes() for file in files])
    assert (ours * pictures).sum(axis=1).min() > 1 - 1e-5  # theirs are resized by Pillow: single pixels differ by a level or two
    assert encoder.encode_texts(words) == pytest.approx(texts, abs=1e-5)


def test_squashed_pictures_are_seen_whole(tmp_path, tiny_pictures):
    folder = make_clip(tmp_path / "squash", "squash")
    squash = load_encoder(EncoderConfig(name=f"open_clip:local-dir:{folder}", precision="float32"), S3Config())
    assert squash.spec.fit == "squash"
    ramp = np.broadcast_to(np.linspace(0, 255, 128).astype(np.uint8), (32, 128))
    from discovery.adapters.encoder_spec import crop_views

    seen = crop_views(Image.fromarray(np.ascontiguousarray(ramp)).convert("RGB"), squash.spec)
    assert seen.shape == (32, 32, 3) and seen.min() < 8 and seen.max() > 247
    with pytest.raises(ConfigError, match="sees whole pictures"):
        load_encoder(EncoderConfig(name=f"open_clip:local-dir:{folder}", views="three_crops"), S3Config())


def test_weights_may_come_from_a_file_and_name_the_encoder(encoder, folder, tmp_path):
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "open_clip_model.safetensors")
    save_file({name: value + 0.01 for name, value in state.items()}, tmp_path / "other.safetensors")
    other = load_encoder(EncoderConfig(name=encoder_name(folder), weights=str(tmp_path / "other.safetensors")), S3Config())
    assert other.spec.encoder_id != encoder.spec.encoder_id and other.spec.model == encoder.spec.model == "open_clip:local"
    save_file({"x": state["logit_scale"]}, tmp_path / "wrong.safetensors")
    with pytest.raises(EncoderNotFound, match="do not fit"):
        load_encoder(EncoderConfig(name=encoder_name(folder), weights=str(tmp_path / "wrong.safetensors")), S3Config())


def encoder_name(folder: Path) -> str:
    return f"open_clip:local-dir:{folder}"


def test_what_is_not_there_is_said(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for settings, text in (
        ({"name": "open_clip:ViT-B-33"}, "open_clip has no model 'ViT-B-33'"),
        ({"name": "open_clip:ViT-B-32"}, "has no weights"),
        ({"name": f"open_clip:local-dir:{tmp_path}"}, "could not be made"),
        ({"name": "open_clip:RN50/openai-of-nobody"}, "could not be made"),
    ):
        with pytest.raises(EncoderNotFound, match=text):
            load_encoder(EncoderConfig(**settings), S3Config())
    with pytest.raises(ConfigError, match="Use 'model'"):
        load_encoder(EncoderConfig(name=encoder_name(folder), pooling="mean"), S3Config())


def test_an_empty_text_is_refused(encoder):
    with pytest.raises(InvalidInput, match="empty text"):
        encoder.encode_texts(["a dog", " "])
    assert not isinstance(load_encoder(EncoderConfig(), S3Config()), TextEncoder)
