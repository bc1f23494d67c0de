"""The short way for the one request that a stampede is made of: POST /events/{id}/bookings.

FastAPI's route of the same path documents it, and is made of the same parts; this only leaves out the
layers between: those of FastAPI (routing, dependencies, exception and exit stacks), those of ASGI, and where
a booking has come whole and has no key, also the task that would wait for its place or result. Together they
cost more than the submit itself. `docs/benchmarks.md` has the figures.
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
from msgspec.structs import replace
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from api.body_limit import check_body, check_declared_length
from api.callers import Caller
from api.context import ApiContext
from api.exchange import Exchange
from api.gate import NO_HEADERS
from api.headers import header_text
from api.loopback import check_loopback
from api.prefer import Preference, read_preference
from api.problem_handlers import onsale_error_response
from api.problems import ProblemError, internal_error, problem_response
from api.security_headers import LINES_IF_NOT_KEPT, security_headers
from api.submit import (
    SubmitHeaders,
    asks_nobody,
    place_found,
    place_given,
    plain_booking,
    result_awaited,
    result_given,
    submit_booking,
)
from api.watch import Watch
from api.whole_response import WireAnswer, lines_of, raw_headers
from shared.errors import EventNotFound, OnsaleError
from shared.line.producer import Acceptance, Submission
from shared.records import JobResult

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
        if not request.has_key and asks_nobody(self._context, caller):
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
        """Put a booking on its event's line, and have it answered when it has its place, or its result."""
        body = request.exchange.take_body()
        check_body(body)
        context = self._context
        preference = read_preference(request.header(b"prefer"), seconds_max=context.settings.wait_seconds_max)
        booking = plain_booking(caller, event_id, body, request.header(b"content-type"))
        if not preference.wait_seconds:
            _Submit(context, request, booking, preference).submit()
        elif context.waiters.try_take():
            _SubmitAndWait(context, request, booking, preference).submit()
        else:
            _Submit(context, request, booking, preference.at_once()).submit()

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


class _Submit:
    """A booking on its way to its place in line, which is its answer."""

    __slots__ = ("_booking", "_context", "_preference", "_request")

    def __init__(
        self, context: ApiContext, request: _Request, booking: Submission, preference: Preference
    ) -> None:
        self._context = context
        self._request = request
        self._booking = booking
        self._preference = preference

    def submit(self) -> None:
        """Put it on its event's line, and have it answered.

        Raises:
            LineUnavailable: too many wait for Redis; it is not answered then.
        """
        loop, variables = asyncio.get_running_loop(), copy_context()

        def tell(told: Acceptance | Exception) -> None:
            # In turn with whatever else has to go on; and so that nothing here can keep others from theirs.
            loop.call_soon(self._tell, told, context=variables)

        self._context.producer.submit_then(self._booking, tell)

    def _tell(self, told: Acceptance | Exception) -> None:
        """Go on with the place of the booking. What needs a second look gets it in a task."""
        if isinstance(told, EventNotFound):
            self._look_again(None)
        elif isinstance(told, Exception):
            self._refuse(told)
        elif told.known:
            self._look_again(told)
        else:
            self._accepted(told)

    def _accepted(self, acceptance: Acceptance) -> None:
        self._request.answer(partial(place_given, self._booking, acceptance, self._preference))

    def _refuse(self, error: Exception) -> None:
        self._request.refuse(error)

    def _look_again(self, acceptance: Acceptance | None) -> None:
        hang_ups = self._request.exchange.hang_ups
        self._request.answer_in_task(
            partial(place_found, self._context, self._booking, acceptance, self._preference, hang_ups)
        )


class _SubmitAndWait(_Submit):
    """The same for a client that waits for the result. One of the slots of those who wait has been taken."""

    __slots__ = ("_limit", "_reply")

    _limit: asyncio.TimerHandle
    _reply: asyncio.Future[JobResult]

    def submit(self) -> None:
        replies = self._context.replies
        self._booking = replace(self._booking, reply_to=replies.channel)
        self._reply = replies.reply_to(self._booking.job_id)
        try:
            super().submit()
        except BaseException:
            self._wait_no_more()
            raise

    def _accepted(self, acceptance: Acceptance) -> None:
        """Wait until the result is there, the client's time is up, or nobody waits any more.

        Each of the latter cancels the reply.
        """
        loop = asyncio.get_running_loop()
        self._limit = loop.call_later(self._preference.wait_seconds, self._reply.cancel)
        self._request.exchange.cancel_at_hang_up(self._reply)
        self._reply.add_done_callback(partial(self._answer, acceptance))

    def _answer(self, acceptance: Acceptance, reply: asyncio.Future[JobResult]) -> None:
        self._limit.cancel()
        self._request.exchange.cancel_at_hang_up(None)
        self._wait_no_more()
        if reply.cancelled():
            self._request.answer_in_task(
                partial(result_awaited, self._context, self._booking, acceptance, self._preference)
            )
        else:
            result = reply.result()
            self._request.answer(partial(result_given, self._booking, acceptance, result, self._preference))

    def _refuse(self, error: Exception) -> None:
        self._wait_no_more()
        super()._refuse(error)

    def _look_again(self, acceptance: Acceptance | None) -> None:
        self._wait_no_more()
        super()._look_again(acceptance)

    def _wait_no_more(self) -> None:
        self._context.replies.forget(self._booking.job_id, self._reply)
        self._context.waiters.give_back()


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
    def has_key(self) -> bool:
        """Whether it wants the answer that it got the first time."""
        return b"idempotency-key" in self._headers

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

    def answer(self, make: Callable[[], Response | WireAnswer]) -> None:
        """Make an answer and send it, with the headers that every one has. A defect is told too."""
        try:
            made = make()
            if isinstance(made, WireAnswer):
                self._send_lines(made)
                return
            if self._told:
                made.headers.update(self._told)
            made.raw_headers.append(self._watch.answered(made.status_code))
            made.raw_headers += security_headers(made.raw_headers)
            self.exchange.send(made)
        except Exception:
            self.exchange.fail()

    def _send_lines(self, answer: WireAnswer) -> None:
        told = lines_of(raw_headers(self._told)) if self._told else b""
        id = lines_of([self._watch.answered(answer.status)])
        self.exchange.send_lines(answer.status, answer.lines + told + id + LINES_IF_NOT_KEPT, answer.body)

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
