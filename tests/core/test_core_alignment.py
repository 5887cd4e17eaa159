"""Laying one picture on another: every planted edit is explained and named, pictures that only look alike are not."""

import io
from dataclasses import fields

import numpy as np
import pdqhash
import pytest
from PIL import Image, ImageDraw

from discovery.adapters.planted import EDITS, planted
from discovery.core.agreement import Agreement, band, streak
from discovery.core.alignment import Alignment, Small, align, find_window, one_sided, strokes
from discovery.core.grid import TURNS, WHOLE, Window, turned
from discovery.core.measures import small_luma, small_picture, small_rgb
from discovery.core.relations import geometry, relation_of, transformation
from discovery.core.tones import GAMMAS, Laid, tones_of
from tests.core.pictures import scene

LIMIT = 0.04  # dedupe.max_difference
NAMES = {
    "resize": "resized", "jpeg": "re_encoded", "crop": "cropped", "border": "bordered", "blur": "re_encoded", "grey": "recoloured",
    "gamma": "recoloured", "mirror": "mirrored", "turn": "turned", "caption": "captioned",
}  # fmt: skip


def small(image: Image.Image) -> Small:
    rgb = np.asarray(image.convert("RGB"))
    return Small(small_rgb(small_picture(rgb)), image.width / image.height, np.packbits(pdqhash.compute(rgb)[0]))


def edited(image: Image.Image, name: str, seed: int = 0) -> Image.Image:
    with Image.open(io.BytesIO(planted(image, name, np.random.default_rng(seed)))) as copy:
        return copy.convert("RGB")


def laid(a: Image.Image, b: Image.Image) -> Alignment:
    found = align(small(a), small(b))
    assert found is not None
    return found


def band_of(height: float, width: float) -> Agreement:
    numbers = dict.fromkeys((field.name for field in fields(Agreement)), 0.0)
    return Agreement(**{**numbers, "band_height": height, "band_width": width, "rich_outside": 0.5})


def test_every_edit_has_a_name():
    assert set(NAMES) == set(EDITS)


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_planted_copy_is_explained_and_named_both_ways(name, seed):
    original = scene(seed)
    copy = edited(original, name, seed)
    for a, b in ((original, copy), (copy, original)):
        found = laid(a, b)
        assert found.difference <= LIMIT, (name, found)
        assert found.agreement.rich > 0.2
        assert relation_of(geometry(found), a.size, b.size, False) == NAMES[name]


@pytest.mark.parametrize("seed", range(4, 10))
def test_another_scene_is_not_explained(seed):
    found = align(small(scene(1)), small(scene(seed)))
    assert found is None or found.difference > 0.3


def test_one_object_that_is_elsewhere_is_another_picture():
    first, second = Image.new("RGB", (200, 200), (240, 240, 235)), Image.new("RGB", (200, 200), (240, 240, 235))
    for image, place in ((first, (60, 60)), (second, (110, 90))):
        draw = ImageDraw.Draw(image)
        draw.ellipse((20, 20, 180, 180), fill=(250, 200, 40), outline=(120, 80, 0), width=6)
        draw.ellipse((*place, place[0] + 30, place[1] + 40), fill=(60, 40, 30))
    assert laid(first, second).difference > LIMIT


def test_one_shape_in_two_colours_is_two_pictures_but_its_grey_copy_is_one():
    red, blue = Image.new("RGB", (200, 200), "white"), Image.new("RGB", (200, 200), "white")
    for image, fill in ((red, (225, 40, 50)), (blue, (40, 60, 225))):
        draw = ImageDraw.Draw(image)
        draw.polygon([(100, 20), (180, 90), (150, 180), (50, 180), (20, 90)], fill=fill)
        draw.ellipse((80, 80, 120, 120), fill=tuple(c // 2 for c in fill))
    assert laid(red, blue).difference > LIMIT
    grey = laid(red, edited(red, "grey"))
    assert grey.difference <= 0.001 and grey.agreement.is_grey


@pytest.mark.parametrize("turn", range(8))
def test_the_turn_is_found(turn):
    picture = np.asarray(scene(7, 240, 240))
    found = laid(Image.fromarray(picture), Image.fromarray(np.ascontiguousarray(turned(picture, turn))))
    back = turned(turned(picture, turn), found.turn)  # `turn` brings the second back onto the first
    assert np.array_equal(back, picture) and found.difference < 0.01


@pytest.mark.parametrize(("left", "top", "share"), [(0.0, 0.0, 0.7), (0.2, 0.1, 0.6), (0.41, 0.33, 0.55)])
def test_a_crop_is_found_where_it_was_cut(left, top, share):
    original = scene(3, 600, 400)
    crop = original.crop((round(600 * left), round(400 * top), round(600 * (left + share)), round(400 * (top + share))))
    found = laid(original, crop)
    assert found.direction == "part"
    window = found.window
    assert [window.left, window.top, window.width, window.height] == pytest.approx([left, top, share, share], abs=0.01)


def test_a_crop_of_another_shape_is_found():
    original = scene(5, 600, 400)
    found = laid(original, original.crop((60, 0, 360, 400)))  # 300 x 400 of 600 x 400
    assert found.direction == "part" and found.difference < 0.02
    assert [found.window.left, found.window.width, found.window.height] == pytest.approx([0.1, 0.5, 1.0], abs=0.01)


def test_windows_are_looked_for_at_sizes_that_fit():
    whole, part = small(scene(3)), small(scene(3).crop((0, 0, 224, 168)))  # seven tenths
    window, value = find_window(whole, part)
    assert value > 0.9 and abs(window.width - 0.7) < 0.06 and window.left <= 0.04 and window.top <= 0.04
    assert find_window(Small(whole.rgb, 1.0, whole.pdq), Small(part.rgb, 20.0, part.pdq)) == (find_window(Small(whole.rgb, 1.0, whole.pdq), Small(part.rgb, 20.0, part.pdq))[0], 0.0)


def test_flat_pictures_are_no_evidence():
    black = Image.new("RGB", (100, 100), "black")
    found = align(small(black), small(black))
    assert found is None or found.agreement.rich == 0.0


def test_a_band_holds_nine_tenths_of_the_cells():
    cells = np.zeros((16, 16), bool)
    cells[10:12, 3:9] = True  # 12 cells
    cells[0, 0] = True  # a stray one: 12 of 13 are 92 %
    assert band(cells) == (10, 3, 2, 6)
    assert band(np.zeros((16, 16), bool)) == (0, 0, 0, 0)


def test_one_faint_line_makes_two_pictures_and_compression_does_not():
    one, two = Image.new("RGB", (240, 240), (250, 250, 250)), Image.new("RGB", (240, 240), (250, 250, 250))
    for image in (one, two):
        draw = ImageDraw.Draw(image)
        draw.rectangle((30, 20, 210, 220), fill=(205, 205, 205), outline=(120, 120, 120), width=3)
        draw.rectangle((80, 70, 160, 170), fill=(170, 170, 170), outline=(110, 110, 110), width=3)
    ImageDraw.Draw(two).line((119, 74, 119, 166), fill=(120, 120, 120), width=3)  # a switch of two parts
    found = laid(one, two)
    assert found.agreement.detail < LIMIT and found.agreement.bad == 0  # there is little energy in it
    assert found.agreement.streak > 2.3 and found.difference > LIMIT
    for image in (one, two):
        for name in ("jpeg", "resize", "blur"):
            assert laid(image, edited(image, name)).difference <= LIMIT / 2, name


@pytest.mark.parametrize("turn", [False, True])
def test_a_streak_is_a_line_that_stands_out_and_not_noise_or_a_blurred_edge(turn):
    rng = np.random.default_rng(2)
    noise, plain = rng.normal(0, 3, (32, 32)).astype(np.float32), np.full((32, 32), 200.0, np.float32)
    line, edge = np.zeros((32, 32), np.float32), plain.copy()
    line[8:20, 15] = 6.0
    edge[:, 15:] = 40.0
    if turn:
        line, edge = line.T, edge.T
    assert streak(np.zeros_like(line), plain) == 0
    assert streak(line, plain) == pytest.approx(6.0, abs=0.01)
    assert streak(noise, plain) < 5.0 < streak(noise + 2 * line, plain)
    assert streak(line, edge) < 1.0
    assert streak(np.full_like(line, 9.0), plain) == pytest.approx(0, abs=1e-4)  # all of it is other: that is energy, not a line


@pytest.mark.parametrize("window", [WHOLE, Window(0.2, 0.1, 0.6, 0.7)])
def test_tones_are_taken_of_pixels_not_of_their_means(window):
    rng = np.random.default_rng(1)
    octaves = [rng.uniform(-22, 22, (side, side, 3)).repeat(640 // side, 0).repeat(640 // side, 1) for side in (5, 10, 20, 40, 80, 160)]
    original = np.clip(110 + np.sum(octaves, axis=0), 0, 255)  # as much detail at each scale, as pictures have
    shown = Laid(small_rgb(small_picture(original.astype(np.uint8))), window)
    for number in (0, 10):
        toned = (255 * (original / 255) ** GAMMAS[number]).round().astype(np.uint8)
        truth = Laid(small_rgb(small_picture(toned)), window).seen()
        of_means = np.abs(tones_of(shown.seen())[..., number] - truth).mean()
        assert np.abs(shown.toned()[..., number] - truth).mean() < 0.7 * of_means
    assert np.allclose(shown.toned()[..., 5], shown.seen(), atol=1e-3)  # gamma 1
    assert shown.toned(in_luma=True).shape == (32, 32, 1, 11)


def test_what_is_high_or_hardly_wider_than_high_is_no_line_of_words():
    for height, width, is_line in ((0.19, 0.4, True), (0.25, 0.6, False), (0.19, 0.25, False), (0.06, 0.5, True)):
        assert band_of(height, width).is_line == is_line


def test_letters_have_many_strokes_and_a_hand_one():
    plain = np.full((64, 64), 200.0, np.float32)
    words, hand = plain.copy(), plain.copy()
    words[30:38, 8:56:6] = 20.0  # 8 strokes
    hand[30:38, 8:40] = 20.0
    assert strokes(plain, words) == 8.0 and strokes(plain, hand) == 1.0


def test_words_are_on_one_side_and_objects_on_both():
    shade = np.tile(np.linspace(80, 180, 64, dtype=np.float32), (64, 1))
    words, here, there = shade.copy(), shade.copy(), shade.copy()
    words[30:36, 8:56:4] = 250.0
    here[30:36, 10:24], there[30:36, 34:48] = 250.0, 250.0
    assert one_sided(shade, words) < 0.1 and one_sided(words, shade) < 0.1
    assert one_sided(here, there) > 0.6  # at which such marks are words only when they are very thin (CAPTIONS)
    assert one_sided(shade, shade) == 1.0


def test_a_grey_picture_with_other_tones_is_not_the_coloured_one():
    red, dark = Image.new("RGB", (200, 200), "white"), Image.new("RGB", (200, 200), "white")
    ImageDraw.Draw(red).ellipse((40, 40, 160, 160), fill=(220, 40, 50))  # luma 95
    ImageDraw.Draw(dark).ellipse((40, 40, 160, 160), fill=(30, 30, 30))
    assert laid(red, dark).difference == 1.0
    assert laid(red, edited(red, "grey")).difference <= 0.001


@pytest.mark.parametrize("tone", [lambda x: 0.4 * x + 80, lambda x: 255 * (x / 255) ** 3])
def test_tones_that_nobody_makes_explain_nothing(tone):
    original = scene(2)
    found = laid(original, Image.fromarray(tone(np.asarray(original, np.float32)).astype(np.uint8)))
    assert found.is_far_fetched and found.difference == 1.0 and not found.is_captioned


def test_what_is_stored_of_a_picture_shows_it():
    picture = np.asarray(scene(1, 64, 64))
    stored = small_picture(picture)
    assert stored.shape == (12288,) and stored.dtype == np.uint8
    assert np.array_equal(small_rgb(stored), picture)
    luma = picture.astype(np.float64) @ [0.299, 0.587, 0.114]
    assert np.abs(small_luma(stored).reshape(16, 16) - luma.reshape(16, 4, 16, 4).mean(axis=(1, 3))).max() <= 1.0


def test_transformations_are_told_from_either_side():
    seen = geometry(laid(scene(2), edited(scene(2), "turn")))
    assert seen.turn in TURNS
    there, back = (transformation(seen, (320, 240), (240, 320), from_b=way) for way in (False, True))
    assert {there.split(",")[0], back.split(",")[0]} == {"turned to the left", "turned to the right"}
    assert there.endswith("320 x 240 to 240 x 320") and back.endswith("240 x 320 to 320 x 240")
    crop = geometry(laid(scene(2), edited(scene(2), "crop", 1)))
    assert transformation(crop, (320, 240), (226, 170)).startswith("cropped to 71% x 71% at ")
    assert transformation(crop, (320, 240), (226, 170), from_b=True).startswith("shows more around 71% x 71% at ")
    border = geometry(laid(scene(2), edited(scene(2), "border", 1)))
    assert transformation(border, (320, 240), (376, 296)).startswith("border around 85% x 81% at ")
