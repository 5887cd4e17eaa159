"""Spreads shards over a Dask cluster: one that is named, a local one of worker processes, or this process ("inline")."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from discovery.config import DaskConfig
from discovery.errors import DiscoveryError, SchedulerUnreachable

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

T = TypeVar("T")
R = TypeVar("R")
INLINE = "inline"


class LazyDaskMap:
    """`map_shards` on Dask; connects on first use, so that a run with nothing to compute starts no process."""

    def __init__(self, config: DaskConfig, report: Callable[[str], None]) -> None:
        self.config = config
        self.report = report
        self._client: Client | None = None
        self._cluster: LocalCluster | None = None

    def __call__(self, function: Callable[[T], R], tasks: Iterable[T], /) -> Iterator[R]:
        """Results as they finish, in any order. An error of one task is raised once those before it were yielded.

        Raises SchedulerUnreachable when the scheduler does not answer, has no worker in time, or loses them all.
        """
        units = list(tasks)
        if not units:
            return
        if self.config.scheduler == INLINE or (not self.config.scheduler and _inside_airflow_task()):
            yield from map(function, units)
            return
        from distributed import as_completed
        from distributed.exceptions import TimeoutError as DaskTimeoutError
        from distributed.scheduler import KilledWorker

        client = self._connect()
        futures = [client.submit(function, unit, pure=False, retries=1) for unit in units]
        try:
            for future in as_completed(futures, loop=client.loop):
                yield future.result()
        except DiscoveryError:
            raise
        except (KilledWorker, OSError, DaskTimeoutError) as error:
            raise SchedulerUnreachable(
                f"Work on the Dask cluster at {client.scheduler.address if client.scheduler else self.config.scheduler} was lost: "
                f"{type(error).__name__}: {error}. Finished shards are kept: check the workers and run again."
            ) from error
        finally:
            client.cancel([future for future in futures if not future.done()])

    def close(self) -> None:
        """Disconnect, and end the local cluster if this map started one."""
        if self._client is not None:
            self._client.close()
        if self._cluster is not None:
            self._cluster.close()
        self._client = self._cluster = None

    def _connect(self) -> Client:
        if self._client is not None:
            return self._client
        from distributed import Client, LocalCluster

        address = self.config.scheduler
        if not address:
            workers = self.config.workers or os.cpu_count() or 1
            self.report(f"dask: starting {workers} local worker processes")
            self._cluster = LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1",
                silence_logs=40,
            )  # fmt: skip
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


def _inside_airflow_task() -> bool:
    """Worker processes cannot be spawned inside an Airflow task: they would import Airflow with a poisoned database URL."""
    return os.environ.get("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "").startswith("airflow-db-not-allowed")
