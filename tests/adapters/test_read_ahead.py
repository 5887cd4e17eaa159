"""Reading ahead: every row once, never further than allowed, never more bytes than there is room for; an error is said, nothing hangs."""

import threading
import time

import numpy as np
import pytest

from discovery.adapters import read_ahead
from discovery.adapters.cores import available_cores, share_of_cores
from discovery.adapters.read_ahead import ReadAhead


def test_every_row_is_read_and_worked_on_once_whatever_the_order_they_end_in():
    delays = np.random.default_rng(3).random(200) / 500
    worked: list[int] = []

    def read(row: int) -> bytes:
        time.sleep(delays[row])
        return b"%d" % row

    with ReadAhead(read, lambda row, data: worked.append(int(data) * 1000 + row), 200, readers=7, workers=3) as ahead:
        for before in range(20, 201, 20):
            ahead.allow(before + 40)
            ahead.wait_until(before)
            assert set(range(before)) <= {pair % 1000 for pair in worked}
    assert sorted(worked) == [row * 1001 for row in range(200)]
    assert ahead.seconds.read_s > delays.sum() * 0.9


def test_nothing_beyond_what_is_allowed_is_read():
    rows: list[int] = []
    with ReadAhead(lambda row: b"x", lambda row, data: rows.append(row), 100, readers=4, workers=4) as ahead:
        ahead.allow(10)
        ahead.wait_until(10)
        time.sleep(0.05)
        assert sorted(rows) == list(range(10))
    assert sorted(rows) == list(range(10))  # and leaving starts nothing


@pytest.mark.parametrize("broken", ["read", "work"])
def test_the_error_of_a_row_is_raised_where_it_is_waited_for_and_leaving_does_not_hang(broken):
    def fail_at_5(row: int, data: bytes = b"") -> bytes:
        if row == 5:
            raise ValueError("row 5")
        return b"x"

    read, work = (fail_at_5, lambda row, data: None) if broken == "read" else (lambda row: b"x", fail_at_5)
    with ReadAhead(read, work, 1000, readers=4, workers=2) as ahead:
        ahead.allow(1000)
        with pytest.raises(ValueError, match="row 5"):
            ahead.wait_until(1000)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("discovery-")]


def test_large_objects_are_read_few_at_a_time(monkeypatch):
    monkeypatch.setattr(read_ahead, "READ_AHEAD_BYTES", 1000)
    held, most = set(), []

    def read(row: int) -> bytes:
        held.add(row)
        most.append(len(held))
        return bytes(400)  # two fit into 1,000 bytes; two workers and one to come are the fewest

    def work(row: int, data: bytes) -> None:
        time.sleep(0.002)
        held.discard(row)

    with ReadAhead(read, work, 120, readers=16, workers=2) as ahead:
        ahead.allow(120)
        ahead.wait_until(120)
    assert max(most[40:]) <= 3  # before the first are read their size is not known
    assert max(most) <= 2 * (16 + 2)


@pytest.mark.parametrize(("read_s", "turns_taken"), [(0.0, range(25, 120)), (0.025, range(190, 201))])
def test_what_is_read_at_once_is_handed_over_several_rows_at_a_time(monkeypatch, read_s, turns_taken):
    monkeypatch.setattr(read_ahead, "SPAN_S", 0.02)
    turns, rows = [], []
    work_span = ReadAhead._do_work
    monkeypatch.setattr(ReadAhead, "_do_work", lambda self, span, data: (turns.append(len(span)), work_span(self, span, data)))

    def read(row: int) -> bytes:
        time.sleep(read_s)
        return b"x"

    def work(row: int, data: bytes) -> None:
        time.sleep(0.0005)  # as a decoder, without the GIL
        rows.append(row)

    with ReadAhead(read, work, 200, readers=8, workers=1) as ahead:
        for before in range(0, 200, 40):
            ahead.allow(before + 80)
            ahead.wait_until(before + 40)
    assert sorted(rows) == list(range(200)) and sum(turns) == 200
    assert len(turns) in turns_taken


def test_cores_are_those_of_the_containers_quota(tmp_path, monkeypatch):
    everything = available_cores(tmp_path / "none")
    for text, cores in (("max 100000\n", everything), ("100000 100000\n", 1), ("50000 100000\n", 1), ("nonsense", everything)):
        (tmp_path / "cpu.max").write_text(text)
        assert available_cores(tmp_path / "cpu.max") == cores
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert share_of_cores() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "100000")  # more than there are: not a share
    assert share_of_cores() == available_cores()
