"""Issues: scores in [0, 1] with 1 good, flags under the threshold, and one issue that looks at the whole batch."""

import dataclasses

import numpy as np
import pytest

from discovery.core.issues import ISSUES, find_issues
from discovery.core.measures import MEASURES, measure_image
from discovery.errors import InvalidInput
from tests.core.test_core_structure import as_pixels, scene


def batch(*pictures: np.ndarray) -> dict[str, np.ndarray]:
    rows = [measure_image(as_pixels(picture)) | {"width_px": picture.shape[1], "height_px": picture.shape[0]} for picture in pictures]
    return {name: np.array([row[name] for row in rows], np.float64) for name in rows[0]}


def sizes(*pairs: tuple[int, int]) -> dict[str, np.ndarray]:
    columns = {name: np.zeros(len(pairs)) for name in MEASURES}
    return columns | {"width_px": np.array([w for w, _ in pairs], np.float64), "height_px": np.array([h for _, h in pairs], np.float64)}


def flagged(picture: np.ndarray) -> set[str]:
    return {name for name, flags in find_issues(batch(picture)).flags.items() if flags[0]}


def test_issues_read_only_measures_and_the_size():
    assert {name for issue in ISSUES.values() for name in issue.reads} <= {*MEASURES, "width_px", "height_px"}


def test_each_threshold_has_a_source_and_each_issue_a_meaning():
    assert all(issue.source and issue.meaning and 0 < issue.threshold <= 1 for issue in ISSUES.values())
    assert [issue.name for issue in ISSUES.values() if issue.is_relative] == ["odd_size"]


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0, 7.0, 5000.0])
def test_scores_stay_in_their_range_whatever_the_measures(value):
    columns = {name: np.full(3, min(value, 1.0) if name in ("blur", "border", "detail", "edge_step", "lit_tone") else value) for name in MEASURES}
    columns |= {"width_px": np.full(3, value), "height_px": np.array([1.0, 9.0, 900.0])}
    assert all((score >= 0).all() and (score <= 1).all() for score in find_issues(columns).scores.values())


def test_a_scene_has_no_issue():
    grain = np.random.default_rng(0).normal(0, 1, (512, 512, 1))
    assert flagged(scene() + grain) == set()


def test_faults_have_their_names():
    rng = np.random.default_rng(1)
    assert "dark" in flagged(scene() / 8)
    assert "grey" in flagged(np.repeat(scene()[..., :1], 3, axis=2))
    assert "noisy" in flagged(scene() + rng.normal(0, 15, (512, 512, 3)))
    assert {"blank", "low_information", "low_contrast"} <= flagged(np.full((64, 64, 3), 99.0))
    assert "odd_aspect" in flagged(scene()[:60])


def test_a_lamp_does_not_light_a_dark_picture():
    night = scene() / 8
    night[:80, :160] = 255  # 80 x 160 of 512 x 512 is 4.9 %
    assert "dark" in flagged(night)


def test_grain_of_a_grey_picture_is_noise_and_fine_texture_of_a_colour_picture_is_not():
    grain = np.random.default_rng(2).normal(0, 15, (512, 512, 1))
    assert "noisy" in flagged(np.repeat(scene()[..., :1], 3, axis=2) + grain)
    assert "noisy" not in flagged(scene() + grain)  # the same in all channels, as in sand and grass


def test_an_odd_size_is_odd_in_its_batch_only():
    # median side of the batch 1000; 400 is a factor of 2.5 from it, 600 of 1.67; the limit is 2.2
    assert find_issues(sizes(*[(1000, 1000)] * 8, (400, 400), (600, 600))).flags["odd_size"].tolist() == [False] * 8 + [True, False]
    assert not find_issues(sizes((400, 400), (400, 400))).flags["odd_size"].any()


def test_in_a_batch_of_many_sizes_few_are_odd():
    # sides 500, 1000, 2000, 4000: a quarter each. Quartiles of the 21 are 500 and 2000, a factor of 4; 1.5 times that is 8, and 1000 / 8 is 125 px
    spread = [(side, side) for side in (500, 1000, 2000, 4000) for _ in range(5)]
    assert not find_issues(sizes(*spread)).flags["odd_size"].any()
    assert find_issues(sizes(*spread, (120, 120))).flags["odd_size"].tolist() == [False] * 20 + [True]


def test_turning_a_picture_changes_no_size():
    found = find_issues(sizes((400, 300), (300, 400), (400, 300)))
    assert found.scores["odd_aspect"].tolist() == [0.75] * 3 and found.scores["odd_size"].tolist() == [1.0] * 3


def test_what_could_not_be_measured_is_flagged():
    columns = sizes((400, 300))
    for name in MEASURES:
        columns[name] = np.array([np.nan])
    flags = find_issues(columns).flags
    assert all(flags[name][0] for name, issue in ISSUES.items() if set(issue.reads) & set(MEASURES))


def test_a_missing_column_is_named_with_what_to_do():
    columns = sizes((400, 300))
    del columns["blur"]
    with pytest.raises(InvalidInput, match=r"blurry reads blur.*Measure the pictures again"):
        find_issues(columns)


def test_an_empty_batch_has_no_issues():
    assert all(len(flags) == 0 for flags in find_issues(sizes()).flags.values())


def test_issues_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ISSUES["dark"].threshold = 0.1
