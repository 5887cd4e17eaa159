"""Make the bucket of a remote root when it is missing: `python -m discovery.make_bucket`, once, when a deployment starts."""

from __future__ import annotations

import sys
import time

from discovery.adapters.files import make_bucket
from discovery.config import load_config
from discovery.errors import DiscoveryError, StorageError

WAIT_S = 60.0  # for a server that starts at the same time


def main() -> int:
    """Make the bucket of the configured root; 0 when it is there."""
    try:
        config = load_config()
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                print(make_bucket(config.root, config.s3))
                return 0
            except StorageError as error:
                if time.monotonic() > deadline:
                    raise
                print(f"waiting: {error}", file=sys.stderr)
                time.sleep(2)
    except DiscoveryError as error:
        print(f"discovery: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
