"""A target of webhooks: a real HTTP server on loopback that does what the test says."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A request as it came."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def type(self) -> str:
        return str(self.json["type"])

    @property
    def data(self) -> dict[str, Any]:
        return dict(self.json["data"])

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))

    def verified(self, secret: str) -> Any:
        """What the library for receivers makes of it; raises if the signature is not right."""
        return Webhook(secret).verify(self.body, dict(self.headers))


Reply = Callable[[BaseHTTPRequestHandler, Received], int | None]
"""Gives the status to answer with, or None if it has answered by itself."""


class Receiver:
    """Keeps what it received, in order, and answers as `reply` says: 200 unless a test sets it."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/hook"
        self.port = port
        self.received: list[Received] = []
        self.reply: Reply = lambda _handler, _received: 200
        self.released = threading.Event()

    def hang(self, _handler: BaseHTTPRequestHandler, _received: Received) -> int:
        """Don't answer before the test says so."""
        self.released.wait(60)
        return 200

    def bodies(self) -> list[dict[str, Any]]:
        """What was received, read."""
        return [received.json for received in self.received]


@contextmanager
def running_receiver(certificates: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A receiver that listens in the block; over TLS if it has `certificates`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            received = Received(path=self.path, headers=headers, body=body)
            receiver.received.append(received)
            status = receiver.reply(self, received)
            if status is not None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """A test looks at what was received."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Senders that are killed or give up are what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    if certificates is not None:
        server.socket = certificates.wrap_socket(server.socket, server_side=True)
    receiver = Receiver(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield receiver
    finally:
        receiver.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
