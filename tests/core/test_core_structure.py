"""Measures of structure on pictures whose answer is known because it was drawn into them."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from discovery.core.measures import MEASURES, measure_image
from discovery.core.picture import cut_tiles, whole_picture


def scene(seed: int = 0, side: int = 512) -> np.ndarray:
    """A picture with edges of all sizes and colours, smooth ground between them, and no two neighbours exactly alike: patches under slow shading."""
    rng = np.random.default_rng(seed)
    picture = np.full((side, side, 3), 128.0)
    for size in (160, 80, 40, 40, 20, 20, 20, 10, 10, 10) * 3:
        top, left = rng.integers(0, side - size, 2)
        picture[top : top + size, left : left + size] = rng.integers(30, 226, 3)
    shade = 12 * np.sin(np.arange(side) / 37.0)
    return gaussian_filter(picture + shade[:, None, None] + shade[None, :, None], (0.6, 0.6, 0))


def as_pixels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def measured(name: str, values: np.ndarray) -> float:
    return MEASURES[name](whole_picture(as_pixels(values)))


def through_jpeg(values: np.ndarray, quality: int) -> np.ndarray:
    sink = io.BytesIO()
    Image.fromarray(as_pixels(values)).save(sink, "JPEG", quality=quality)
    return np.asarray(Image.open(sink).convert("RGB"))


def test_more_blur_is_more_blurred_up_to_the_width_of_the_second_blur():
    values = [measured("blur", gaussian_filter(scene(), (sigma, sigma, 0))) for sigma in (0, 1, 2, 4)]
    assert values == sorted(values) and values[0] < 0.35 and values[-1] > 0.8
    assert measured("blur", gaussian_filter(scene(), (8, 8, 0))) > 0.75  # rounding to 255 levels leaves steps; it levels off


def test_blur_does_not_depend_on_contrast_as_the_laplacian_does():
    low = 128 + (scene() - 128) / 4  # a quarter of the contrast: the variance of the Laplacian falls by 16
    assert measured("blur", low) == pytest.approx(measured("blur", scene()), abs=0.05)
    assert measured("sharpness", low) < measured("sharpness", scene()) / 10


def test_a_picture_shaken_in_one_direction_is_blurred():
    assert measured("blur", gaussian_filter(scene(), (0, 4, 0))) > measured("blur", scene()) + 0.3


@pytest.mark.parametrize("sigma", [5, 10, 20])
def test_noise_of_known_sigma_is_measured_low_by_at_most_a_quarter(sigma):
    grain = np.random.default_rng(1).normal(0, sigma, (512, 512, 1))  # the same in all channels, so that luma has it in full
    assert 0.75 * sigma < measured("noise", scene() + grain) < 1.05 * sigma
    assert measured("noise", 128 + 0 * scene() + grain) == pytest.approx(0.87 * sigma, rel=0.08)


def test_a_clean_picture_has_next_to_no_noise():
    assert measured("noise", scene()) < 0.5 and measured("colour_noise", scene()) < 0.3


def test_grain_that_is_the_same_in_all_channels_is_no_colour_noise():
    rng = np.random.default_rng(2)
    assert measured("colour_noise", scene() + rng.normal(0, 10, (512, 512, 1))) < 0.5
    assert measured("colour_noise", scene() + rng.normal(0, 10, (512, 512, 3))) > 3  # 10 * √2 of two channels, halved by means of 4, a quarter low


def test_noise_is_that_of_the_original_not_of_the_shrunk_picture():
    noisy = as_pixels(128 + np.random.default_rng(3).normal(0, 12, (2048, 2048, 1)) + np.zeros(3))
    shrunk = np.asarray(Image.fromarray(noisy).reduce(4))  # means of 16: sigma 12 becomes 3
    assert measure_image(shrunk, cut_tiles(noisy))["noise"] == pytest.approx(0.87 * 12, rel=0.08)
    assert measure_image(shrunk)["noise"] == pytest.approx(0.87 * 3, rel=0.1)


def test_blocks_show_from_middling_qualities_of_jpeg_on():
    grain = np.random.default_rng(4).normal(0, 6, (512, 512, 3))
    fine, usual, fair, poor, worst = (measured("blockiness", through_jpeg(scene() + grain, quality)) for quality in (95, 75, 50, 20, 10))
    assert fine < 0.05 < usual < fair < poor and worst > 0.3  # at 10 whole blocks are flat, and the steps within the scene weigh more


def test_blocks_are_found_wherever_their_grid_begins():
    blocky = through_jpeg(scene() + np.random.default_rng(5).normal(0, 3, (512, 512, 3)), 10)
    assert measured("blockiness", blocky[3:, 5:]) == pytest.approx(measured("blockiness", blocky), rel=0.25)


@pytest.mark.parametrize("tone", [0, 128, 255])
def test_bars_of_a_tenth_are_a_border_of_a_tenth(tone):
    # 23 rows above and below 466 of picture: 46 / 512 = .09; the scene's own tones differ from the bars along most of the edge
    framed = np.full((512, 512, 3), float(tone))
    framed[23:-23] = (scene()[23:-23] - 128) * 0.5 + (60 if tone == 128 else 128)
    assert measured("border", framed) == pytest.approx(46 / 512, abs=0.003)


def test_a_frame_counts_on_all_four_sides():
    framed = np.full((512, 512, 3), 255.0)
    framed[32:-32, 32:-32] = scene()[32:-32, 32:-32] * 0.6
    assert measured("border", framed) == pytest.approx(1 - (448 / 512) ** 2)  # what is left is 448 x 448


def test_a_thing_before_a_plain_wall_has_no_border():
    wall = np.full((512, 512, 3), 255.0)
    y, x = np.indices((512, 512)) - 256
    wall[x**2 + y**2 < 150**2] = 40  # a disc: behind the last plain row there is one point of it
    assert measured("border", wall) == 0.0


def test_drawn_windows_have_full_steps_between_flat_areas_and_scenes_have_not():
    window = np.full((512, 512, 3), 240.0)
    for row in range(40, 480, 24):
        window[row : row + 12, 40 : 40 + row] = (20, 20, 90)  # lines of a text
    assert measured("edge_step", window) > 0.9 and measured("drawn_edges", window) > 0.9 and measured("flatness", window) > 0.8
    photo = scene() + np.random.default_rng(6).normal(0, 2, (512, 512, 3))
    assert measured("drawn_edges", photo) == 0.0 and measured("flatness", photo) < 0.01


def test_a_page_with_a_word_on_it_shows_something_in_one_hundredth():
    page = np.full((512, 512, 3), 250.0)
    page[240:272, 160:320:4] = 0  # stripes over 32 x 160 px: 2 x 10 of the 32 x 32 squares
    assert measured("detail", page) == pytest.approx(20 / 1024)


def test_tiles_begin_on_the_grid_and_reach_both_ends():
    rows = np.arange(1000, dtype=np.uint16)
    picture = np.stack([np.broadcast_to((rows % 256).astype(np.uint8)[:, None], (1000, 200))] * 3, axis=2)
    tiles = cut_tiles(picture)
    starts = [int(tile[0, 0, 0]) for tile in tiles]  # rows 0, 291 → 288, 581 → 576, 872; in one column of tiles
    assert tiles.shape == (4, 128, 128, 3) and starts == [0, 288 % 256, 576 % 256, 872 % 256]


@pytest.mark.parametrize("shape", [(1, 1), (2, 700), (700, 3), (17, 5)])
def test_strips_and_dots_are_measured_too(shape):
    rng = np.random.default_rng(7)
    found = measure_image(rng.integers(0, 256, (*shape, 3)).astype(np.uint8))
    assert set(found) == set(MEASURES) and np.isfinite(list(found.values())).all()
    assert all(0 <= found[name] <= 1 for name in ("blur", "border", "detail", "drawn_edges", "edge_step", "flatness"))
