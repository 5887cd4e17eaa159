"""Pictures that are written anew are upright, on white and 8 bits of RGB; only what is so already stays as it is."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from discovery.adapters.decode import decode
from discovery.adapters.reencode import reencode
from discovery.core.export_plan import Form

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def written(image: Image.Image, form: str, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, form, **options)  # type: ignore[arg-type]
    return sink.getvalue()


def palette() -> Image.Image:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    return image


def deep() -> bytes:
    """A PNG of 16 bits of RGB, which Pillow reads as RGB of 8, and does not write."""
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + struct.pack(">3H", 0x1234, 0x8000, 0xFFFF) * 8 for _ in range(8))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "form", "pixel"),
    [
        (written(Image.new("RGBA", (8, 8), (255, 0, 0, 0)), "PNG"), "png", (255, 255, 255)),
        (written(palette(), "PNG", transparency=0), "png", (255, 255, 255)),
        (written(palette(), "PNG"), "png", (255, 0, 0)),
        (written(Image.new("RGB", (8, 8), (9, 9, 9)), "PNG", transparency=(9, 9, 9)), "png", (255, 255, 255)),
        (written(Image.fromarray(np.full((8, 8), 0xFFFF, np.uint16)), "PNG"), "png", (255, 255, 255)),
        (written(Image.new("L", (8, 8), 128), "PNG"), "png", (128, 128, 128)),
        (deep(), "png", None),
        (written(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG"), "jpeg", (255, 255, 255)),
        (written(Image.new("L", (8, 8), 128), "JPEG"), "jpeg", (128, 128, 128)),
    ],
    ids=["transparent", "transparent palette", "palette", "transparent colour", "16 bits of grey", "grey", "16 bits of RGB", "CMYK", "grey JPEG"],
)  # fmt: skip
def test_what_is_not_8_bits_of_opaque_rgb_is_written_anew(data: bytes, form: Form, pixel: tuple[int, int, int] | None) -> None:
    made = reencode(data, form)
    assert made != data and (form != "png" or made[24] == 8)
    with Image.open(io.BytesIO(made)) as image:
        assert (image.format, image.mode, image.info.get("transparency")) == (form.upper(), "RGB", None)
        assert pixel is None or image.getpixel((4, 4)) == pixel
    assert reencode(made, form) == made


@pytest.mark.parametrize("form", ["png", "jpeg"])
def test_what_is_so_already_stays_to_the_byte(form: Form) -> None:
    data = written(Image.new("RGB", (8, 8), (1, 2, 3)), form.upper(), icc_profile=PROFILE)
    assert reencode(data, form) == data


@pytest.mark.parametrize("mode", ["RGBA", "RGB"])
def test_the_colour_profile_stays_when_transparency_goes(mode: str) -> None:
    data = written(Image.new(mode, (8, 8), (1, 2, 3, 100)[: len(mode)]), "WEBP", icc_profile=PROFILE, lossless=True)
    assert decode(data, max_pixels=64).image.info["icc_profile"] == PROFILE
    with Image.open(io.BytesIO(reencode(data, "png"))) as image:
        assert image.info["icc_profile"] == PROFILE
