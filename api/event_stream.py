"""What the streams of Server-Sent Events have in common: their headers, their patience, and how they end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from fastapi.sse import format_sse_event
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from shared import limits
from shared.log import log_event

logger = logging.getLogger(__name__)

HEARTBEAT = format_sse_event(comment="still here")
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class EventStream(StreamingResponse):
    """Sends events as they come; a client that leaves one unread for too long is given up."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], held: AsyncExitStack, **about: str) -> None:
        """`held` is what the stream takes up, given back when it ends; `about` is for the log."""
        super().__init__(events, headers=_HEADERS)
        self._held = held
        self._about = about

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(limits.STREAM_SEND_SECONDS_MAX):
                await send(message)

        async with self._held:
            try:
                await super().__call__(scope, receive, send_in_time)
            except TimeoutError:
                log_event(logger, logging.INFO, "a stream is not read, given up", **self._about)
