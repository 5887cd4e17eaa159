"""The region encoder and what is cut out: sizes, batch mates, encoders that know no places."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from discovery.adapters.cutout import opaque_part
from discovery.adapters.decode import Undecodable
from discovery.adapters.encoders import load_encoder
from discovery.adapters.region_encoder import RegionEncoder, load_region_encoder
from discovery.config import Config
from discovery.core.regions import boxes, windows
from discovery.errors import InvalidInput


def png(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return sink.getvalue()


def picture(seed: int, width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (max(2, height // 40), max(2, width // 40), 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def encoder() -> RegionEncoder:
    return load_region_encoder(Config())


@pytest.mark.parametrize(("size", "grid"), [((600, 400), (9, 14)), ((300, 900), (14, 5)), ((50, 50), (14, 14)), ((2000, 20), (1, 14))])
def test_a_picture_has_a_unit_vector_for_each_window_of_its_grid(encoder, size, grid):
    fitted = encoder.fit(png(picture(1, *size)))
    assert (fitted.rows, fitted.columns) == grid and (fitted.width_px, fitted.height_px) == size
    assert fitted.pixels.shape == (448, 448, 3) and (encoder.spec.cell_px, encoder.spec.dim) == (32, 432)
    (vectors,) = encoder.regions([fitted])
    assert vectors.shape == (len(windows(*grid)), 432) and vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)


def test_the_vectors_of_a_picture_do_not_depend_on_its_batch_mates(encoder):
    fitted = [encoder.fit(png(picture(seed, 300, 200))) for seed in range(encoder.batch_size + 2)]
    together = encoder.regions(fitted)
    assert all((encoder.regions([one])[0] == many).all() for one, many in zip(fitted, together, strict=True))


@pytest.mark.parametrize("number", [0, 3, 24, 30, 48])
def test_the_nearest_window_lies_over_what_was_asked_for(encoder, number):
    whole = picture(3, 672, 672)
    chequers = Image.fromarray(np.kron(np.indices((9, 9)).sum(axis=0) % 2 * 255, np.ones((16, 16))).astype(np.uint8)).convert("RGB")
    y, x = divmod(number, 7)  # of 49 windows of 144 px, 96 px apart
    left, top = min(x * 96, 672 - 144), min(y * 96, 672 - 144)
    whole.paste(chequers, (left, top))
    (vectors,) = encoder.regions([encoder.fit(png(whole))])
    nearest = int((vectors @ encoder.query(png(chequers))).argmax())
    found_left, found_top, *_ = boxes(14, 14, 672, 672)[nearest].tolist()
    assert abs(found_left - left) <= 96 and abs(found_top - top) <= 96


def test_what_does_not_change_regions_does_not_rename_them_and_what_does_renames_them():
    def name(**sections: dict[str, object]) -> str:
        return load_region_encoder(Config().replace(**sections)).spec.region_encoder_id

    assert name() == name(encoder={"pooling": "gem", "views": "flip", "batch_size": 3}) == name(regions={"at_embed": True})
    assert name() != name(regions={"canvas_px": 320})


def test_a_model_of_one_input_size_looks_at_that_size(encoder):
    config = Config().replace(encoder={"name": "vit_tiny_patch16_224", "weights": ""})
    import timm

    from discovery.adapters.encoder_spec import EncoderSpec
    from discovery.adapters.torch_encoder import TorchEncoder

    model = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0)
    mean = (0.5, 0.5, 0.5)
    vit = TorchEncoder(EncoderSpec("vit", "0" * 64, 192, 224, 224, "bicubic", mean, mean), model, config.encoder)
    regions = RegionEncoder(vit, config.regions)
    assert (regions.spec.canvas_px, regions.spec.cell_px, regions.spec.dim, regions.spec.query_px) == (224, 16, 384, ())
    (vectors,) = regions.regions([regions.fit(png(picture(1, 300, 300)))])
    assert vectors.shape == (49, 384)
    assert regions.query(png(picture(2, 90, 60))).shape == (384,)


def test_an_encoder_that_knows_no_places_says_what_to_do():
    class Numbers:
        spec = load_encoder(Config().encoder, Config().s3).spec
        batch_size = 4
        runtime = "none"

    with pytest.raises(InvalidInput, match=r"says nothing of places.*--whole"):
        RegionEncoder(Numbers(), Config().regions)  # type: ignore[arg-type]


def test_what_is_no_picture_is_undecodable(encoder):
    for call in (encoder.fit, encoder.query, lambda data: encoder.query(opaque_part(data))):
        with pytest.raises(Undecodable):
            call(b"no picture")


def test_of_a_disc_the_square_inside_it_is_left():
    disc = picture(5, 100, 100).convert("RGBA")
    mask = Image.new("L", (100, 100))
    ImageDraw.Draw(mask).ellipse((0, 0, 99, 99), fill=255)
    disc.putalpha(mask)
    with Image.open(io.BytesIO(opaque_part(png(disc)))) as left:
        assert left.mode == "RGB" and 66 <= left.width <= 71 and left.width == left.height  # 100 / √2 = 70.7
        corner = round((100 - left.width) / 2)
        assert left.getpixel((0, 0)) == disc.convert("RGB").getpixel((corner, corner))


def test_what_has_nothing_transparent_or_no_opaque_middle_is_left_as_it_is():
    whole = png(picture(6, 40, 30))
    ring = picture(7, 60, 60).convert("RGBA")
    ring.paste((0, 0, 0, 0), (10, 10, 50, 50))
    empty = png(Image.new("RGBA", (5, 5)))
    for data in (whole, png(ring), empty, b"no picture", b""):
        assert opaque_part(data) == data
    framed = Image.new("RGBA", (100, 80))
    framed.paste(picture(8, 50, 40), (25, 30))
    with Image.open(io.BytesIO(opaque_part(png(framed)))) as left:
        assert left.size == (50, 40)
