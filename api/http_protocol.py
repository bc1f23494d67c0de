"""uvicorn's HTTP protocol, made quicker to answer and harder to hold up.

A booking is answered by the fast lane, before the application is entered. An answer's head and body go out in
one write: uvicorn writes them one after the other, each a system call and a packet of its own, a tenth of the
time of a submit. And what uvicorn leaves open is bounded: how long a request may take to arrive, how long its
head may be, how many connections a process holds.
Use it with `uvicorn --http api.http_protocol:HttpProtocol`; without it everything works, unbounded in these.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from http import HTTPStatus
from typing import Any, cast

import orjson
from fastapi import Response
from starlette.types import Receive, Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from api.fast_lane import FAST_LANE, FastLane
from api.problems import (
    PROBLEM_MEDIA_TYPE,
    ProblemDocument,
    head_too_large,
    not_http,
    request_too_slow,
    too_many_connections,
)
from shared import limits

logger = logging.getLogger(__name__)


class HttpProtocol(HttpToolsProtocol):
    """Writes what is sent in one turn of the event loop together, and waits for nobody for ever."""

    _patience: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _is_in_head = True
    _is_whole = False
    _is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin with a new connection."""
        super().connection_made(_OneWrite(transport, self.loop))  # type: ignore[arg-type]
        if len(self.connections) > limits.CONNECTIONS_MAX:
            self._refuse(too_many_connections())
        else:
            self._begin_to_wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what has arrived; a request that is not whole by then has so long to become so."""
        if self._is_refused:
            return
        if self._is_in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._is_in_head and self._head_bytes > limits.REQUEST_HEAD_BYTES_MAX:
            self._refuse(head_too_large())
        elif self._is_whole:
            self._wait_no_more()
        elif self._patience is None:
            self._begin_to_wait()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._is_in_head, self._is_whole = True, False

    def on_headers_complete(self) -> None:
        """The head of a request is there."""
        self._is_in_head, self._head_bytes = False, 0
        if len(self.headers) > limits.REQUEST_HEADERS_MAX:
            self._refuse(head_too_large())
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body is there."""
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """All of a request is there."""
        self._is_whole = True
        if not self._is_refused:
            super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Begin to answer a request: by the fast lane what it takes, by the application anything else.

        uvicorn writes its log of accesses and refuses what is too much for it in the application's place.
        """
        lane: FastLane | None = self.app_state.get(FAST_LANE)
        answering = None
        if lane is not None and app is self.app and not self.config.access_log:
            answering = lane.answering(cast(Scope, cycle.scope), cast(Receive, cycle.receive))
        if answering is None:
            super()._start_asgi_task(cycle, app)
            return
        task = self.loop.create_task(_answer_whole(cycle, answering))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        self._refuse(not_http())

    def _begin_to_wait(self) -> None:
        self._patience = self.loop.call_later(limits.REQUEST_SECONDS_MAX, self._lose_patience)

    def _wait_no_more(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _lose_patience(self) -> None:
        self._patience = None
        self._refuse(request_too_slow())

    def _refuse(self, document: ProblemDocument) -> None:
        """Answer with a problem and hang up, whatever else was to come."""
        self._is_refused = True
        self._wait_no_more()
        if not self.transport.is_closing():
            self.transport.write(_answer(document))
            self.transport.close()


async def _answer_whole(cycle: RequestResponseCycle, answering: Awaitable[Response | None]) -> None:
    """Do for an answer that comes whole what uvicorn does for one that an application sends in parts."""
    try:
        response = await answering
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
    except Exception:
        logger.exception("unexpected error")
        response = None
    if cycle.disconnected:
        return
    if response is None:
        cycle.transport.close()
        return
    cycle.transport.write(_head(cycle, response) + response.body)
    cycle.response_started = cycle.response_complete = True
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()


def _head(cycle: RequestResponseCycle, response: Response) -> bytes:
    """The head of an answer, which ends the connection if either side wants that."""
    parts = [STATUS_LINE[response.status_code]]
    headers = [*cycle.default_headers, *response.raw_headers]
    if (b"connection", b"close") in headers:
        cycle.keep_alive = False
    elif not cycle.keep_alive:
        headers.append((b"connection", b"close"))
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    parts.append(b"\r\n")
    return b"".join(parts)


def _answer(document: ProblemDocument) -> bytes:
    body = orjson.dumps(document)
    status = HTTPStatus(document["status"])
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: {PROBLEM_MEDIA_TYPE}\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


class _OneWrite:
    """A transport that collects what is written until the end of the event loop's turn."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        """Send what is left and hang up; a client that does not take it is not waited for for ever."""
        self._flush()
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._loop.call_later(limits.CLOSE_SECONDS_MAX, self._transport.abort)

    def _flush(self) -> None:
        data = b"".join(self._parts)
        self._parts.clear()
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
