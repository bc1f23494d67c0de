"""How a connection is written and read: answers in one go, requests no further ahead than answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sized
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl

from shared import limits


class OneWrite:
    """A transport that collects what is written until the end of the event loop's turn, or of an answer."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []
        # Asked several times for each request; by way of __getattr__ that takes a while.
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def write_whole(self, data: bytes) -> None:
        """Send an answer, or the last part of one, behind what was written before."""
        self._parts.append(data)
        self._flush()

    def close(self) -> None:
        """Send what is left and hang up; a client that does not take it is not waited for for ever."""
        self._flush()
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._loop.call_later(limits.CLOSE_SECONDS_MAX, self._transport.abort)

    def _flush(self) -> None:
        data = b"".join(self._parts)
        self._parts.clear()
        if data and not self.is_closing():
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class PipelineFlow(FlowControl):
    """Reads on only when no request of a pipeline waits: no client sends without end ahead of its answers."""

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        """Read on, unless requests wait; the answer to the last of them does it then."""
        if not self._pipeline:
            super().resume_reading()
