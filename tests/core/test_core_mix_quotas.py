"""Quotas over the parts of a mix against brute force: every way to give each row to one of its parts."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery.core.mix_quotas import first_part
from discovery.core.quotas import NO_LIMIT, Limits, Quota
from discovery.core.selection import Candidates, select
from discovery.errors import InvalidInput


def choose(quotas, is_in, places, limits, sizes):
    """Rows that the parts take in turn, as stages.collection_choice lets them."""
    n, parts = is_in.shape
    is_member = np.zeros(n, bool)
    for part in range(parts):
        is_free = is_in & ~is_member[:, None]
        room = Limits(limits.assets - int(is_member.sum()), limits.bytes - int(sizes[is_member].sum()) if limits.bytes < NO_LIMIT else NO_LIMIT)
        left = np.minimum([*places[part:], n], is_free[:, part:].sum(axis=0))
        left[-1] = min(left[-1], room.assets - left[:-1].sum())
        everyone = np.flatnonzero(is_member | is_free[:, part:].any(axis=1))
        theirs, own = first_part([quota.of(everyone) for quota in quotas], is_member[everyone], is_free[everyone, part:], left, room, sizes[everyone])
        rows = np.flatnonzero(is_member | is_free[:, part])
        novelty = (rows * 7 % 5) / 5.0
        candidates = Candidates([f"{row:03}" for row in rows], np.ones((len(rows), 1), np.float32), novelty, is_member[rows], sizes[rows])
        found = select("most_novel", candidates, own, [quota.of(np.searchsorted(everyone, rows)) for quota in theirs])
        is_member[rows[found.indices]] = True
    return np.flatnonzero(is_member).tolist()


@pytest.mark.parametrize("columns", [1, 2])
@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_parts_meet_quotas_together_whenever_they_can_in_any_way(columns, data):
    n, small = 6, st.integers(0, 2)
    is_in = np.array([[data.draw(st.booleans()) for _ in range(3)] for _ in range(n)])
    budget = data.draw(st.integers(1, n))
    places = [data.draw(st.integers(0, budget // 2)) for _ in range(2)]
    sizes = np.array(data.draw(st.lists(st.integers(0, 9), min_size=n, max_size=n)))
    room = data.draw(st.sampled_from([NO_LIMIT, 20, 10]))
    quotas = []
    for name, letters in (("kind", "xy"), ("place", "uv"))[:columns]:
        values = data.draw(st.lists(st.sampled_from(letters), min_size=n, max_size=n))
        least = {value: data.draw(small) for value in sorted(set(values))}
        most = {value: least[value] + data.draw(small) for value in least if data.draw(st.booleans())}
        quotas.append(Quota(name, np.array(values, object), least, most))
    most_of = [min(count, int(there)) for count, there in zip(places, is_in.sum(axis=0), strict=False)]
    most_of.append(budget - sum(most_of))

    def is_met(rows):
        counts = [(quota, value, sum(quota.values[row] == value for row in rows)) for quota in quotas for value in quota.minimum]
        return sizes[rows].sum() <= room and all(quota.minimum[value] <= count <= quota.maximum.get(value, n) for quota, value, count in counts)

    def is_possible(homes):
        return all(homes.count(part) <= most_of[part] for part in range(3)) and is_met([row for row in range(n) if homes[row] >= 0])

    try:
        rows = choose(quotas, is_in, places, Limits(budget, room), sizes)
    except InvalidInput:
        assert not any(map(is_possible, product(*[[-1, *np.flatnonzero(one)] for one in is_in])))
    else:
        assert is_met(rows) and len(rows) <= budget
