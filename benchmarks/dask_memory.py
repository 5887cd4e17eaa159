"""Memory of a Dask scheduler and of its client over a run of very many shards: ours, which gives them out in a window, and all at once.

A real scheduler and two workers on loopback; each unit carries the addresses of 64 assets, as a shard of a bucket does, and takes no time,
so that the scheduler is what is busy. Peak memory of the scheduler's process and of the client's, above that before the first unit. The peer is
`Client.map` over all units, with their results gathered as they finish.

    python -m benchmarks.dask_memory                # 1,000, 10,000 and 100,000 units; the peer up to 10,000
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psutil

from discovery.adapters.dask_map import LazyDaskMap
from discovery.config import DaskConfig

ASSETS = 64
Unit = tuple[str, tuple[tuple[str, str], ...]]


def unit(number: int) -> Unit:
    """A shard's key, and the ids and addresses of its assets."""
    return f"{number:064x}", tuple((f"{number * ASSETS + i:064x}", f"s3://photos/2026/11/{number:06}/IMG_{i:04}.jpg") for i in range(ASSETS))


def units(count: int) -> Iterator[Unit]:
    """One after the other."""
    return (unit(number) for number in range(count))


def work(task: Unit) -> str:
    """What a worker would commit; here the key alone."""
    return task[0]


class Peak:
    """The most memory that a process had, looked at 20 times a second, above what it had at first. In MiB."""

    def __init__(self, pid: int) -> None:
        self._process, self._over = psutil.Process(pid), threading.Event()
        self._first = self._most = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self._most = max(self._most, self._process.memory_info().rss)

    def end(self) -> float:
        """Stop looking."""
        self._over.set()
        self._thread.join()
        return (self._most - self._first) / 2**20


def one_run(count: int, way: str) -> None:
    """Start a cluster, run all units, print the peaks; in a process of its own, so that nothing is left of another run."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": {**os.environ, "PYTHONPATH": os.getcwd()}}
    cluster = [sys.executable, "-m", "distributed.cli.dask_"]
    scheduler = subprocess.Popen([*cluster[:2], cluster[2] + "scheduler", "--host", address, "--no-dashboard"], **quiet)
    workers = [
        subprocess.Popen([*cluster[:2], cluster[2] + "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1"], **quiet)
        for _ in range(2)
    ]
    spread = LazyDaskMap(DaskConfig(scheduler=address, timeout_s=60), lambda message: None)
    try:
        assert sum(1 for _ in spread(work, units(100))) == 100  # all are up and have imported what they need
        peaks = Peak(scheduler.pid), Peak(os.getpid())
        started = time.perf_counter()
        if way == "ours":
            done = sum(1 for _ in spread(work, units(count)))
        else:
            from distributed import as_completed

            client = spread._connect()
            futures = client.map(work, list(units(count)), pure=False)
            done = sum(1 for _ in as_completed(futures, loop=client.loop, with_results=True))
        seconds = time.perf_counter() - started
        assert done == count
        at_scheduler, at_client = (peak.end() for peak in peaks)
        print(f"{way:>12} {count:>8,} units   scheduler {at_scheduler:8,.1f} MiB   client {at_client:8,.1f} MiB   {count / seconds:7,.0f} units/s", flush=True)
    finally:
        spread.close()
        for process in (*workers, scheduler):
            process.kill()
            process.wait()


def main() -> None:
    """Each size in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--peer-most", type=int, default=10_000, help="units of the peer at most: it holds all of them")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        way, count = options.one.split(":")
        one_run(int(count), way)
        return
    for count in map(int, options.sizes.split(",")):
        for way in ("ours", "all at once"):
            if way == "ours" or count <= options.peer_most:
                subprocess.run([sys.executable, "-W", "ignore", "-m", "benchmarks.dask_memory", "--one", f"{way}:{count}"], check=True)


if __name__ == "__main__":
    main()
