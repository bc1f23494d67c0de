"""The short way for the one request that a stampede is made of: POST /events/{id}/bookings.

FastAPI's route of the same path documents it, and answers by the same function; this only leaves out the
layers between, those of FastAPI (routing, dependencies, exception and exit stacks) and those of ASGI, which
together cost more than the submit itself. `docs/benchmarks.md` has the figures.
"""

from __future__ import annotations

import logging
import re

from fastapi import Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from api.body_limit import check_declared_length, over_the_bound
from api.context import ApiContext
from api.gate import NO_HEADERS
from api.headers import header_text
from api.loopback import check_loopback
from api.problem_handlers import onsale_error_response
from api.problems import (
    ProblemError,
    internal_error,
    problem_response,
)
from api.security_headers import security_headers
from api.submit import SubmitHeaders, submit_booking
from api.wait import HangUps
from api.watch import Watch
from shared import limits
from shared.errors import OnsaleError

logger = logging.getLogger(__name__)

FAST_LANE = "fast_lane"
"""Where the server finds the lane in the state that the application gives it when it starts."""

_HEADERS = frozenset({b"authorization", b"content-length", b"content-type", b"prefer", b"idempotency-key"})
_PATH = re.compile(r"/events/([^/]+)/bookings")

ROUTE = "/events/{event_id}/bookings"
"""The route as metrics name it, the same as that of FastAPI."""


class FastLane:
    """Answers bookings for a server that asks it before the application."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    @staticmethod
    def event_of(scope: Scope) -> str | None:
        """The event that a request would book at, as its client wrote it; None if it is another request."""
        path = _PATH.fullmatch(scope["path"]) if scope["method"] == "POST" else None
        return None if path is None else path[1]

    async def answer(
        self, scope: Scope, receive: Receive, event_id: str, hang_ups: HangUps
    ) -> Response | None:
        """The answer to a booking, with every header; None if its client hung up before it was whole."""
        watch = Watch(scope)
        scope["route"] = ROUTE
        headers, told = _headers(scope), NO_HEADERS
        try:
            check_loopback(self._context.settings, scope)
            check_declared_length(headers.get(b"content-length", b"0"))
            admission = self._context.gate.admit(header_text(headers.get(b"authorization")))
            told = admission.headers
            response = await submit_booking(
                self._context,
                admission.caller,
                event_id,
                await _body(receive),
                SubmitHeaders(
                    content_type=header_text(headers.get(b"content-type")),
                    prefer=header_text(headers.get(b"prefer")),
                    idempotency_key=header_text(headers.get(b"idempotency-key")),
                ),
                hang_ups,
            )
        except (ProblemError, OnsaleError) as error:
            response = _refusal(error, scope)
        except ClientDisconnect:
            return None
        except Exception:
            logger.exception("unexpected error")
            response = problem_response(internal_error())
        if told:
            response.headers.update(told)
        response.raw_headers.append(watch.answered(response.status_code))
        response.raw_headers += security_headers(response.raw_headers)
        return response


def _refusal(error: ProblemError | OnsaleError, scope: Scope) -> Response:
    if isinstance(error, ProblemError):
        return problem_response(error.problem, error.headers)
    return onsale_error_response(error, path=scope["path"])


def _headers(scope: Scope) -> dict[bytes, bytes]:
    """The headers that matter; several lines of one mean the same as one."""
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in _HEADERS:
            headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


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
        if len(body) > limits.REQUEST_BODY_BYTES_MAX:
            raise over_the_bound()
        if not message.get("more_body", False):
            return body
