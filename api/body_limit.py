"""An ASGI middleware that refuses bodies over the bound, declared or not, with a problem.

FastAPI's own `max_body_size` answers in plain text.
"""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import ProblemError, body_too_large, problem_response
from shared import limits


def check_declared_length(declared: bytes) -> None:
    """Look at the Content-Length of a request, `0` where it has none.

    Raises:
        ProblemError: its body would be over the bound, or that is no length.
    """
    if not declared.isdigit() or int(declared) > limits.REQUEST_BODY_BYTES_MAX:
        raise _over_the_bound()


def check_body(body: bytes) -> None:
    """Look at as much of a body as has come.

    Raises:
        ProblemError: it is over the bound.
    """
    if len(body) > limits.REQUEST_BODY_BYTES_MAX:
        raise _over_the_bound()


def _over_the_bound() -> ProblemError:
    """What a body over the bound is answered; the rest of it is not read, so the connection ends."""
    return ProblemError(body_too_large(), {"Connection": "close"})


class BodyLimit:
    """Answers 413 before a body over the bound is read into memory."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting the bytes of its body."""
        if scope["type"] != "http" or scope["method"] == "GET":
            await self._app(scope, receive, send)
            return
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        try:
            check_declared_length(declared)
        except ProblemError as error:
            await problem_response(error.problem, error.headers)(scope, receive, send)
            return
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limits.REQUEST_BODY_BYTES_MAX:
                raise HTTPException(413, headers={"Connection": "close"})
            return message

        await self._app(scope, receive_counted, send)
