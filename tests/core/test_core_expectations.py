"""Expectations and what a sample says of all: verdicts one can count, bounds that hold when they are tried out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.adapters.quality_gx import Suite, run_suites
from discovery.core.collection_expectations import BUILT_IN, NUMBERS
from discovery.core.expectations import Action, Expectation, Outcome, Severity, failing_rows, with_users
from discovery.core.samples import Sample, defect_rate_bound, statement
from discovery.errors import ConfigError, InvalidInput


def expect(action: Action, severity: Severity) -> Expectation:
    return Expectation("one", "x", 0.0, 1.0, "", severity, action)


@pytest.mark.parametrize(
    ("action", "severity", "stops"),
    [
        (Action.REPORT, Severity.CRITICAL, False), (Action.QUARANTINE, Severity.WARNING, False), (Action.QUARANTINE, Severity.CRITICAL, True),
        (Action.FAIL, Severity.INFO, True),
    ],
)  # fmt: skip
def test_a_miss_stops_a_run_with_the_action_fail_or_when_a_critical_one_quarantines(action, severity, stops):
    missed = Outcome(expect(action, severity), 10, 3, False, "")
    assert (missed.fails, missed.verdict) == (stops, "FAILED" if stops else "missed")
    assert Outcome(expect(action, severity), 10, 0, True, "").verdict == "met"


def test_a_users_expectation_has_a_name_of_its_own():
    own = [expect(Action.REPORT, Severity.INFO)]
    assert len(with_users(own, [Expectation("two", "x", 0, None, "")])) == 2
    with pytest.raises(ConfigError, match="'one' is a built-in one"):
        with_users([], own, reserved=own)


def test_every_built_in_expectation_on_a_version_is_on_a_number_that_is_told_of():
    assert {one.column for one in BUILT_IN} <= set(NUMBERS)
    assert len({one.name for one in BUILT_IN}) == len(BUILT_IN)
    assert all(one.action is not Action.QUARANTINE for one in BUILT_IN)


VALUES = st.lists(st.one_of(st.floats(-2, 2), st.just(float("nan"))), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None)
@given(tables=st.lists(st.tuples(VALUES, st.sampled_from([0.1, 0.5, 0.75, 0.8, 0.9, 1.0])), min_size=1, max_size=4))
def test_great_expectations_finds_what_counting_finds_also_with_nulls(tables):
    suites, counted = [], {}
    for number, (values, mostly) in enumerate(tables):
        one = Expectation(f"e{number}", "x", -1.0, 1.0, "why", Severity.CRITICAL, Action.FAIL, mostly)
        suites.append(Suite(f"table {number}", pd.DataFrame({"x": values}), [one]))
        met = len(values) - int(failing_rows({"x": np.array(values)}, [one])[one.name].sum())
        counted[one.name] = met >= mostly * len(values) - 1e-9
    result = run_suites(suites)
    assert result.met == counted
    assert all(
        outcome["expectation_config"]["severity"] == "critical" for details in result.details.values() for outcome in details["results"]
    )


def test_a_suite_without_rows_is_left_out():
    assert run_suites([Suite("none", pd.DataFrame({"x": []}), [expect(Action.FAIL, Severity.CRITICAL)])]).met == {}


def test_a_sample_without_defects_says_what_the_rule_of_three_says():
    # (1 - p) ** 1000 = .05 gives p = .29912 %; for four checks (1 - p) ** 1000 = .0125, p = .43724 %
    assert defect_rate_bound(Sample(1000, 10**6, 0)) == pytest.approx(0.0029912, abs=1e-7)
    assert defect_rate_bound(Sample(1000, 10**6, 0), checks=4) == pytest.approx(0.0043724, abs=1e-7)
    assert statement(Sample(1000, 10**6, 0), 4).startswith("defect rate ≤ 0.44 % at 95 %, from 1,000 of 1,000,000 rows")
    assert statement(Sample(7, 7, 0)) == "0 of 7 rows, all of which were looked at"
    assert defect_rate_bound(Sample(0, 0, 0)) == 0.0
    with pytest.raises(InvalidInput):
        Sample(3, 2, 0)


def test_the_bounds_of_several_checks_on_the_same_rows_hold_together_as_often_as_they_say():
    rng = np.random.default_rng(3)
    rows, of, checks, wrong = 60, 400, 4, 0
    defects = rng.random((checks, of)) < 0.05
    for _ in range(2000):
        drawn = rng.choice(of, rows, replace=False)
        bounds = [defect_rate_bound(Sample(rows, of, int(one[drawn].sum())), checks) for one in defects]
        wrong += any(bound < one.mean() for bound, one in zip(bounds, defects, strict=True))
    assert wrong / 2000 <= 0.05
