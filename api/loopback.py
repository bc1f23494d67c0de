"""With authentication off the API serves this machine alone, unless the operator says otherwise."""

from __future__ import annotations

import logging
import sys

from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import ProblemError, not_on_loopback, problem_response
from shared.log import log_event
from shared.loopback import is_loopback
from shared.settings import Authentication, Settings

logger = logging.getLogger(__name__)


class OpenToOthers(Exception):
    """Authentication is off, and the API was told to listen to other machines."""


def refuse_to_be_open(settings: Settings) -> None:
    """Say loudly that authentication is off; refuse to start where uvicorn was told to listen to others.

    Raises:
        OpenToOthers: the API would be open to whoever can reach it.
    """
    if settings.auth is not Authentication.OFF:
        return
    log_event(logger, logging.WARNING, "AUTHENTICATION IS OFF: anyone who reaches this API may do anything")
    host = told_host(sys.argv)
    if not settings.auth_off_anywhere and host is not None and not is_loopback(host):
        raise OpenToOthers(
            f"authentication is off and the API was told to listen on {host}: set ONSALE_AUTH=required, or"
            " listen on 127.0.0.1, or set ONSALE_AUTH_OFF_ANYWHERE=true if whoever reaches it may do anything"
        )


def told_host(arguments: list[str]) -> str | None:
    """The host that uvicorn was told to listen on; None if it was not told."""
    for index, argument in enumerate(arguments):
        if argument == "--host" and index + 1 < len(arguments):
            return arguments[index + 1]
        if argument.startswith("--host="):
            return argument.removeprefix("--host=")
    return None


def check_loopback(settings: Settings, scope: Scope) -> None:
    """Whatever the API listens on: with authentication off, what comes from elsewhere is refused.

    Raises:
        ProblemError: it came in at an address that other machines can reach.
    """
    if settings.auth is Authentication.OFF and not settings.auth_off_anywhere:
        server = scope.get("server")
        # A Unix socket has no port; who may use it is decided by its file.
        if server is not None and server[1] is not None and not is_loopback(server[0]):
            raise ProblemError(not_on_loopback())


class LoopbackOnly:
    """An ASGI middleware that applies `check_loopback` to every request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http":
            try:
                check_loopback(scope["app"].state.context.settings, scope)
            except ProblemError as error:
                await problem_response(error.problem, error.headers)(scope, receive, send)
                return
        await self._app(scope, receive, send)
