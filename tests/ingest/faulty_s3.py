"""A proxy before a real S3 server that does what networks and busy servers do: refuses, breaks off, dawdles."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
BROKEN = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"

DENIED = b"<?xml version='1.0'?><Error><Code>InvalidAccessKeyId</Code><Message>The access key is not known.</Message></Error>"


@dataclass
class FaultyS3:
    """`fault(method, path, nth)` names what happens to the nth request of that method and path: '', 'throttle', 'error', 'cut', 'stall', 'reset', 'lost'.

    lost: it is done, and the answer does not come. signed_by: the one access key that is let through, since moto takes any.
    """

    upstream: str
    fault: Callable[[str, str, int], str] = lambda method, path, nth: ""
    signed_by: str = ""
    asked: dict[tuple[str, str], int] = field(default_factory=dict)
    faults: int = 0

    def __enter__(self) -> FaultyS3:
        proxy = self
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                key = (self.command, urlsplit(self.path).path)
                with lock:
                    nth = proxy.asked[key] = proxy.asked.get(key, 0) + 1
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if proxy.signed_by and f"Credential={proxy.signed_by}/" not in self.headers.get("Authorization", ""):
                    return self.answer(403, {"Content-Type": "application/xml"}, DENIED)
                kind = proxy.fault(*key, nth)
                proxy.faults += bool(kind)
                if kind in ("throttle", "error"):
                    return self.answer(503 if kind == "throttle" else 500, {"Content-Type": "application/xml"}, SLOW_DOWN if kind == "throttle" else BROKEN)
                if kind == "reset":
                    self.close_connection = True
                    return self.connection.close()
                if kind == "stall":
                    time.sleep(3)
                upstream = http.client.HTTPConnection(urlsplit(proxy.upstream).netloc, timeout=30)
                upstream.request(self.command, self.path, body, dict(self.headers))
                answer = upstream.getresponse()
                data = answer.read()
                upstream.close()
                if kind == "lost":
                    self.close_connection = True
                    return self.connection.close()
                self.answer(answer.status, dict(answer.getheaders()), data, len(data) // 2 if kind == "cut" else None)

            def answer(self, status: int, headers: dict[str, str], data: bytes, cut: int | None = None) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                        self.send_header(name, value)
                length = headers.get("Content-Length") or headers.get("content-length") if self.command == "HEAD" else len(data)
                self.send_header("Content-Length", str(length or 0))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data[:cut])
                if cut is not None:
                    self.wfile.flush()
                    self.close_connection = True
                    self.connection.close()

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = forward  # noqa: N815  # names of http.server

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *arguments: None  # type: ignore[method-assign]  # a client that hung up
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *arguments: object) -> None:
        self.server.shutdown()
        self.server.server_close()
