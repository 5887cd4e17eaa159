"""What every task and DAG of ours has in common: retries, time limits, owner, tags."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

TAGS = ["discovery"]
TASK_DEFAULTS: dict[str, Any] = {
    "owner": "discovery",
    "retries": 2,
    "retry_delay": timedelta(seconds=5),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=10),
    "execution_timeout": timedelta(hours=12),  # a task that uses Dask must have one: a lost client waits for ever
    "show_return_value_in_logs": False,  # a record; the counts are in the line before
}
