"""The short way for the one request that a stampede is made of: POST /events/{id}/bookings.

FastAPI's route of the same path documents it, and is made of the same parts; this only leaves out the
layers between: those of FastAPI (routing, dependencies, exception and exit stacks), those of ASGI, and where
a booking has come whole and asks for no more than its place, also the task that would wait for that. Together
they cost more than the submit itself. `docs/benchmarks.md` has the figures.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable
from contextvars import copy_context
from functools import partial
from typing import TypeAlias

from fastapi import Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from api.body_limit import check_body, check_declared_length
from api.callers import Caller
from api.context import ApiContext
from api.exchange import Exchange
from api.gate import NO_HEADERS
from api.headers import header_text
from api.loopback import check_loopback
from api.problem_handlers import onsale_error_response
from api.problems import ProblemError, internal_error, problem_response
from api.security_headers import security_headers
from api.submit import (
    SubmitHeaders,
    asks_nobody,
    place_found,
    place_given,
    plain_booking,
    submit_booking,
)
from api.watch import Watch
from shared.errors import EventNotFound, OnsaleError
from shared.line.producer import Acceptance, Submission

logger = logging.getLogger(__name__)

FAST_LANE = "fast_lane"
"""Where the server finds the lane in the state that the application gives it when it starts."""

_HEADERS = frozenset({b"authorization", b"content-length", b"content-type", b"prefer", b"idempotency-key"})
_PATH = re.compile(r"/events/([^/]+)/bookings")

ROUTE = "/events/{event_id}/bookings"
"""The route as metrics name it, the same as that of FastAPI."""


Rest: TypeAlias = Callable[[], "Rest | None"]
"""What is left to do when more of a request has come; gives the same again until all is done."""


class FastLane:
    """Answers bookings for a server that asks it before the application."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    @staticmethod
    def event_of(scope: Scope) -> str | None:
        """The event that a request would book at, as its client wrote it; None if it is another request."""
        path = _PATH.fullmatch(scope["path"]) if scope["method"] == "POST" else None
        return None if path is None else path[1]

    def answer(self, exchange: Exchange, event_id: str) -> Rest | None:
        """Answer a booking at this event: at once, when the line has told its place, or in a task.

        Gives what is to be called when more of its body has come, if that is waited for.
        """
        request = _Request(self._context, exchange)
        if not exchange.is_listened_to:
            request.answer_in_task(partial(self._submit_in_task, request, event_id, None))
            return None
        try:
            caller = request.admit()
        except Exception as error:
            request.refuse(error)
            return None
        if request.asks_for_its_place and asks_nobody(self._context, caller):
            if exchange.is_whole or request.says_its_length:
                return self._submit_when_whole(request, caller, event_id)
        request.answer_in_task(partial(self._submit_in_task, request, event_id, caller))
        return None

    def _submit_when_whole(self, request: _Request, caller: Caller, event_id: str) -> Rest | None:
        if not request.exchange.is_whole:
            request.exchange.read_on()
            return partial(copy_context().run, self._submit_when_whole, request, caller, event_id)
        try:
            self._submit(request, caller, event_id)
        except Exception as error:
            request.refuse(error)
        return None

    def _submit(self, request: _Request, caller: Caller, event_id: str) -> None:
        """Put a booking on its event's line, and have it answered when it has its place."""
        body = request.exchange.take_body()
        check_body(body)
        booking = plain_booking(caller, event_id, body, request.header(b"content-type"))
        loop, variables = asyncio.get_running_loop(), copy_context()

        def tell(told: Acceptance | Exception) -> None:
            # In turn with whatever else has to go on; and so that nothing here can keep others from theirs.
            loop.call_soon(self._tell, request, booking, told, context=variables)

        self._context.producer.submit_then(booking, tell)

    def _tell(self, request: _Request, booking: Submission, told: Acceptance | Exception) -> None:
        """Answer with the place of a booking. What needs a second look gets it in a task."""
        if isinstance(told, EventNotFound):
            request.answer_in_task(partial(place_found, self._context, booking, None))
        elif isinstance(told, Exception):
            request.refuse(told)
        elif told.known:
            request.answer_in_task(partial(place_found, self._context, booking, told))
        else:
            request.answer(partial(place_given, booking, told))

    async def _submit_in_task(self, request: _Request, event_id: str, caller: Caller | None) -> Response:
        """The answer to a booking, also of a caller who has yet to be let in (None)."""
        exchange = request.exchange
        return await submit_booking(
            self._context,
            request.admit() if caller is None else caller,
            event_id,
            await _body(exchange.receive),
            SubmitHeaders(
                content_type=request.header(b"content-type"),
                prefer=request.header(b"prefer"),
                idempotency_key=request.header(b"idempotency-key"),
            ),
            exchange.hang_ups,
        )


class _Request:
    """A booking in the lane, from its head to its answer."""

    __slots__ = ("_context", "_headers", "_told", "_watch", "exchange")

    def __init__(self, context: ApiContext, exchange: Exchange) -> None:
        scope = exchange.scope
        lines = scope["headers"]
        self._headers = dict(lines)
        self._watch = Watch(scope, self._headers)
        self._context = context
        self._told = NO_HEADERS
        self.exchange = exchange
        scope["route"] = ROUTE
        if len(self._headers) < len(lines):
            _join_lines(self._headers, lines)

    def header(self, name: bytes) -> str | None:
        """A header as text, if it is there."""
        return header_text(self._headers.get(name))

    @property
    def asks_for_its_place(self) -> bool:
        """Whether it wants nothing else: neither to wait, nor the answer that it got the first time."""
        return b"prefer" not in self._headers and b"idempotency-key" not in self._headers

    @property
    def says_its_length(self) -> bool:
        """Whether its body is known not to be over the bound before it is there, and is on its way."""
        return b"content-length" in self._headers and b"expect" not in self._headers

    def admit(self) -> Caller:
        """Who sends it.

        Raises:
            ProblemError, OnsaleError: it is not let in.
        """
        check_loopback(self._context.settings, self.exchange.scope)
        check_declared_length(self._headers.get(b"content-length", b"0"))
        admission = self._context.gate.admit(self.header(b"authorization"))
        self._told = admission.headers
        return admission.caller

    def answer_in_task(self, make: Callable[[], Awaitable[Response]]) -> None:
        """Make an answer that has to wait for something, and send it; none if the client hangs up first."""
        self.exchange.run(self._answer_when_made(make))

    async def _answer_when_made(self, make: Callable[[], Awaitable[Response]]) -> None:
        try:
            response = await make()
        except ClientDisconnect:
            return
        except Exception as error:
            self.refuse(error)
        else:
            self.answer(lambda: response)

    def answer(self, make: Callable[[], Response]) -> None:
        """Make an answer and send it, with the headers that every one has. A defect is told too."""
        try:
            response = make()
            if self._told:
                response.headers.update(self._told)
            response.raw_headers.append(self._watch.answered(response.status_code))
            response.raw_headers += security_headers(response.raw_headers)
            self.exchange.send(response)
        except Exception:
            self.exchange.fail()

    def refuse(self, error: Exception) -> None:
        """Send what an error is answered with."""
        self.answer(partial(_refusal, error, self.exchange.scope["path"]))


def _refusal(error: Exception, path: str) -> Response:
    try:
        if isinstance(error, ProblemError):
            return problem_response(error.problem, error.headers)
        if isinstance(error, OnsaleError):
            return onsale_error_response(error, path=path)
    except OnsaleError as unexpected:
        error = unexpected
    logger.error("unexpected error", exc_info=error)
    return problem_response(internal_error())


def _join_lines(headers: dict[bytes, bytes], lines: Iterable[tuple[bytes, bytes]]) -> None:
    """Several lines of a header that the lane reads mean the same as one; of the others the last counts."""
    for name in _HEADERS & headers.keys():
        headers[name] = b", ".join(value for each, value in lines if each == name)


async def _body(receive: Receive) -> bytes:
    """The whole body, which is nearly always one message.

    Raises:
        ProblemError: it is over the bound; no more of it is read.
        ClientDisconnect: the client hung up before the end.
    """
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part: bytes = message.get("body", b"")
        body += part
        check_body(body)
        if not message.get("more_body", False):
            return body
