"""uvicorn's HTTP protocol, made quicker to answer and harder to hold up.

A booking is answered by the fast lane, before the application is entered. An answer's head and body go out in
one write: uvicorn writes them one after the other, each a system call and a packet of its own, a tenth of the
time of a submit. And what uvicorn leaves open is bounded: how long a request may take to arrive, how long its
head may be, how many connections a process holds, how far a client may send ahead of the answers.
`python -m api serve` uses it, and so does `uvicorn --http api.http_protocol:HttpProtocol`; without it
everything works, unbounded in these.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any, cast

import httptools
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.exchange import Exchange, let_go, written
from api.fast_lane import FAST_LANE, FastLane, Rest
from api.one_write import OneWrite, PipelineFlow
from api.problems import (
    RETRY_AFTER_SECONDS,
    ProblemDocument,
    head_too_large,
    not_http,
    problem_response,
    request_too_slow,
    too_many_connections,
)
from api.security_headers import security_headers
from shared import limits
from shared.identifiers import new_id
from shared.log import log_event

logger = logging.getLogger(__name__)

_OFFERS = frozenset({b"upgrade", b"http2-settings"})


class HttpProtocol(HttpToolsProtocol):
    """Writes what is sent in one turn of the event loop together, and waits for nobody for ever."""

    _patience: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _idle_since: float | None = None
    _arrived_bytes = 0
    _head_bytes = 0
    _is_in_head = True
    _is_whole = False
    _is_refused = False
    _is_lost = False
    _awaited: asyncio.Future[Any] | None = None
    _answering: RequestResponseCycle | None = None
    _booking: Rest | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin with a new connection."""
        super().connection_made(OneWrite(transport, self.loop))  # type: ignore[arg-type]
        self.flow = PipelineFlow(self.transport, self.pipeline)
        if len(self.connections) > limits.CONNECTIONS_MAX:
            self._refuse(too_many_connections())
        else:
            self._begin_to_wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._wait_no_more()
        self._unset_keepalive_if_required()
        self.resume_writing()
        self._is_lost = True
        if self._booking is not None and self._answering is not None:
            # The rest of it will not come.
            self._booking = None
            let_go(self._answering)
        if self._awaited is not None:
            self._awaited.cancel()
        if self._answering is not None and not self._answering.response_complete:
            # uvicorn tells only the newest request of a pipeline.
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what has arrived; a request that is not whole by then has so long to become so.

        That time does not run while an earlier one is answered: nothing may be read until then.
        """
        if self._is_refused:
            return
        self._arrived_bytes = len(data)
        if self._is_in_head:
            self._head_bytes += self._arrived_bytes
        self._parse(data)
        if self._booking is not None:
            self._answer_booking_soon()
        if self.transport.is_closing():
            return
        if self._is_in_head and self._head_bytes > limits.REQUEST_HEAD_BYTES_MAX:
            self._refuse(head_too_large())
        elif self._is_whole or self._answers_a_whole_request():
            self._wait_no_more()
        elif self._patience is None:
            self._begin_to_wait()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._idle_since = None
        self._is_in_head, self._is_whole = True, False

    def on_headers_complete(self) -> None:
        """The head of a request is there."""
        head_bytes_max = max(self._head_bytes, self._arrived_bytes)
        self._is_in_head, self._head_bytes = False, 0
        if self._is_refused:
            return
        if len(self.headers) > limits.REQUEST_HEADERS_MAX or (
            head_bytes_max > limits.REQUEST_HEAD_BYTES_MAX and self._is_head_too_long()
        ):
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
            self._wait_no_more()
            super().on_message_complete()
            if self._answering is not None and self._answering.response_complete:
                # It was answered before it was whole.
                self._begin_to_idle()

    def on_response_complete(self) -> None:
        """A request is answered: now it is the turn of the next one, which may have begun or is yet to come.

        In the place of uvicorn's own, which sets a timer anew after each answer.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            self._answer_booking_soon()
        elif self._is_whole:
            self._begin_to_idle()
        if not self._is_whole and self._patience is None:
            self._begin_to_wait()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has been idle for long enough; look again later at one that has not."""
        self.timeout_keep_alive_task = None
        if self._idle_since is None:
            return
        idle_seconds = self.loop.time() - self._idle_since
        if idle_seconds < self.timeout_keep_alive:
            self._look_later(self.timeout_keep_alive - idle_seconds)
        elif not self.transport.is_closing():
            self.transport.close()

    def pause_writing(self) -> None:
        """The client leaves answers unread, which it may do for a while."""
        super().pause_writing()
        self._unread = self.loop.call_later(limits.UNREAD_SECONDS_MAX, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads."""
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Begin to answer a request: a booking by the fast lane, anything else by the application.

        What is too much for uvicorn it lets something else refuse in the application's place.
        """
        self._answering = cycle
        lane: FastLane | None = self.app_state.get(FAST_LANE)
        event_id = None if lane is None or app is not self.app else lane.event_of(cast(Scope, cycle.scope))
        if lane is None or event_id is None:
            super()._start_asgi_task(cycle, app)
            return
        exchange = Exchange(cycle, self.loop, self.tasks, self.cancel_at_hang_up)
        self._booking = partial(lane.answer, exchange, event_id)

    def _answer_booking_soon(self) -> None:
        """In its turn, as if it had a task: behind those, of other requests too, that arrived before it.

        Not in the middle of what has arrived: there may be the end of its body, and what comes behind it is
        not looked at before its answer is known, which may end the connection.
        """
        self.loop.call_soon(self._answer_booking)

    def _answer_booking(self) -> None:
        """Answer the booking whose turn it is, if there is one, or go on with it."""
        answer = self._booking
        if answer is None or self.transport.is_closing():
            return
        self._booking = None
        rest = answer()
        if rest is not None:
            self._booking = rest

    def cancel_at_hang_up(self, awaited: asyncio.Future[Any] | None) -> None:
        """Cancel this when the client hangs up, also if it has already; None: nothing is awaited any more."""
        self._awaited = awaited
        if awaited is not None and self._is_lost:
            awaited.cancel()

    def _parse(self, data: bytes) -> None:
        """Feed the parser.

        It ends a request at its head if that offers to speak something else, and would take the body for the
        next request. No offer is accepted here, so the request is read again without it.
        """
        parts: list[bytes | memoryview] = [data]
        while parts and not self._is_refused:
            part = parts.pop()
            try:
                self.parser.feed_data(part)
            except httptools.HttpParserUpgrade as offer:
                if self.parser.get_method() == b"CONNECT":
                    # What follows is meant for somebody else.
                    self._refuse(not_http())
                else:
                    parts += [memoryview(part)[offer.args[0] :], self._head_without_offer()]
                    self.parser = _new_parser(self)
            except httptools.HttpParserError:
                log_event(logger, logging.WARNING, "what came is no HTTP")
                self._refuse(not_http())

    def _should_upgrade(self) -> bool:
        """Whether uvicorn leaves alone a request that makes an offer: it is read again."""
        return self.parser.get_method() != b"CONNECT"

    def _head_without_offer(self) -> bytes:
        version = self.parser.get_http_version().encode()
        parts = [self.parser.get_method(), b" ", self.url, b" HTTP/", version, b"\r\n"]
        for name, value in self.headers:
            if name not in _OFFERS:
                parts += (name, b": ", value, b"\r\n")
        parts.append(b"\r\n")
        return b"".join(parts)

    def _is_head_too_long(self) -> bool:
        """Also one that came whole, of which no part was ever counted."""
        fields = b"".join([name + value for name, value in self.headers])
        return len(self.url) + len(fields) > limits.REQUEST_HEAD_BYTES_MAX

    def _answers_a_whole_request(self) -> bool:
        """Whether what arrives now belongs to a later request than the one that is being answered."""
        answering = self._answering
        return answering is not None and not answering.more_body and not answering.response_complete

    def _begin_to_idle(self) -> None:
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_later(self.timeout_keep_alive)

    def _look_later(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

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
        """Answer with a problem and hang up, whatever else was to come.

        An earlier request that is being answered gets its answer, as the last: it would be taken for that.
        """
        self._is_refused = True
        self._wait_no_more()
        if self._answering is not None and self._answers_a_whole_request():
            self._answering.keep_alive = False
            self.pipeline.clear()
        elif not self.transport.is_closing():
            self.transport.write(_last_answer(document, self.server_state.default_headers))
            self.transport.close()


def _last_answer(document: ProblemDocument, default_headers: list[tuple[bytes, bytes]]) -> bytes:
    """What a connection is refused with, with the headers that every answer has."""
    retry = {"Retry-After": str(RETRY_AFTER_SECONDS)} if document["status"] == 503 else {}
    response = problem_response(document, retry)
    headers = [*default_headers, *response.raw_headers, (b"x-request-id", new_id().encode())]
    return written(response, [*headers, *security_headers(headers), (b"connection", b"close")])


def _new_parser(protocol: HttpProtocol) -> httptools.HttpRequestParser:
    """As uvicorn makes its own: what comes behind the last request of a connection is left alone."""
    parser = httptools.HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser
