"""The timm encoder: faster arithmetic only where the vectors stay, less memory instead of death, pooling and views as they say."""

import numpy as np
import pytest
from PIL import Image

from discovery.adapters.encoder_spec import crop_views, resize
from discovery.adapters.encoders import load_encoder
from discovery.adapters.torch_encoder import PROBE_COSINE_DISTANCE, TorchEncoder
from discovery.adapters.torchvision_compat import import_timm
from discovery.config import EncoderConfig, S3Config
from discovery.core.probe_pictures import PROBES, probe_pictures
from discovery.errors import ConfigError, EncoderNotFound, InvalidInput


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """name → a weights file with random values, of a small timm model."""
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("weights")

    def make(name: str, classes: int = 10) -> str:
        path = folder / f"{name}-{classes}.safetensors"
        if not path.exists():
            torch.manual_seed(4)
            save_file(import_timm().create_model(name, pretrained=False, num_classes=classes).state_dict(), path)
        return str(path)

    return make


def encoder_of(weights, name: str, **settings: object) -> TorchEncoder:
    return load_encoder(EncoderConfig(name=name, weights=weights(name), **settings), S3Config())


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos"])
def test_pictures_are_resized_as_pillow_does_within_a_level_or_two(interpolation):
    rng = np.random.default_rng(5)
    for width, height, to_width, to_height in ((500, 375, 341, 256), (90, 60, 384, 256), (1301, 257, 1295, 256), (3000, 40, 19_200, 256)):
        pixels = np.concatenate([rng.integers(0, 256, (height // 2, width, 3)), np.full((height - height // 2, width, 3), 255)])
        image = Image.fromarray(pixels.astype(np.uint8))
        theirs = np.asarray(image.resize((to_width, to_height), Image.Resampling[interpolation.upper()])).astype(int)
        difference = np.abs(resize(image, to_width, to_height, interpolation) - theirs)
        assert difference.max() <= 2 and difference.mean() < 0.01
        assert interpolation != "lanczos" or not difference.any()


def test_the_probe_pictures_are_ten_different_ones_and_the_same_everywhere():
    pictures = probe_pictures(64)
    assert pictures.shape == (10, 64, 64, 3) == (len(PROBES), 64, 64, 3)
    assert len({picture.tobytes() for picture in pictures}) == 10
    means = [round(float(picture.mean()), 1) for picture in pictures]
    assert means == pytest.approx([10, 147, 127.5, 246, 7, 127.5, 127.5, 127.5, 170, 181], abs=30)


def test_bfloat16_moves_the_default_encoders_vectors_too_far_and_is_refused():
    with pytest.raises(ConfigError, match=r"bfloat16' moves a vector of tf_efficientnet_lite0 by a cosine distance of"):
        load_encoder(EncoderConfig(precision="bfloat16"), S3Config())


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_a_precision_that_is_used_keeps_the_vectors(weights, precision):
    exact = encoder_of(weights, "test_vit", precision="float32", device="cpu")
    fast = encoder_of(weights, "test_vit", precision=precision, device="cpu", batch_size=8)
    pictures = probe_pictures(exact.spec.input_px)
    assert (exact.encode(pictures) * fast.encode(pictures)).sum(axis=1).min() >= 1 - PROBE_COSINE_DISTANCE
    assert fast.spec.encoder_id == exact.spec.encoder_id
    assert exact.runtime == "cpu float32 batch 16"


def test_features_that_overflow_a_short_type_are_computed_again_in_float32(weights, monkeypatch):
    import torch

    encoder = encoder_of(weights, "test_vit", precision="float32", device="cpu", batch_size=2)
    pictures = probe_pictures(encoder.spec.input_px)[:2]
    expected = encoder.encode(pictures)
    plain = TorchEncoder._vectors

    def overflowing(self, batch, model, dtype):
        vectors = plain(self, batch, self._float32_model, torch.float32)
        return vectors if dtype == torch.float32 else np.full_like(vectors, np.inf)

    monkeypatch.setattr(TorchEncoder, "_vectors", overflowing)
    monkeypatch.setattr(encoder, "dtype", torch.float16)
    monkeypatch.setattr(encoder, "model", object())
    assert (encoder.encode(pictures) == expected).all()


def test_out_of_memory_halves_the_batch_until_it_fits(weights, monkeypatch):
    import torch

    encoder = TorchEncoder(
        (made := encoder_of(weights, "test_efficientnet", precision="float32")).spec, made.model, EncoderConfig(batch_size=16, precision="float32")
    )
    pictures = np.random.default_rng(5).integers(0, 256, (21, *encoder.spec.shape), np.uint8)
    expected = encoder.encode(pictures)
    plain, sizes = TorchEncoder._vectors, []

    def small_memory(self, batch, model, dtype):
        sizes.append(len(batch))
        if len(batch) > room:
            raise torch.OutOfMemoryError("simulated")
        return plain(self, batch, model, dtype)

    monkeypatch.setattr(TorchEncoder, "_vectors", small_memory)
    room = 5
    vectors = encoder.encode(pictures)
    assert np.allclose(vectors, expected, atol=1e-5) and sizes == [16, 8, 4, 4, 4, 4, 4, 4] and encoder.batch_size == 4
    room = 0
    with pytest.raises(InvalidInput, match="One picture does not fit the memory"):
        encoder.encode(pictures)


def test_pictures_of_another_shape_or_type_are_refused(weights):
    encoder = encoder_of(weights, "test_efficientnet")
    for pictures in (np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, *encoder.spec.shape), np.float32)):
        with pytest.raises(InvalidInput, match="Expected uint8 pictures of shape"):
            encoder.encode(pictures)


def test_weights_fit_whatever_classifier_they_were_trained_with(weights):
    ids = set()
    for classes in (10, 3, 0):
        config = EncoderConfig(name="test_efficientnet", weights=weights("test_efficientnet", classes))
        ids.add(load_encoder(config, S3Config()).spec.encoder_id)
    assert len(ids) == 3


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet", "test_convnext", "swin_tiny_patch4_window7_224"])
def test_poolings_are_what_they_say_of_the_features_of_places(weights, name):
    import torch

    made = {pooling: encoder_of(weights, name, pooling=pooling, precision="float32", batch_size=2) for pooling in ("model", "mean", "gem")}
    pictures = probe_pictures(made["model"].spec.input_px)[-2:]
    spec = made["model"].spec
    x = (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255 - torch.tensor(spec.mean).view(3, 1, 1)) / torch.tensor(spec.std).view(3, 1, 1)
    with torch.inference_mode():
        features = made["model"].model.forward_features(x).numpy()
    if name == "test_vit":
        places = features[:, 1:]  # behind the CLS token
    elif name == "swin_tiny_patch4_window7_224":
        places = features.reshape(2, -1, features.shape[-1])
    else:
        places = features.transpose(0, 2, 3, 1).reshape(2, -1, features.shape[1])
    for pooling, expected in (("mean", places.mean(1)), ("gem", (np.maximum(places, 1e-6) ** 3).mean(1) ** (1 / 3))):
        unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
        assert np.allclose(made[pooling].encode(pictures), unit, atol=2e-5), pooling
    assert len({encoder.spec.encoder_id for encoder in made.values()}) == 3


def test_cls_is_the_first_token_and_refused_where_there_is_none(weights):
    encoder = encoder_of(weights, "test_vit", pooling="cls", precision="float32")
    assert encoder.encode(probe_pictures(encoder.spec.input_px)).shape == (10, encoder.spec.dim)
    with pytest.raises(EncoderNotFound, match="has no CLS token"):
        encoder_of(weights, "test_efficientnet", pooling="cls")


def test_with_flip_a_picture_and_its_mirror_image_have_one_vector(weights):
    encoder = encoder_of(weights, "test_efficientnet", views="flip", precision="float32", batch_size=4)
    plain = encoder_of(weights, "test_efficientnet", precision="float32", batch_size=4)
    pictures = probe_pictures(encoder.spec.input_px)[:4]
    mirrored = np.ascontiguousarray(pictures[:, :, ::-1])
    assert np.allclose(encoder.encode(pictures), encoder.encode(mirrored), atol=1e-6)
    mean = plain.encode(pictures) + plain.encode(mirrored)
    assert np.allclose(encoder.encode(pictures), mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("size", [(300, 100), (100, 300)])
def test_three_crops_see_both_ends_of_a_long_picture(weights, size):
    encoder = encoder_of(weights, "test_efficientnet", views="three_crops_flip", precision="float32", batch_size=2)
    ramp = np.linspace(0, 255, 300).astype(np.uint8)
    pixels = np.broadcast_to(ramp[:, None], (300, 100)) if size[1] > size[0] else np.broadcast_to(ramp, (100, 300))
    crops = crop_views(Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB"), encoder.spec)
    assert crops.shape == encoder.spec.shape == (3, encoder.spec.input_px, encoder.spec.input_px, 3)
    assert crops[0].min() < 5 and crops[2].max() > 250 and 100 < crops[1].mean() < 155
    assert encoder.encode(crops[np.newaxis]).shape == (1, encoder.spec.dim)
