"""A stand-in for a daemon: records every request, answers as if all went well."""

from __future__ import annotations

import json
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

IDENTITY = "c0ffee" * 10 + "abcd"


class Request(NamedTuple):
    method: str
    path: str  # without the version
    query: dict[str, list[str]]
    body: Any


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Recorder

    def _answer(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        data = self.rfile.read(size)
        url = urlsplit(self.path)
        path = url.path if url.path == "/_ping" else "/" + url.path.split("/", 2)[-1]
        if path != "/_ping":
            body = json.loads(data) if data.strip() else None
            self.server.requests.append(Request(self.command, path, parse_qs(url.query), body))
        content = json.dumps(self.server.answers.get(path, {"Id": IDENTITY, "Warnings": []})).encode()
        self.send_response(200)
        self.send_header("Api-Version", "1.48")
        self.send_header("Ostype", "linux")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_POST = do_DELETE = do_HEAD = _answer

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the requests themselves are the log."""

    def address_string(self) -> str:
        return "client"


class Recorder(socketserver.ThreadingUnixStreamServer):
    """Serves on a unix socket while used as a context; `answers` maps paths to what is said instead."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _Handler)
        self.host = f"unix://{path}"
        self.requests: list[Request] = []
        self.answers: dict[str, Any] = {}
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()
