"""The short way for the one request that a stampede is made of: POST /events/{id}/bookings.

FastAPI's route of the same path documents it, and answers by the same function; this only leaves out the
layers between (routing, dependencies, exception and exit stacks), which cost more than the submit itself.
`docs/benchmarks.md` has the figures.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

from fastapi import FastAPI, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from api.callers import Caller
from api.context import ApiContext
from api.loopback import check_loopback
from api.problem_handlers import onsale_error_response
from api.problems import (
    ProblemError,
    body_too_large,
    internal_error,
    problem_response,
)
from api.submit import SubmitHeaders, submit_booking
from shared import limits
from shared.errors import OnsaleError

logger = logging.getLogger(__name__)

_HEADERS = frozenset({b"authorization", b"content-type", b"prefer", b"idempotency-key"})
_PATH = re.compile(r"/events/([^/]+)/bookings")

ROUTE = "/events/{event_id}/bookings"
"""The route as metrics name it, the same as that of FastAPI."""


async def answer_booking(app: FastAPI, scope: Scope, receive: Receive, send: Send) -> bool:
    """Answer a booking; gives False if this is another request, which is then untouched."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return False
    path = _PATH.fullmatch(scope["path"])
    if path is None:
        return False
    scope["route"] = ROUTE
    try:
        response = await _answer(app.state.context, scope, receive, path[1])
    except ClientDisconnect:
        return True
    await response(scope, receive, send)
    return True


async def _answer(context: ApiContext, scope: Scope, receive: Receive, event_id: str) -> Response:
    headers = _headers(scope)
    try:
        check_loopback(context.settings, scope)
        admission = context.gate.admit(_text(headers.get(b"authorization")))
    except (ProblemError, OnsaleError) as error:
        return _refusal(error, scope)
    response = await _answer_caller(context, scope, receive, event_id, headers, admission.caller)
    if admission.headers:
        response.headers.update(admission.headers)
    return response


async def _answer_caller(
    context: ApiContext,
    scope: Scope,
    receive: Receive,
    event_id: str,
    headers: Mapping[bytes, bytes],
    caller: Caller,
) -> Response:
    try:
        return await submit_booking(
            context,
            caller,
            event_id,
            await _body(receive),
            SubmitHeaders(
                content_type=_text(headers.get(b"content-type")),
                prefer=_text(headers.get(b"prefer")),
                idempotency_key=_text(headers.get(b"idempotency-key")),
            ),
            receive,
        )
    except (ProblemError, OnsaleError) as error:
        return _refusal(error, scope)
    except ClientDisconnect:
        raise
    except Exception:
        logger.exception("unexpected error")
        return problem_response(internal_error())


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
            raise ProblemError(body_too_large(), {"Connection": "close"})
        if not message.get("more_body", False):
            return body


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
