"""A worker's HTTP endpoint for who watches it: `/metrics` and `/health`, in a thread of its own."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer

from shared import limits
from shared.log import log_event
from shared.metrics import CONTENT_TYPE

logger = logging.getLogger(__name__)


@contextmanager
def endpoint(port: int, *, metrics: Callable[[], bytes], is_healthy: Callable[[], bool]) -> Iterator[int]:
    """Answer on this port, on all addresses, while the block runs; gives the port.

    It answers one request after the other: it is for a scraper and a probe, and must not take the worker's
    time.

    Raises:
        OSError: the port can't be had.
    """

    documents = {"/metrics": lambda: _metrics(metrics), "/health": lambda: _health(is_healthy)}

    class Handler(_Handler):
        def document(self, path: str) -> _Document:
            return documents.get(path, _nothing)()

    server = _Server(("", port), Handler)
    thread = threading.Thread(target=server.serve_forever, name="endpoint", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


_Document = tuple[HTTPStatus, str, bytes]


class _Server(HTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """One event in the log, in place of a traceback on standard error."""
        error = sys.exc_info()[1]
        if isinstance(error, ConnectionError):
            log_event(logger, logging.INFO, "asker hung up", reason=repr(error))
        else:
            logger.exception("unexpected error")


class _Handler(BaseHTTPRequestHandler):
    """Answers GET."""

    timeout = limits.ENDPOINT_SECONDS_MAX

    def document(self, path: str) -> _Document:
        """What is at this path."""
        raise NotImplementedError

    def do_GET(self) -> None:
        """Answer with the document of this path."""
        status, content_type, body = self.document(self.path.partition("?")[0])
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: a scrape is not an event."""


def _metrics(metrics: Callable[[], bytes]) -> _Document:
    return HTTPStatus.OK, CONTENT_TYPE, metrics()


def _health(is_healthy: Callable[[], bool]) -> _Document:
    """The worker lives while its loop turns, whether or not the servers that it needs answer."""
    if is_healthy():
        return HTTPStatus.OK, "application/json", b'{"status":"ok"}'
    return HTTPStatus.SERVICE_UNAVAILABLE, "application/json", b'{"status":"stuck"}'


def _nothing() -> _Document:
    return HTTPStatus.NOT_FOUND, "text/plain", b"There is /metrics and /health.\n"
