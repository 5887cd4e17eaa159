"""EXIF to typed columns: right where it is right, null where it is broken, never an exception."""

import io
from dataclasses import asdict
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from discovery import schemas
from discovery.adapters.metadata import METADATA_NAMES, Metadata, read_metadata
from tests.adapters.camera_files import dng, exif, photo

TAKEN = datetime(2026, 5, 1, 18, 30, 59, 250_000)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_each_format_says_the_same(kind):
    said = read_metadata(photo(kind, tags=exif(TAKEN, offset="-03:30", place=(-33.8568, 151.2153))))
    assert said.gps_latitude_deg == pytest.approx(-33.8568, abs=1e-6)
    assert said.gps_longitude_deg == pytest.approx(151.2153, abs=1e-6)
    assert asdict(said) | {"gps_latitude_deg": 0, "gps_longitude_deg": 0} == asdict(
        Metadata(
            taken_at="2026-05-01T18:30:59.250", taken_offset_min=-210, camera_make="Maker", camera_model="Camera 1", lens_model="50mm F1.8",
            exposure_s=1 / 250, f_number=2.8, iso=400, focal_length_mm=50.0, flash_fired=True, gps_latitude_deg=0, gps_longitude_deg=0,
            gps_altitude_m=-12.0, color_profile=None,
        )
    )  # fmt: skip


def test_a_raw_file_says_its_own():
    said = read_metadata(dng(taken="2026:05:01 12:00:00"))
    assert (said.camera_make, said.camera_model, said.taken_at) == ("Maker", "Camera 1", "2026-05-01T12:00:00.000")


def test_the_profile_is_named():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert "sRGB" in str(read_metadata(photo(icc_profile=profile)).color_profile)
    assert read_metadata(photo(icc_profile=b"no profile")).color_profile is None
    assert read_metadata(photo()).color_profile is None


def test_the_columns_are_the_manifests():
    assert tuple(schemas.METADATA.names) == METADATA_NAMES


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("taken_at", "0000:00:00 00:00:00"), ("taken_at", "2026:13:01 00:00:00"), ("taken_at", "    :  :     :  :  "), ("taken_at", "yesterday"),
        ("taken_offset_min", "+25:00"), ("taken_offset_min", "CEST"), ("taken_offset_min", "+0a:00"),
    ],
)  # fmt: skip
def test_nonsense_is_null(name, value):
    tags = exif(TAKEN)
    tags.get_ifd(0x8769)[0x9003 if name == "taken_at" else 0x9011] = value
    said = read_metadata(photo(tags=tags))
    assert getattr(said, name) is None and said.camera_model == "Camera 1"


def test_padding_and_control_characters_go():
    tags = exif(TAKEN, camera="  Camera\x07 2 \0\0rest")
    assert read_metadata(photo(tags=tags)).camera_model == "Camera 2"


def test_zero_by_zero_is_no_place():
    assert read_metadata(photo(tags=exif(TAKEN, place=(0.0, 0.0)))).gps_altitude_m is None


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_exif_never_raises_and_stays_in_range(data):
    block = bytearray(exif(TAKEN, offset="+02:00", place=(10.5, -20.25)).tobytes())
    for place, value in data.draw(st.lists(st.tuples(st.integers(6, len(block) - 1), st.integers(0, 255)), min_size=1, max_size=12)):
        block[place] = value
    sink = io.BytesIO()
    Image.new("RGB", (8, 8)).save(sink, "JPEG", exif=bytes(block))
    said = read_metadata(sink.getvalue())
    assert said.exposure_s is None or 0 < said.exposure_s <= 1e6
    assert said.gps_latitude_deg is None or abs(said.gps_latitude_deg) <= 90
    assert said.gps_longitude_deg is None or abs(said.gps_longitude_deg) <= 180
    assert said.taken_offset_min is None or abs(said.taken_offset_min) <= 14 * 60
    if said.taken_at is not None:
        datetime.fromisoformat(said.taken_at)
    str(said).encode()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"\xff\xd8\xff\xe1", b"IIRO", b"\0\0\0\x18ftypcrx "]))
def test_bytes_of_any_kind_say_nothing(tail, head):
    read_metadata(head + tail)
