"""Shards on Dask: workers and schedulers may die, few units are in flight, an end before the end leaves nothing running."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from discovery.adapters.allocator import keep_freed_memory
from discovery.adapters.dask_map import IN_FLIGHT, LazyDaskMap, visible_gpus
from discovery.config import DaskConfig
from discovery.errors import InvalidInput, SchedulerUnreachable


def double(number: int) -> int:
    return 2 * number


def process(number: int) -> int:
    return os.getpid()


def environment(number: int) -> tuple[str, str]:
    return os.environ["OMP_NUM_THREADS"], os.environ.get("CUDA_VISIBLE_DEVICES", "")


def faults_of_a_block_used_before(number: int) -> int:
    """Pages that the kernel must give for a block of an activation's size, when one like it was just freed."""
    assert keep_freed_memory()
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        b"x" * (80 * 2**20)
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before


def die_once(marker: str) -> str:
    """Ends its worker the first time; a file says that it did."""
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return marker


def die(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def slow(number: int) -> int:
    time.sleep(0.05)
    return number


def refuse(number: int) -> int:
    raise InvalidInput(f"unit {number}")


def spread(reports: list[str] | None = None, **settings: object) -> LazyDaskMap:
    return LazyDaskMap(DaskConfig(**settings), (reports if reports is not None else []).append)


@pytest.fixture(scope="module")
def local() -> Iterator[LazyDaskMap]:
    made = spread(workers=2)
    yield made
    made.close()


def test_an_unreachable_scheduler_is_said_soon():
    unreachable = spread(scheduler="tcp://127.0.0.1:1", timeout_s=2)
    started = time.monotonic()
    with pytest.raises(SchedulerUnreachable, match=r"tcp://127\.0\.0\.1:1 does not answer"):
        list(unreachable(double, [1]))
    assert time.monotonic() - started < 15
    unreachable.close()


def test_inline_work_is_done_here_and_no_work_connects_to_nothing():
    assert list(spread(scheduler="inline")(process, [1, 2])) == [os.getpid()] * 2
    assert list(spread(scheduler="tcp://127.0.0.1:1")(double, [])) == []


def test_a_single_unit_starts_no_processes_and_the_width_is_told_without_starting_them():
    fresh = spread(workers=3)
    assert list(fresh(process, [1])) == [os.getpid()]
    assert (fresh.width(1), fresh.width(100), spread(scheduler="inline").width(100)) == (1, 3, 1)
    assert fresh._cluster is None


@pytest.mark.live
def test_results_come_from_other_processes_as_they_finish(local):
    assert sorted(local(double, iter(range(50)))) == list(range(0, 100, 2))
    pids = set(local(process, range(20)))
    assert len(pids) == 2 and os.getpid() not in pids


@pytest.mark.live
def test_a_worker_keeps_the_memory_of_activations(local):
    assert max(local(faults_of_a_block_used_before, range(4))) < 1000  # of 20,480


def test_few_units_are_taken_before_there_is_room_for_them(local):
    taken, furthest = 0, 0

    def units() -> Iterator[int]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield number

    for finished, _ in enumerate(local(slow, units())):
        furthest = max(furthest, taken - finished)
    assert taken == 100 and furthest <= IN_FLIGHT * 2 + 2


@pytest.mark.live
def test_the_error_of_a_unit_is_raised_and_an_early_end_leaves_nothing_running(local):
    with pytest.raises(InvalidInput, match="unit"):
        list(local(refuse, range(10)))
    results = local(slow, range(1000))
    next(iter(results))
    results.close()  # type: ignore[attr-defined]
    client = local._connect()
    for _ in range(100):
        if not any(client.processing().values()):
            break
        time.sleep(0.05)
    assert not any(client.processing().values())


@pytest.mark.live
def test_a_worker_that_dies_costs_the_unit_it_was_at(local, tmp_path):
    markers = [str(tmp_path / str(number)) for number in range(6)]
    Path(markers[0]).touch()
    for marker in markers[2:]:
        Path(marker).touch()
    assert sorted(local(die_once, markers)) == sorted(markers)


@pytest.mark.live
def test_a_unit_that_ends_every_worker_is_said(local):
    with pytest.raises(SchedulerUnreachable, match=r"KilledWorker.*Finished shards are kept"):
        list(local(die, [1, 2]))


@pytest.mark.live
def test_local_workers_share_the_cores_and_have_a_gpu_each(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7")
    monkeypatch.setattr("discovery.adapters.dask_map.available_cores", lambda: 7)
    for uses_gpus, seen in ((True, {("3", "4"), ("3", "GPU-7")}), (False, {("3", "4,GPU-7")})):
        made = LazyDaskMap(DaskConfig(workers=0 if uses_gpus else 2), lambda message: None, uses_gpus=uses_gpus)
        try:
            assert made.width(100) == 2
            assert set(made(environment, range(20))) == seen
        finally:
            made.close()


def test_gpus_are_counted_without_starting_cuda(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus(tmp_path / "none") == []
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    assert visible_gpus(tmp_path) == ["0", "1"]
    for value, seen in (("", []), ("-1", []), ("1", ["1"]), ("MIG-a, MIG-b", ["MIG-a", "MIG-b"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert visible_gpus(tmp_path) == seen


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


class Cluster:
    """A scheduler and a worker that run by themselves, as a team's would."""

    def __init__(self, stack: ExitStack, log: Path) -> None:
        self.port, self.log, self.processes = free_port(), log, []
        self.address = f"tcp://127.0.0.1:{self.port}"
        stack.callback(self.kill)

    def start(self) -> None:
        host = ["--host", "127.0.0.1", "--no-dashboard"]
        paths = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        for command in (
            ["dask_scheduler", "--port", str(self.port), *host],
            ["dask_worker", self.address, "--nthreads", "1", "--no-nanny", *host],
        ):
            with self.log.open("ab") as log:
                self.processes.append(
                    subprocess.Popen([sys.executable, "-m", f"distributed.cli.{command[0]}", *command[1:]], stdout=log, stderr=log, env=paths)
                )

    def kill(self) -> None:
        for running in self.processes:
            running.kill()
            running.wait()
        self.processes.clear()


@pytest.mark.live
def test_a_scheduler_that_dies_and_comes_back_loses_nothing(tmp_path):
    reports: list[str] = []
    with ExitStack() as stack:
        cluster = Cluster(stack, tmp_path / "log")
        cluster.start()
        made = spread(reports, scheduler=cluster.address, timeout_s=30, reconnect_s=60)
        stack.callback(made.close)
        results = []
        for result in made(slow, iter(range(60))):
            results.append(result)
            if len(results) in (10, 30):
                cluster.kill()
                cluster.start()
        assert sorted(results) == list(range(60))  # none twice: what was lost had no result yet
        assert sum("lost the scheduler" in report for report in reports) == 2


@pytest.mark.live
def test_a_scheduler_that_does_not_come_back_is_said(tmp_path):
    with ExitStack() as stack:
        cluster = Cluster(stack, tmp_path / "log")
        cluster.start()
        made = spread(scheduler=cluster.address, timeout_s=30, reconnect_s=0)
        stack.callback(made.close)
        results = iter(made(slow, range(100)))
        next(results)
        cluster.kill()
        made.config = DaskConfig(scheduler=cluster.address, timeout_s=2, reconnect_s=0)
        with pytest.raises(SchedulerUnreachable, match="does not answer"):
            list(results)


def test_an_interrupt_before_a_call_of_the_client_began_is_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """Reproduces the race: the event loop is busy, so that the call has not begun when the interrupt asks for its cancellation."""
    said: list[str] = []

    async def nothing() -> None:
        return None

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    def faulty() -> None:
        raise NameError("another one")

    before = signal.signal(signal.SIGALRM, interrupt)
    spread = LazyDaskMap(DaskConfig(scheduler="", workers=1), said.append)
    try:
        client = spread._connect()
        client.loop.add_callback(time.sleep, 0.5)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            client.sync(nothing)
        client.loop.add_callback(faulty)  # an error that is one is still told
        client.sync(nothing)
    finally:
        signal.signal(signal.SIGALRM, before)
        spread.close()
    told = [record.exc_info[1] for record in caplog.records if record.name == "tornado.application" and record.exc_info]
    assert [str(error) for error in told] == ["another one"]
