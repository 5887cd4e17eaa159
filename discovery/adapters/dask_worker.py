"""Preloaded by the worker processes that we start on this machine: what would only disturb the terminal of the run that owns them."""

from __future__ import annotations

import logging
import signal


def dask_setup(worker: object) -> None:
    """Called by Dask in each worker, in its main thread.

    A Ctrl-C is for the run, which ends its workers itself; without this each would print a traceback of its own. So would a worker whose
    heartbeat meets the closing scheduler; an error of its work travels to the run in any case.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)
