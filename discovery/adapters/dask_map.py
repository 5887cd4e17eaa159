"""Spreads shards over a Dask cluster: one that is named, a local one of worker processes, or this process ("inline")."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from discovery.adapters.allocator import ONE_ARENA
from discovery.adapters.cores import available_cores
from discovery.config import DaskConfig
from discovery.errors import DiscoveryError, SchedulerUnreachable

if TYPE_CHECKING:
    from distributed import Client, Future, SpecCluster

T = TypeVar("T")
R = TypeVar("R")
INLINE = "inline"
IN_FLIGHT = 3  # units a worker thread: one it works on, one that waits for it, one that may be stolen
COUNT_WORKERS_S = 5.0  # how old the count of workers may be
LOSSES = 3  # of the scheduler without a result between them
NVIDIA_GPUS = Path("/proc/driver/nvidia/gpus")  # one folder a GPU


class LazyDaskMap:
    """`map_shards` on Dask; connects on first use, so that a run with nothing to compute starts no process.

    The scheduler is given a few units a worker at a time, so that neither its memory nor that of this process grows with the number
    of units. uses_gpus: whether local workers should be one a GPU, where there are any.
    """

    def __init__(self, config: DaskConfig, report: Callable[[str], None], *, uses_gpus: bool = True) -> None:
        self.config = config
        self.report = report
        self.uses_gpus = uses_gpus
        self._client: Client | None = None
        self._cluster: SpecCluster | None = None

    def __call__(self, function: Callable[[T], R], tasks: Iterable[T], /) -> Iterator[R]:
        """Results as they finish, in any order; `tasks` is consumed as there is room for more. The first error of a task is raised.

        A scheduler that goes away is waited for (`dask.reconnect_s`), and what it had is given to it again; a worker's death costs
        the unit it was at. Raises SchedulerUnreachable: no answer, no worker in time, or one unit that ends every worker.
        """
        units = iter(tasks)
        if (first := next(units, None)) is None:
            return
        if self._is_inline:
            yield function(first)
            yield from map(function, units)
            return
        second = next(units, None)
        if second is None and not self.config.scheduler and self._client is None:
            yield function(first)  # one unit gains nothing from processes that have yet to start
            return
        yield from self._spread(function, itertools.chain([first] if second is None else [first, second], units))

    def width(self, units: int) -> int:
        """Workers that `units` would be spread over: 1 in this process. Connects to a scheduler that is named."""
        if self._is_inline or units <= 1:
            return 1
        if not self.config.scheduler and self._client is None:
            return self._local_workers()
        return max(1, int(sum(self._connect().nthreads().values())))

    def close(self) -> None:
        """Disconnect, and end the local cluster if this map started one."""
        if self._client is not None:
            self._client.close()
        if self._cluster is not None:
            self._cluster.close()
        self._client = self._cluster = None

    @property
    def _is_inline(self) -> bool:
        return self.config.scheduler == INLINE or (not self.config.scheduler and _inside_airflow_task())

    def _spread(self, function: Callable[[T], R], units: Iterator[T]) -> Iterator[R]:
        losses = 0
        again: list[T] = []
        while True:
            lost: list[T] = []
            for result in self._until_lost(function, itertools.chain(again, units), lost):
                losses = 0
                yield result
            if not lost:
                return
            losses += 1
            self._reconnect(losses)
            again = lost

    def _until_lost(self, function: Callable[[T], R], units: Iterator[T], lost: list[T]) -> Iterator[R]:
        """Results until all units are done, or until the scheduler is lost: `lost` then holds the units that it had."""
        from concurrent.futures import CancelledError

        from distributed import as_completed
        from distributed.exceptions import TimeoutError as DaskTimeoutError
        from distributed.scheduler import KilledWorker

        client = self._connect()
        given: dict[Future, T] = {}
        finished = as_completed([], loop=client.loop)
        room, counted = 0, 0.0
        try:
            while True:
                if time.monotonic() - counted > COUNT_WORKERS_S:
                    room, counted = IN_FLIGHT * max(1, sum(client.nthreads().values())), time.monotonic()
                while len(given) < room and (unit := next(units, None)) is not None:
                    future = client.submit(function, unit, pure=False, retries=1)
                    given[future] = unit
                    finished.add(future)
                if not given:
                    return
                done = next(finished)
                try:
                    result = done.result()
                except CancelledError:  # the scheduler is gone, and with it all that it had
                    break
                del given[done]
                yield result
        except DiscoveryError:
            raise
        except KilledWorker as error:
            raise SchedulerUnreachable(
                f"Work on the Dask cluster at {self._address} was lost: {type(error).__name__}: {error}. "
                "Finished shards are kept: check the workers' memory and logs, and run again."
            ) from error
        except (OSError, DaskTimeoutError):
            pass  # the connection broke while we asked or submitted
        finally:
            if given and client.status == "running":
                client.cancel(list(given))
        lost.extend(given.values())

    def _reconnect(self, losses: int) -> None:
        """Come back to the scheduler that was lost, for `reconnect_s`; what it does not know any more is given to it again."""
        address = self._address
        if self._cluster is not None or losses > LOSSES:
            self.close()
            raise SchedulerUnreachable(
                f"The Dask scheduler at {address} was lost. Finished shards are kept: check its memory and logs, and run again."
            )
        self.report(f"dask: lost the scheduler at {address}, waiting up to {self.config.reconnect_s:g} s for it")
        self.close()
        give_up = time.monotonic() + self.config.reconnect_s
        while True:
            try:
                self._connect()
                return
            except SchedulerUnreachable:
                if time.monotonic() > give_up:
                    raise
                time.sleep(1.0)

    @property
    def _address(self) -> str:
        return str(self._cluster.scheduler_address if self._cluster is not None else self.config.scheduler)

    def _local_workers(self) -> int:
        return self.config.workers or (self.uses_gpus and len(visible_gpus())) or available_cores()

    def _connect(self) -> Client:
        if self._client is not None:
            return self._client
        from distributed import Client

        logging.getLogger("tornado.application").addFilter(_interrupted_early)  # a logger has a filter once, however often it is added
        address = self.config.scheduler
        if not address:
            self.report(f"dask: starting {self._local_workers()} local worker processes")
            self._cluster = local_cluster(self._local_workers(), visible_gpus() if self.uses_gpus else [])
        try:
            self._client = Client(self._cluster or address, timeout=self.config.timeout_s, set_as_default=False)
            self._client.wait_for_workers(1, timeout=self.config.timeout_s)
        except (OSError, TimeoutError, ValueError) as error:
            self.close()
            raise SchedulerUnreachable(
                f"The Dask scheduler {address or 'of this machine'} does not answer or has no workers after {self.config.timeout_s:g} s "
                f"({error}). Start one (`dask scheduler`, `dask worker tcp://…`), or leave dask.scheduler empty to work locally."
            ) from error
        return self._client


def _interrupted_early(record: logging.LogRecord) -> bool:
    """False for what distributed says when Ctrl-C comes before a call of its client has begun: there is nothing to cancel yet, and no harm.

    `distributed.utils.sync` then reads a variable that is set later, and its event loop logs the NameError with a traceback.
    """
    error, last = (record.exc_info or (None, None, None))[1:]
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return not (isinstance(error, NameError) and last is not None and last.tb_frame.f_code.co_qualname == "sync.<locals>.cancel")


def local_cluster(workers: int, gpus: list[str]) -> SpecCluster:
    """Worker processes of one thread on loopback, each with its share of the cores, and of the GPUs one each, round robin."""
    import dask.config
    from distributed import Nanny, Scheduler, SpecCluster

    threads = str(max(1, available_cores() // workers))
    specs = {}
    for number in range(workers):
        environment = {name: threads for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
        options = {
            "nthreads": 1, "host": "127.0.0.1", "dashboard": False, "silence_logs": 40, "env": environment,
            "preload": ["discovery.adapters.dask_worker"],
        }  # fmt: skip
        specs[number] = {"cls": Nanny, "options": options}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"}}
    before_start = {**dask.config.get("distributed.nanny.pre-spawn-environ"), **ONE_ARENA}
    # the profiler stops all threads 100 times a second, for a dashboard that there is not
    with dask.config.set({"distributed.nanny.pre-spawn-environ": before_start, "distributed.worker.profile.enabled": False}):
        return SpecCluster(workers=specs, scheduler=scheduler, silence_logs=40)


def visible_gpus(folder: Path = NVIDIA_GPUS) -> list[str]:
    """What CUDA_VISIBLE_DEVICES may be for one GPU each, found without starting CUDA here, which would cost its memory."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return [name.strip() for name in allowed.split(",") if name.strip() not in ("", "-1")]
    return [str(number) for number in range(len(list(folder.iterdir())))] if folder.is_dir() else []


def _inside_airflow_task() -> bool:
    """Worker processes cannot be spawned inside an Airflow task: they would import Airflow with a poisoned database URL."""
    return os.environ.get("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "").startswith("airflow-db-not-allowed")
