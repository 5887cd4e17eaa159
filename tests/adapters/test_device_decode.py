"""Decoding on a device: whole pictures squared by torch, upright as Pillow turns them, and only by a decoder that keeps the vectors.

There is no GPU in the tests: Pillow stands behind the function that nvJPEG would be, so that all but nvJPEG itself is what runs.
"""

import io
import threading

import numpy as np
import pytest
from PIL import Image, ImageOps

from discovery.adapters import torch_encoder
from discovery.adapters.decode import ORIENTATION_TAG, Undecodable
from discovery.adapters.device_decode import DeviceDecoder, upright
from discovery.adapters.encoders import encode_pictures, load_encoder
from discovery.adapters.together import Together
from discovery.adapters.torch_encoder import MAX_COSINE_DISTANCE
from discovery.config import EncoderConfig, S3Config
from discovery.core.probe_pictures import probe_pictures
from discovery.errors import ConfigError


def saved(image: Image.Image, form: str = "JPEG", orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    sink = io.BytesIO()
    image.save(sink, form, exif=exif, **({"quality": 95} if form == "JPEG" else {}))
    return sink.getvalue()


def as_it_lies(data: bytes):
    import torch

    with Image.open(io.BytesIO(data)) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


@pytest.fixture(scope="module")
def spec():
    return load_encoder(EncoderConfig(decoder="nvjpeg", precision="float32"), S3Config()).spec


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(probe_pictures(400)[1][:300])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_pillow_turns_them(orientation):
    data = saved(Image.fromarray(np.random.default_rng(1).integers(0, 256, (2, 3, 3), np.uint8)), "PNG", orientation)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert (upright(as_it_lies(data), orientation).permute(1, 2, 0).numpy() == expected).all()


def test_jpegs_go_to_the_device_and_all_else_to_pillow(spec, picture):
    decoder, seen = DeviceDecoder(spec), []
    files = {
        "jpeg": saved(picture), "turned": saved(picture, orientation=6), "grey": saved(picture.convert("L")),
        "cmyk": saved(picture.convert("CMYK")), "png": saved(picture, "PNG"),
    }  # fmt: skip
    by_pillow = {name: decoder.views(data) for name, data in files.items()}

    def decode_jpegs(group):
        seen.extend(group)
        return [as_it_lies(data) for data in group]

    decoder.use_nvjpeg(decode_jpegs)
    for name, data in files.items():
        assert (decoder.views(data) == by_pillow[name]).all(), name
    assert seen == [files["jpeg"], files["turned"], files["grey"]]
    with pytest.raises(Undecodable):
        decoder.views(files["jpeg"][:300])


def test_what_the_device_refuses_is_decoded_by_pillow(spec, picture):
    decoder = DeviceDecoder(spec)
    expected = decoder.views(saved(picture))

    def refuse(group):
        raise RuntimeError("nvjpegDecodeBatched failed")

    decoder.use_nvjpeg(refuse)
    assert (decoder.views(saved(picture)) == expected).all()


def test_the_vectors_are_near_those_of_pictures_that_pillow_resizes(picture):
    """Of a PNG, which both decode whole: a grey level here and there moves a smooth picture by 1e-3. So it is another encoder."""
    plain, whole = (load_encoder(EncoderConfig(decoder=name, precision="float32"), S3Config()) for name in ("pillow", "nvjpeg"))
    assert plain.spec.encoder_id != whole.spec.encoder_id
    data = [saved(picture, "PNG")]
    assert 1 - (encode_pictures(plain, data) * encode_pictures(whole, data)).sum() < 5 * MAX_COSINE_DISTANCE


def test_a_device_is_used_only_if_its_pictures_have_the_vectors_of_pillows(monkeypatch):
    def right(group):
        return [as_it_lies(data) for data in group]

    def wrong(group):
        return [as_it_lies(data).flip(0) for data in group]  # blue and red exchanged

    for number, (decode_jpegs, runtime) in enumerate([(right, "cpu float32 batch 16 nvjpeg"), (wrong, "cpu float32 batch 16"), (None, "cpu float32 batch 16")]):
        monkeypatch.setattr(torch_encoder, "nvjpeg", lambda device, chosen=decode_jpegs: chosen)
        load_encoder.cache_clear()
        made = load_encoder(EncoderConfig(decoder="nvjpeg", precision="float32", device="cpu", threads=number % 2 + 1), S3Config())
        assert made.runtime == runtime
    load_encoder.cache_clear()


def test_a_filter_that_torch_has_not_is_refused(spec):
    import dataclasses

    for change in ({"interpolation": "lanczos"}, {"fit": "border"}):
        with pytest.raises(ConfigError, match="which torch does not"):
            DeviceDecoder(dataclasses.replace(spec, **change))


def test_calls_of_many_threads_are_done_together_and_an_error_costs_its_own():
    groups: list[int] = []
    gate = threading.Event()

    def work(items):
        gate.wait(10)
        groups.append(len(items))
        if 13 in items:
            raise ValueError("13")
        return [2 * item for item in items]

    together = Together(work, most=8)
    results: dict[int, object] = {}

    def call(item: int) -> None:
        try:
            results[item] = together(item)
        except ValueError as error:
            results[item] = str(error)

    threads = [threading.Thread(target=call, args=(item,)) for item in range(30)]
    for thread in threads:
        thread.start()
    while len(together._waiting) < 29:  # one has the turn, or waits to take it
        pass
    gate.set()
    for thread in threads:
        thread.join()
    assert results == {item: "13" if item == 13 else 2 * item for item in range(30)}
    assert max(groups) == 8 and sum(groups) >= 30 and len(groups) < 20
