"""Picture bytes become upright RGB on white, or a reason why not."""

import io

import numpy as np
import pytest
from PIL import Image

from discovery.adapters.decode import ORIENTATION_TAG, Undecodable, decode, shrink, thumbnail_webp
from discovery.types import Reason

LIMIT = 10**6
TURNS = {  # how a camera stores an upright picture under each EXIF orientation
    1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
}  # fmt: skip


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def upright() -> Image.Image:
    """30 x 20: red, green, blue and grey quarters, so that every turn shows."""
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:10, :15], pixels[:10, 15:], pixels[10:, :15], pixels[10:, 15:] = (200, 0, 0), (0, 200, 0), (0, 0, 200), (99, 99, 99)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_each_format_gives_its_pixels(kind):
    decoded = decode(encoded(upright(), kind), LIMIT)
    assert (decoded.format, decoded.width_px, decoded.height_px, decoded.pixels.shape) == (kind, 30, 20, (20, 30, 3))
    assert np.abs(decoded.pixels[5, 5].astype(int) - (200, 0, 0)).max() <= 30


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_every_exif_orientation_gives_the_same_upright_picture(orientation, kind):
    turn = TURNS[orientation]
    stored = upright().transpose(turn) if turn is not None else upright()
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    decoded = decode(encoded(stored, kind, exif=exif, **options), LIMIT)
    assert (decoded.width_px, decoded.height_px) == (30, 20)
    assert decoded.orientation == (1 if kind == "TIFF" else orientation)  # Pillow turns a TIFF itself while loading it
    assert (decoded.pixels == np.asarray(upright())).all()


def test_a_draft_jpeg_keeps_its_full_size_in_the_record_also_when_turned():
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    big = upright().resize((1200, 800)).transpose(TURNS[6])
    decoded = decode(encoded(big, "JPEG", exif=exif), LIMIT, at_least_px=100)
    assert (decoded.width_px, decoded.height_px) == (1200, 800) and decoded.image.size == (150, 100)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_shown_on_white(mode):
    clear = Image.new(mode, (4, 4), 0)
    assert (decode(encoded(clear, "PNG"), LIMIT).pixels == 255).all()


def test_half_transparent_black_is_mid_grey():
    assert set(decode(encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 128)), "PNG"), LIMIT).pixels.ravel()) == {127}


def test_a_transparent_palette_colour_is_white_and_the_others_stay():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert decode(encoded(image, "PNG", transparency=0), LIMIT).pixels.tolist() == [[[255, 255, 255], [40, 50, 60]]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_cut(kind):
    values = np.array([[0, 32768, 65535]], np.uint16)
    assert decode(encoded(Image.fromarray(values), kind), LIMIT).pixels[0, :, 0].tolist() == [0, 127, 255]


def test_cmyk_and_single_bits_become_rgb():
    assert decode(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), LIMIT).pixels[4, 4, 0] > 240
    assert (decode(encoded(Image.new("1", (8, 8), 1), "PNG"), LIMIT).pixels == 255).all()


def test_the_first_frame_of_an_animation_counts():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    assert decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), LIMIT).pixels[0, 0].tolist() == [255, 0, 0]


JPEG = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), "JPEG")
PNG = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), "PNG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.EMPTY),
        (b"just some text", Reason.UNSUPPORTED_FORMAT),
        (b"%PDF-1.7 ...", Reason.UNSUPPORTED_FORMAT),
        (JPEG[: len(JPEG) // 2], Reason.TRUNCATED),
        (PNG[: len(PNG) // 2], Reason.TRUNCATED),
        (JPEG[:3] + b"\0" * 100, Reason.CORRUPT),
        (PNG[:4], Reason.CORRUPT),
        (encoded(Image.new("1", (1001, 1000)), "PNG"), Reason.TOO_MANY_PIXELS),
    ],
)
def test_what_is_no_picture_has_a_reason(data, reason):
    with pytest.raises(Undecodable) as caught:
        decode(data, LIMIT)
    assert caught.value.reason is reason and caught.value.detail


def test_a_bomb_is_refused_by_its_declared_size_before_it_is_decoded():
    header = bytearray(PNG)
    header[16:24] = (10**6).to_bytes(4, "big") * 2  # declares 10^12 pixels; Pillow would ask for 3 TB
    with pytest.raises(Undecodable) as caught:
        decode(bytes(header), LIMIT)
    assert caught.value.reason in (Reason.TOO_MANY_PIXELS, Reason.CORRUPT)


@pytest.mark.parametrize("place", range(30, 400, 37))
def test_no_flipped_byte_escapes_as_another_error(place):
    data = bytearray(JPEG)
    data[place] ^= 0xFF
    try:
        outcome = decode(bytes(data), LIMIT).pixels.shape[2]
    except Undecodable as error:
        outcome = error.reason
    assert outcome in (3, Reason.CORRUPT, Reason.TRUNCATED, Reason.TOO_MANY_PIXELS, Reason.UNSUPPORTED_FORMAT)


def test_thumbnails_and_shrunken_pictures_are_never_enlarged():
    with Image.open(io.BytesIO(thumbnail_webp(upright().resize((600, 400)), 256))) as small:
        assert small.size == (256, 171) and small.format == "WEBP"
    with Image.open(io.BytesIO(thumbnail_webp(upright(), 256))) as same:
        assert same.size == (30, 20)
    assert shrink(upright(), 15).size == (15, 10) and shrink(upright(), 99).size == (30, 20)
