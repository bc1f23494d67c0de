"""The short way for the one request that a stampede is made of: POST /events/{id}/bookings.

FastAPI's route of the same path documents it, and answers by the same function; this only leaves out the
layers between (routing, dependencies, exception and exit stacks), which cost more than the submit itself.
`docs/benchmarks.md` has the figures.
"""

from __future__ import annotations

import logging
import re

from fastapi import FastAPI, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from api.context import ApiContext
from api.problems import (
    ProblemError,
    body_too_large,
    internal_error,
    onsale_error_response,
    problem_response,
)
from api.submit import SubmitHeaders, submit_booking
from shared import limits
from shared.errors import OnsaleError

logger = logging.getLogger(__name__)

_HEADERS = frozenset({b"content-type", b"prefer", b"idempotency-key"})
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
    headers = {name: value for name, value in scope["headers"] if name in _HEADERS}
    try:
        return await submit_booking(
            context,
            event_id,
            await _body(receive),
            SubmitHeaders(
                content_type=_text(headers.get(b"content-type")),
                prefer=_text(headers.get(b"prefer")),
                idempotency_key=_text(headers.get(b"idempotency-key")),
            ),
        )
    except ProblemError as error:
        return problem_response(error.problem, error.headers)
    except OnsaleError as error:
        return onsale_error_response(error, path=scope["path"])
    except ClientDisconnect:
        raise
    except Exception:
        logger.exception("unexpected error")
        return problem_response(internal_error())


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
