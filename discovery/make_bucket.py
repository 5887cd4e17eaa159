"""Make the bucket of a remote root when it is missing: `python -m discovery.make_bucket`, once, when a deployment starts."""

from __future__ import annotations

import sys

from discovery.adapters.files import make_bucket
from discovery.config import load_config
from discovery.errors import DiscoveryError


def main() -> int:
    """Make the bucket of the configured root; 0 when it is there."""
    config = load_config()
    try:
        print(make_bucket(config.root, config.s3))
    except DiscoveryError as error:
        print(f"discovery: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
