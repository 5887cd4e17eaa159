"""Labels: planted mislabels are found, a hard class puts nobody in doubt, and only what gives labels away is called a leak."""

from __future__ import annotations

import numpy as np
import pytest

from discovery.core.knn import normalise
from discovery.core.labels import LabelDoubt, LabelModel, class_balance, contradictions, doubtful_labels, label_leaks, label_votes
from discovery.errors import InvalidInput

CLASSES, EACH = 5, 40


def clusters(rng: np.random.Generator, spread: float) -> tuple[np.ndarray, np.ndarray]:
    centres = normalise(rng.normal(size=(CLASSES, 32)).astype(np.float32))
    codes = np.repeat(np.arange(CLASSES), EACH)
    return normalise((centres[codes] + spread * rng.normal(size=(len(codes), 32))).astype(np.float32)), codes


def swapped(truth: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    given = truth.copy()
    rows = rng.choice(len(truth), count, replace=False)
    given[rows] = (given[rows] + 1 + rng.integers(0, CLASSES - 1, count)) % CLASSES
    return given, rows


def doubts(vectors: np.ndarray, codes: np.ndarray, groups: np.ndarray | None = None) -> LabelDoubt:
    return doubtful_labels(vectors, codes, np.arange(len(codes)) if groups is None else groups, np.random.default_rng(0))


def test_what_is_expected_of_a_row_is_what_a_fit_without_it_says() -> None:
    rng = np.random.default_rng(0)
    vectors, codes = clusters(rng, 0.3)
    vectors, codes = vectors[::5], codes[::5]  # 40 rows, 8 of each
    vectors[1] = vectors[0]
    groups = np.arange(40)
    groups[1] = 0  # a copy, which has no say
    found = LabelModel(vectors, groups).expected(codes, CLASSES, 0.7)
    kept = np.delete(np.arange(40), 1)
    centred, one_hot = vectors.astype(float) - vectors[kept].mean(axis=0, dtype=float), np.eye(CLASSES)[codes] - np.eye(CLASSES)[codes[kept]].mean(axis=0)
    for row, left_out in ((0, 0), (1, 0), (17, 17)):
        others = kept[kept != left_out]
        x, y = centred[others], one_hot[others]
        plain = centred[row] @ np.linalg.solve(x.T @ x + 0.7 * np.eye(32), x.T @ y) + np.eye(CLASSES)[codes[kept]].mean(axis=0)
        assert found[row] == pytest.approx(plain, abs=1e-9)


def test_planted_mislabels_in_clear_clusters_are_all_found_and_lead_the_list() -> None:
    rng = np.random.default_rng(1)
    vectors, truth = clusters(rng, 0.1)
    given, planted = swapped(truth, 10, rng)
    found = doubts(vectors, given)
    assert set(found.rows[:8]) <= set(planted) and len(set(found.rows) & set(planted)) >= 8
    assert (found.proposed[:8] == truth[found.rows[:8]]).all() and (np.diff(found.margins) <= 0).all()
    assert found.planted == 200 and found.recall == pytest.approx(0.7, abs=0.01) and 0.6 < found.recall_lower_bound < 0.7


def test_clean_labels_of_clear_clusters_are_left_in_peace() -> None:
    vectors, truth = clusters(np.random.default_rng(2), 0.1)
    assert len(doubts(vectors, truth).rows) == 0


def test_the_recall_that_is_told_is_that_of_mislabels_that_are_there() -> None:
    rng = np.random.default_rng(3)
    hits = planted = told = 0
    for _ in range(10):
        vectors, truth = clusters(rng, 0.3)
        given, rows = swapped(truth, 10, rng)
        found = doubts(vectors, given)
        hits += len(set(found.rows) & set(rows))
        planted += 10
        told += found.recall / 10
    assert abs(hits / planted - told) < 0.15


def test_copies_have_no_say_on_one_another() -> None:
    vectors, truth = clusters(np.random.default_rng(4), 0.05)
    given = truth.copy()
    given[:6] = 1  # six copies of one picture of class 0, all labelled 1
    vectors[:6] = vectors[0]
    together = np.concatenate([np.zeros(6, int), np.arange(6, len(truth))])
    assert set(range(6)) <= set(doubts(vectors, given, together).rows.tolist())
    assert not set(range(6)) & set(doubts(vectors, given).rows.tolist())  # without groups they would have


def test_few_rows_or_one_label_leave_nothing_in_doubt() -> None:
    vectors, truth = clusters(np.random.default_rng(5), 0.1)
    assert len(doubts(vectors[:19], truth[:19]).rows) == len(doubts(vectors, np.zeros(len(vectors), int)).rows) == 0
    with pytest.raises(InvalidInput):
        doubts(vectors, truth[:3], np.arange(3))


def test_votes_count_nearer_neighbours_more_and_sum_to_one():
    votes = label_votes(np.array([[0, 1, -1], [-1, -1, -1]]), np.array([[0.1, 0.3, np.inf], [np.inf] * 3], np.float32), 2)
    assert votes[0] == pytest.approx([0.75, 0.25])  # 1 and 1/3
    assert votes[1].tolist() == [0.0, 0.0]


def test_balance_of_no_labels_and_of_unequal_ones():
    assert class_balance([]).counts == {}
    balance = class_balance(["a"] * 9 + ["b"])
    assert balance.imbalance == 9 and balance.effective == pytest.approx(np.exp(-0.9 * np.log(0.9) - 0.1 * np.log(0.1)))


def test_copies_with_one_label_do_not_contradict_each_other():
    assert contradictions(["g", "g", "h", "h"], ["a", "a", "a", "b"]) == {"h": ("a", "b")}


def test_a_rare_class_that_is_given_away_shows_though_the_common_one_is_nearly_always_right():
    codes = np.array([0] * 190 + [1] * 10)
    rng = np.random.default_rng(5)
    leaks = label_leaks(codes, {"format": codes * 1.0, "noise": rng.normal(size=200)}, np.arange(200), rng)
    assert (leaks[0].column, leaks[0].accuracy, leaks[0].skill) == ("format", 1.0, 1.0)
    assert leaks[1].skill <= 0.0 and leaks[0].p_value == 0.005


def test_a_missing_value_can_give_a_label_away():
    codes = np.arange(100) % 2
    values = np.where(codes == 1, np.nan, np.random.default_rng(0).normal(size=100))
    assert label_leaks(codes, {"iso": values}, np.arange(100), np.random.default_rng(0))[0].skill == 1.0


def test_columns_that_tell_nothing_are_called_leaks_no_more_often_than_the_level():
    rng = np.random.default_rng(6)
    called = 0
    for _ in range(60):
        codes = rng.integers(0, 3, 60)
        columns = {f"c{number}": rng.normal(size=60) for number in range(5)}
        called += label_leaks(codes, columns, np.arange(60), rng, rounds=99)[0].p_value <= 0.05
    assert called <= 8  # of 60 at 5 %: more than 8 has probability .005


def test_labels_of_bursts_are_not_told_by_what_is_the_same_within_a_burst():
    rng = np.random.default_rng(7)
    groups = np.repeat(np.arange(30), 10)
    codes, size = rng.integers(0, 2, 30)[groups], rng.normal(size=30)[groups]
    assert label_leaks(codes, {"size": size}, groups, rng)[0].p_value > 0.05
    assert label_leaks(codes, {"size": size}, np.arange(300), rng)[0].p_value <= 0.05  # as if rows were independent


def test_too_few_rows_or_one_class_give_no_answer():
    assert label_leaks(np.zeros(50, int), {"x": np.arange(50.0)}, np.arange(50), np.random.default_rng(0)) == []
    assert label_leaks(np.arange(8) % 2, {"x": np.arange(8.0)}, np.arange(8), np.random.default_rng(0)) == []
