"""`python -m api serve`: the API behind uvicorn, with its own HTTP protocol, at rest while nobody asks.

`uvicorn api.main:app` serves it too, with all of uvicorn's options, and wakes ten times a second.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from email.utils import format_datetime
from types import FrameType

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.server import ServerState

from api.http_protocol import HttpProtocol
from shared.clock import SystemClock


class DatedState(ServerState):
    """What uvicorn's connections share; the date that every answer tells is made when one is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._clock = SystemClock()
        self._second = -1

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that every answer has; the list is a new one with each second."""
        now = self._clock.now()
        second = int(now.timestamp())
        if second != self._second:
            self._second = second
            self._default_headers = [(b"date", format_datetime(now, usegmt=True).encode())]
        return self._default_headers

    @default_headers.setter
    def default_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        """uvicorn sets what it would have them be."""
        self._default_headers = headers


class Server(uvicorn.Server):
    """uvicorn's server, but it sleeps until it is asked, or told to end.

    uvicorn looks ten times a second whether it was told, and makes the date anew. Where nobody asks for
    anything that is nearly all that an API process does.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.server_state = DatedState()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told_to_end = asyncio.Event()

    async def main_loop(self) -> None:
        """Serve until it is told to end."""
        self._loop = asyncio.get_running_loop()
        if not self.should_exit:
            await self._told_to_end.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take the signal that tells it to end, which may come before it serves."""
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._told_to_end.set)


def serve(host: str, port: int, *, grace_seconds: int) -> int:
    """Serve until SIGTERM or SIGINT, then answer what has been asked, for so long; gives the exit status."""
    server = Server(
        uvicorn.Config(
            "api.main:app",
            host=host,
            port=port,
            http=HttpProtocol,
            # As it was configured before.
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=grace_seconds,
        )
    )
    with suppress(KeyboardInterrupt):
        # uvicorn sends itself the signal again that it was ended by.
        server.run()
    return 0 if server.started else STARTUP_FAILURE
