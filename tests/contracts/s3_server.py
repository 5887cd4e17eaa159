"""moto's S3 as a process of its own, with the two promises of S3 that moto leaves out.

A body that breaks off is refused instead of stored, and a condition is checked in the same step as the write (moto checks first and
writes then, so that two of its threads could both win).
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


def serve() -> None:
    """Answer on a free port of loopback, which is the first line on stdout."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    moto = DomainDispatcherApplication(create_backend_app)
    lock = threading.Lock()

    def one_at_a_time(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length) if length else b""
        if len(body) < length:
            start_response("400 Bad Request", [])
            return [b"<Error><Code>IncompleteBody</Code></Error>"]
        if length:
            environ["wsgi.input"] = io.BytesIO(body)
        with lock:
            return [b"".join(moto(environ, start_response))]

    server = make_server("127.0.0.1", 0, one_at_a_time, threaded=True, request_handler=MotoRequestHandler)
    print(server.server_port, flush=True)
    server.serve_forever()


@contextmanager
def s3_server() -> Iterator[str]:
    """URL of a running server; the process ends with the block."""
    environ = {name: value for name, value in os.environ.items() if name != "AWS_PROFILE"} | CREDENTIALS
    process = subprocess.Popen([sys.executable, "-W", "ignore", __file__], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environ)
    try:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        urllib.request.urlopen(f"{url}/moto-api/").close()
        yield url
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    serve()
