"""A publisher that kills itself after a number of calls: `python -m tests.publishing.killed_publisher CONFIG CHANGES`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from discovery.config import load_config
from discovery.publish import publish_pending
from discovery.workspace import open_workspace
from tests.publishing.worlds import stopping_after

if __name__ == "__main__":
    stopping_after(int(sys.argv[2]), setattr, lambda: os.kill(os.getpid(), signal.SIGKILL))
    with open_workspace(load_config(Path(sys.argv[1])), map_shards=map) as ws:
        publish_pending(ws)
