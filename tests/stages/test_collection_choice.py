"""The choice among candidates over a table of a few rows: mixes under quotas against brute force, values of columns, and what a quota cost."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from discovery.core.knn import normalise
from discovery.errors import SpecError
from discovery.spec import parse_spec
from discovery.stages import collection_choice
from discovery.stages.candidate_pool import Pool
from discovery.stages.collection_choice import Choice, choose
from discovery.stages.decisions import Decisions


def make_pool(text: str, columns: dict[str, Any], held: tuple[int, ...] = ()) -> Pool:
    """A pool whose assets have these columns, in which nothing was left out yet."""
    n = len(next(iter(columns.values())))
    ids = np.array([f"{row:064x}".encode() for row in range(n)], "S64")
    usual = {"size_bytes": [1] * n, "novelty": pa.array([None] * n, pa.float64()), "asset_id": [one.decode() for one in ids.tolist()]}
    return Pool(parse_spec("name: few\n" + text), pa.table(usual | columns), ids, [], Decisions(ids), dict.fromkeys(held))


@pytest.fixture(autouse=True)
def vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors by the id of an asset."""
    drawn = normalise(np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32))
    monkeypatch.setattr(collection_choice, "vectors_for", lambda sets, ids, ws: drawn[[int(one, 16) for one in ids.tolist()]])


def chosen(text: str, columns: dict[str, Any], held: tuple[int, ...] = ()) -> Choice:
    return choose(make_pool(text, columns, held), [], None)  # type: ignore[arg-type]


CATS_DOGS = "budget: 4\nmix: [{name: cats, share: .5, where: kind = 'cat'}, {name: dogs, where: kind = 'dog'}]\n"


def test_a_minimum_holds_over_all_parts_of_a_mix_not_within_each():
    choice = chosen(CATS_DOGS + "quotas: [{by: kind, values: {dog: {min: 2}}}]\n", {"kind": ["cat"] * 4 + ["dog"] * 4})
    assert [(part.name, part.picked) for part in choice.parts] == [("cats", 2), ("dogs", 2)]


def test_an_earlier_part_gives_what_later_parts_cannot():
    # both parts have birds; only the first has dogs, and the second has two places for three cats that are owed
    mix = "mix: [{name: a, share: .666, where: \"part <> 'b'\"}, {name: b, where: \"part <> 'a'\"}]\n"
    text = f"budget: 6\n{mix}quotas: [{{by: kind, values: {{dog: {{min: 1}}, cat: {{min: 3}}}}}}]\n"
    kinds, parts = ["bird"] * 6 + ["dog"] + ["cat"] * 6, ["ab"] * 6 + ["a"] + ["a"] * 2 + ["b"] * 4
    choice = chosen(text, {"kind": kinds, "part": parts})
    counts = Counter(kinds[row] for row in choice.rows)
    assert counts["dog"] == 1 and counts["cat"] >= 3 and [part.picked for part in choice.parts] == [4, 2]


def test_minima_that_the_shares_of_a_mix_cannot_meet_are_told():
    with pytest.raises(SpecError, match="The parts of the mix could meet the quotas together, but not within their shares: kind 'dog' would get 2 of 3"):
        chosen(CATS_DOGS + "quotas: [{by: kind, values: {dog: {min: 3}}}]\n", {"kind": ["cat"] * 4 + ["dog"] * 4})
    with pytest.raises(SpecError, match="'dog' should have at least 5, 4 are possible"):
        chosen(CATS_DOGS + "quotas: [{by: kind, values: {dog: {min: 5}}}]\n", {"kind": ["cat"] * 4 + ["dog"] * 4})


def test_a_mix_tells_what_each_quota_cost_in_each_part():
    choice = chosen(CATS_DOGS + "quotas: [{by: colour, max: 2}]\n", {"kind": ["cat"] * 4 + ["dog"] * 4, "colour": ["red", "blue"] * 4})
    assert [(cost["by"], cost["part"]) for cost in choice.quota_costs] == [("colour", "cats"), ("colour", "dogs")]
    assert all(-1 < cost["cost"] < 1 for cost in choice.quota_costs)


def test_a_mix_of_several_parts_has_a_bound_for_each_and_none_for_the_whole():
    choice = chosen(CATS_DOGS, {"kind": ["cat"] * 4 + ["dog"] * 4})
    assert choice.optimality_bound is None and all(0 < (part.optimality_bound or 0) <= 1 for part in choice.parts)
    assert 0 < (chosen("budget: 4\n", {"kind": ["cat"] * 8}).optimality_bound or 0) <= 1


def test_the_cost_of_a_quota_that_cannot_be_measured_is_none(monkeypatch: pytest.MonkeyPatch):
    columns = {"size_bytes": [90, 45, 45, 50], "novelty": [0.9, 0.8, 0.7, 0.6], "a": ["big", "s", "s", "s"], "b": ["x", "x", "x", "y"]}
    text = "budget: 100 B\nselect: {method: most_novel}\nquotas: [{by: a, values: {big: {max: 0}}}, {by: b, values: {y: {min: 1}}}]\n"
    choice = chosen(text, columns)
    assert choice.rows == [1, 3] and [cost["objective_without"] for cost in choice.quota_costs] == [pytest.approx(1.4), pytest.approx(1.5)]
    chosen_before = collection_choice.select

    def select(method, candidates, limits, quotas, options):
        if len(quotas) < 2:
            raise collection_choice.InvalidInput("cannot be done")
        return chosen_before(method, candidates, limits, quotas, options)

    monkeypatch.setattr(collection_choice, "select", select)
    assert [cost["cost"] for cost in chosen(text, columns).quota_costs] == [None, None]


def test_values_of_a_quota_are_told_as_they_are_written():
    whole = chosen("budget: 4\nquotas: [{by: label, values: {3: {max: 1}}}]\n", {"label": [3.0] * 4 + [7.0] * 4})
    assert sum(row < 4 for row in whole.rows) == 1
    flags = chosen("budget: 4\nquotas: [{by: flag, values: {true: {min: 3}}}]\n", {"flag": [True] * 3 + [False] * 5})
    assert sum(row < 3 for row in flags.rows) == 3


def test_a_general_bound_does_not_touch_what_has_no_value():
    labels = ["cat", None, None, None, "dog", "cat", "dog", None]
    assert len(chosen("budget: 8\nquotas: [{by: label, min: 2}]\n", {"label": labels}).rows) == 8  # there may be one null or three
    most = Counter(labels[row] for row in chosen("budget: 8\nquotas: [{by: label, max: 1}]\n", {"label": labels}).rows)
    assert most == {"cat": 1, "dog": 1, None: 4}
    named = Counter(labels[row] for row in chosen('budget: 8\nquotas: [{by: label, values: {"null": {max: 1}}}]\n', {"label": labels}).rows)
    assert named == {"cat": 2, "dog": 2, None: 1}


def test_a_value_that_no_asset_has_is_refused_with_the_nearest():
    with pytest.raises(SpecError, match=r"spec:3: no asset has label 'dgo'. Did you mean \"dog\"\?"):
        chosen("budget: 2\nquotas: [{by: label, values: {dgo: {max: 1}}}]\n", {"label": ["dog", "cat"]})
    with pytest.raises(SpecError, match=r"no asset has label 'dog'. Some of the 50 that there are: v00, v01, v02, v03, v04."):
        chosen("budget: 2\nquotas: [{by: label, values: {dog: {max: 1}}}]\n", {"label": [f"v{i:02}" for i in range(50)]})


def test_strata_are_told_as_quotas_tell_values():
    choice = chosen("budget: 4\nselect: {method: stratified, by: label, equal: true}\n", {"label": [3.0, 3.0, 3.0, math.nan, math.nan, None, None]})
    assert sum(row < 3 for row in choice.rows) == 2  # NaN and null are one stratum


def test_what_is_set_aside_is_less_dense_than_the_threshold_also_when_a_minimum_took_one():
    kinds = ["c"] * 58 + ["r"] * 2
    pool = make_pool("budget: 20\nselect: {method: k_center}\nquotas: [{by: kind, values: {r: {min: 2}}}]\n", {"kind": kinds})
    choice = choose(pool, [], None)  # type: ignore[arg-type]
    aside = pool.decisions.mask("set_aside")
    assert {58, 59} <= set(choice.rows) and (pool.decisions.value[aside] <= pool.decisions.threshold[aside]).all()


def test_a_minimum_for_every_value_asks_for_none_of_what_no_candidate_has():
    columns = {"kind": ["cat"] * 3 + ["dog"] * 3 + ["bird"]}
    text = "budget: 4\nwhere: kind <> 'bird'\nquotas: [{by: kind, min: 1}]\n"
    pool = make_pool(text, columns)
    pool.decisions.decide(np.array([6]), "where")
    kinds = [columns["kind"][row] for row in choose(pool, [], None).rows]  # type: ignore[arg-type]
    assert set(kinds) == {"cat", "dog"} and len(kinds) == 4
    pool = make_pool(text.replace("min: 1}", "values: {bird: {min: 1}}}"), columns)
    pool.decisions.decide(np.array([6]), "where")
    with pytest.raises(SpecError, match="no candidate is 'bird'"):
        choose(pool, [], None)  # type: ignore[arg-type]
