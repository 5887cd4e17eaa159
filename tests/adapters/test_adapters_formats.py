"""HEIC, AVIF, camera RAW, and the colour models of pictures: each gives the same upright RGB, or a reason why not."""

import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from discovery.adapters.decode import Undecodable, decode
from discovery.adapters.raw import raw_format
from discovery.types import Reason
from tests.adapters.camera_files import dng, photo, quarters

LIMIT = 10**6
PLACES = {"red": (4, 4), "green": (4, 24), "blue": (16, 4), "grey": (16, 24)}  # of 20 x 30 quarters
COLORS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200), "grey": (99, 99, 99)}


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def assert_quarters(pixels: np.ndarray, tolerance: int) -> None:
    assert pixels.shape == (20, 30, 3)
    for name, place in PLACES.items():
        assert np.abs(pixels[place].astype(int) - COLORS[name]).max() <= tolerance, name


@pytest.mark.parametrize(("kind", "name"), [("HEIF", "HEIC"), ("AVIF", "AVIF")])
def test_phone_formats_decode(kind, name):
    decoded = decode(saved(Image.fromarray(quarters(20, 30)), kind, quality=95), LIMIT)
    assert (decoded.format, decoded.width_px, decoded.height_px) == (name, 30, 20)
    assert_quarters(decoded.pixels, 12)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
@pytest.mark.parametrize(("orientation", "turn"), [(3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_90), (8, Image.Transpose.ROTATE_270)])
def test_phone_formats_are_turned_by_their_own_boxes(kind, orientation, turn):
    tags = Image.Exif()
    tags[0x0112] = orientation
    decoded = decode(saved(Image.fromarray(quarters(20, 30)).transpose(turn), kind, quality=95, exif=tags.tobytes()), LIMIT)
    assert (decoded.width_px, decoded.height_px) == (30, 20)
    assert_quarters(decoded.pixels, 12)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_a_cut_or_garbled_phone_picture_has_a_reason(kind):
    whole = photo(kind, size=(300, 200))
    for data in (whole[: len(whole) // 2], whole[:20], whole[:40] + bytes(len(whole) - 40)):  # damage that a codec conceals cannot be told
        with pytest.raises(Undecodable) as caught:
            decode(data, LIMIT)
        assert caught.value.reason in (Reason.TRUNCATED, Reason.CORRUPT)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_the_pixel_limit_holds_before_decoding(kind):
    with pytest.raises(Undecodable) as caught:
        decode(photo(kind), 120 * 80 - 1)
    assert caught.value.reason is Reason.TOO_MANY_PIXELS


def test_cmyk_palette_and_transparency_give_the_same_colours():
    plain = Image.fromarray(quarters(20, 30))
    assert_quarters(decode(saved(plain.convert("CMYK"), "TIFF"), LIMIT).pixels, 3)
    assert_quarters(decode(saved(plain.convert("CMYK"), "JPEG", quality=98, subsampling=0), LIMIT).pixels, 30)
    assert_quarters(decode(saved(plain.quantize(16), "PNG"), LIMIT).pixels, 3)
    clear = np.dstack([quarters(20, 30), np.full((20, 30), 255, np.uint8)])
    clear[10:, 15:, 3] = 0
    for kind in ("PNG", "WEBP", "TIFF", "AVIF", "HEIF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        pixels = decode(saved(Image.fromarray(clear), kind, **options), LIMIT).pixels
        assert pixels[16, 24].min() >= 250, kind  # what is clear lies on white
        assert np.abs(pixels[4, 4].astype(int) - COLORS["red"]).max() <= 40, kind


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_brightness(kind):
    ramp = np.linspace(0, 65535, 30 * 20).reshape(20, 30).astype(np.uint16)
    pixels = decode(saved(Image.fromarray(ramp), kind), LIMIT).pixels
    assert np.abs(pixels[..., 0].astype(int) - ramp // 257).max() <= 1


def test_sixteen_bits_a_colour():
    sink = io.BytesIO()
    tifffile.imwrite(sink, quarters(20, 30).astype(np.uint16) * 257, photometric="rgb")
    assert_quarters(decode(sink.getvalue(), LIMIT).pixels, 2)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_of_an_animation_the_first_frame_counts(kind):
    frames = [Image.fromarray(quarters(20, 30)), Image.new("RGB", (30, 20), (255, 255, 255))]
    options = {"lossless": True} if kind == "WEBP" else {}
    decoded = decode(saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **options), LIMIT)
    assert_quarters(decoded.pixels, 40)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_dng_is_rendered_upright(orientation):
    decoded = decode(dng(orientation=orientation), LIMIT)
    size = (300, 200) if orientation < 5 else (200, 300)
    assert (decoded.format, decoded.width_px, decoded.height_px, decoded.orientation) == ("DNG", *size, orientation)
    assert decoded.image.size == size
    corner = {1: (0, 0), 3: (-1, -1), 6: (0, -1), 8: (-1, 0)}[orientation]  # where the sensor's first quarter comes to lie
    row, column = (30 if place == 0 else -30 for place in corner)
    red, green, blue = decoded.pixels[row, column].astype(int)
    assert red > 150 and max(green, blue) < red / 2


def test_a_smaller_size_of_a_dng_costs_less_and_looks_the_same():
    whole, half = decode(dng(), LIMIT), decode(dng(), LIMIT, at_least_px=100)
    assert half.image.size == (150, 100) and (half.width_px, half.height_px) == (300, 200)
    shrunk = np.asarray(whole.image.resize((150, 100), Image.Resampling.BOX)).astype(int)
    assert np.abs(shrunk - half.pixels).mean() < 6


def with_preview(raw: bytes, jpeg: bytes, size: tuple[int, int] = (240, 160)) -> bytes:
    """A DNG with a second directory that holds a JPEG, as cameras embed them."""
    at = len(raw) + len(raw) % 2
    first = struct.unpack("<I", raw[4:8])[0]
    entries = struct.unpack("<H", raw[first : first + 2])[0]
    chain = first + 2 + 12 * entries
    directory_at = at + len(jpeg) + len(jpeg) % 2
    width, height = size
    tags = [
        (254, 4, 1, 1), (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 7), (262, 3, 1, 6), (273, 4, 1, at),
        (277, 3, 1, 3), (278, 4, 1, height), (279, 4, 1, len(jpeg)),
    ]  # fmt: skip
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + struct.pack("<I", 0)
    body = raw[:chain] + struct.pack("<I", directory_at) + raw[chain + 4 :]
    return body.ljust(at, b"\0") + jpeg.ljust(directory_at - at, b"\0") + directory


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_cameras_own_preview_is_shown_when_it_is_large(orientation):
    white = saved(Image.new("RGB", (240, 160), (250, 250, 250)), "JPEG")
    decoded = decode(with_preview(dng(orientation=orientation), white), LIMIT)
    assert decoded.image.size == ((240, 160) if orientation == 1 else (160, 240)) and decoded.pixels.min() > 240
    assert (decoded.width_px, decoded.height_px) == ((300, 200) if orientation == 1 else (200, 300))
    small = saved(Image.new("RGB", (60, 40), (250, 250, 250)), "JPEG")
    assert decode(with_preview(dng(), small, (60, 40)), LIMIT).image.size == (300, 200)
    broken = with_preview(dng(), white[:60].ljust(len(white), b"\0"))
    assert decode(broken, LIMIT).image.size == (300, 200)


def test_a_raw_file_is_told_from_a_tiff():
    assert raw_format(dng()) == "DNG"
    assert raw_format(saved(Image.fromarray(quarters(20, 30)), "TIFF")) == ""
    assert [raw_format(head + bytes(64)) for head in (b"IIRO", b"FUJIFILMCCD-RAW", b"II*\0\x10\0\0\0CR", b"\0\0\0\x18ftypcrx ")] == ["RAW"] * 4
    assert raw_format(b"") == raw_format(b"II*\0") == raw_format(photo()) == ""


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.98])
def test_a_cut_raw_file_is_rejected_not_shown_in_part(share):
    whole = dng()
    with pytest.raises(Undecodable) as caught:
        decode(whole[: int(len(whole) * share)], LIMIT)
    assert caught.value.reason in (Reason.TRUNCATED, Reason.CORRUPT, Reason.UNSUPPORTED_FORMAT)


def test_the_pixel_limit_holds_for_raw():
    with pytest.raises(Undecodable) as caught:
        decode(dng(), 300 * 200 - 1)
    assert caught.value.reason is Reason.TOO_MANY_PIXELS
