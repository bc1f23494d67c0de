"""The short way for the one request that a stampede is made of: POST /events/{id}/bookings.

FastAPI's route of the same path documents it, and answers by the same function; this only leaves out the
layers between (routing, dependencies, exception and exit stacks), which cost more than the submit itself.
`docs/benchmarks.md` has the figures.
"""

from __future__ import annotations

import re

from fastapi import Response
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from api.context import ApiContext
from api.problems import ProblemError, body_too_large, onsale_error_response, problem_response
from api.submit import SubmitHeaders, submit_booking
from shared import limits
from shared.errors import OnsaleError

_HEADERS = frozenset({b"content-type", b"prefer", b"idempotency-key"})
_PATH = re.compile(r"/events/([^/]+)/bookings")


class FastLane:
    """An ASGI application that answers bookings itself and hands everything else on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        path = _PATH.fullmatch(scope["path"]) if scope["type"] == "http" else None
        if path is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        try:
            response = await _answer(scope, receive, path[1])
        except ClientDisconnect:
            return
        await response(scope, receive, send)


async def _answer(scope: Scope, receive: Receive, event_id: str) -> Response:
    headers = {name: value for name, value in scope["headers"] if name in _HEADERS}
    context: ApiContext = scope["app"].state.context
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
