"""How many CPU cores this process may use: its affinity, its container's quota, and its share of them when it has siblings."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2: "<quota> <period>" in microseconds, or "max <period>"


def available_cores(quota: Path = CGROUP_QUOTA) -> int:
    """Cores that this process may run on, at least 1; a container's quota counts, which `os.cpu_count` does not see."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed, period = quota.read_text().split()
        if allowed != "max":
            cores = min(cores, round(int(allowed) / int(period)))
    except (OSError, ValueError):
        pass  # no such cgroup: another system, or no quota
    return max(1, cores)


def share_of_cores() -> int:
    """Cores for the work of this process: Dask gives each worker process OMP_NUM_THREADS; without it, all of them."""
    try:
        share = int(os.environ["OMP_NUM_THREADS"].split(",")[0])
    except (KeyError, ValueError):
        share = 0
    return share if 1 <= share <= available_cores() else available_cores()
