"""An export in a process of its own, to be killed: ROOT ENDPOINT FORMAT OUT. A line of progress on stdout for each picture that was read."""

from __future__ import annotations

import sys
import time

from discovery.config import S3Config
from discovery.core.export_plan import ExportOptions
from discovery.stages import export as stage
from discovery.workspace import open_workspace
from tests.export.conftest import settings

READ_S = 0.2  # a source that takes so long for a picture, so that there is a middle of the export to be killed in


def main(root: str, endpoint: str, name: str, out: str) -> None:
    read = stage.read_asset

    def slowly(*arguments: object) -> bytes:
        time.sleep(READ_S)
        data = read(*arguments)  # type: ignore[arg-type]
        print("read", flush=True)
        return data

    stage.read_asset = slowly  # type: ignore[assignment]
    with open_workspace(settings(root, S3Config(endpoint_url=endpoint))) as ws:
        print("ready", flush=True)
        stage.export("photos@1", name, out, ws, ExportOptions(shard_examples=4))
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
