"""A registry that can be away for one process and there for all the others."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_SECONDS = 10


class Gate:
    """Stands before a registry on loopback, and answers for it unless it is shut."""

    def __init__(self, registry_url: str) -> None:
        self.is_open = True
        gate = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if not gate.is_open:
                    self.send_error(503)
                    return
                try:
                    with urllib.request.urlopen(registry_url + self.path, timeout=_SECONDS) as answer:
                        status, body = answer.status, answer.read()
                except urllib.error.HTTPError as refused:
                    status, body = refused.code, refused.read()
                self.send_response(status)
                self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def gate_before(registry_url: str) -> Iterator[Gate]:
    """Open a gate, for as long as the block lasts."""
    gate = Gate(registry_url)
    serving = threading.Thread(target=gate.server.serve_forever, name="gate", daemon=True)
    serving.start()
    try:
        yield gate
    finally:
        gate.server.shutdown()
        gate.server.server_close()
        serving.join()
