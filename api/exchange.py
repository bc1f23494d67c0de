"""One request of a connection and its answer, for who answers it whole and before the application is asked.

What uvicorn does for an answer that an application sends in parts is done here for one that comes whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, cast

from fastapi import Response
from starlette.types import Receive, Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle
from uvicorn.protocols.utils import get_client_addr, get_path_with_query_string

from api.one_write import OneWrite
from api.problems import internal_error, problem_response
from api.whole_response import lines_of

logger = logging.getLogger(__name__)


class Exchange:
    """What the server has received of a request, and the way to its client."""

    __slots__ = ("_cycle", "_loop", "_tasks", "cancel_at_hang_up")

    def __init__(
        self,
        cycle: RequestResponseCycle,
        loop: asyncio.AbstractEventLoop,
        tasks: set[asyncio.Task[None]],
        cancel_at_hang_up: Callable[[asyncio.Future[Any] | None], None],
    ) -> None:
        """`tasks` are those that the server waits for before it ends. `cancel_at_hang_up` is told what to
        cancel when the client hangs up, or None for no longer.
        """
        self._cycle = cycle
        self._loop = loop
        self._tasks = tasks
        self.cancel_at_hang_up = cancel_at_hang_up

    @property
    def scope(self) -> Scope:
        """The request, as ASGI describes it."""
        return cast(Scope, self._cycle.scope)

    @property
    def receive(self) -> Receive:
        """The body of the request, part by part, as ASGI has it."""
        return cast(Receive, self._cycle.receive)

    @property
    def is_whole(self) -> bool:
        """Whether all of the body is there."""
        return not self._cycle.more_body

    @property
    def is_listened_to(self) -> bool:
        """Whether the client has read enough of the answers before."""
        return not self._cycle.flow.write_paused

    def take_body(self) -> bytes:
        """What is there of the body and was not received before."""
        body = bytes(self._cycle.body)
        self._cycle.body = bytearray()
        return body

    def read_on(self) -> None:
        """Have the rest read: what came ahead of its turn stopped that."""
        self._cycle.flow.resume_reading()

    @contextmanager
    def hang_ups(self, awaited: asyncio.Future[Any]) -> Iterator[None]:
        """Cancel what the block awaits when the client hangs up, also if it has already."""
        self.cancel_at_hang_up(awaited)
        try:
            yield
        finally:
            self.cancel_at_hang_up(None)

    def run(self, answering: Coroutine[Any, Any, None]) -> None:
        """Answer in a task, once the client has read enough of the answers before."""
        task = self._loop.create_task(self._answer(answering))
        task.add_done_callback(self._tasks.discard)
        self._tasks.add(task)

    def send(self, response: Response) -> None:
        """Send the answer, unless the client has hung up; nothing is left to be done then.

        Raises:
            ValueError: a header of it would be more than one, or end the head; nothing is sent.
        """
        self._write(response.status_code, _bytes_of(response, self._cycle))

    def send_lines(self, status: int, lines: bytes, body: bytes) -> None:
        """Send an answer whose head has these lines besides what the server adds; as `send` does."""
        cycle = self._cycle
        added = lines_of(cycle.default_headers)
        end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
        self._write(status, b"".join((STATUS_LINE[status], added, lines, end, body)))

    def _write(self, status: int, answer: bytes) -> None:
        cycle = self._cycle
        if cycle.access_log:
            _log_access(cycle, status)
        if not cycle.disconnected:
            cast(OneWrite, cycle.transport).write_whole(answer)
            cycle.response_started = cycle.response_complete = True
            if not cycle.keep_alive:
                cycle.transport.close()
            cycle.on_response()
        let_go(cycle)

    def fail(self) -> None:
        """Log the error that is being handled; where nothing was answered yet, say so and hang up."""
        logger.exception("unexpected error")
        if not self._cycle.response_complete:
            self._cycle.keep_alive = False
            self.send(problem_response(internal_error()))

    async def _answer(self, answering: Coroutine[Any, Any, None]) -> None:
        try:
            if not self.is_listened_to:
                await self._cycle.flow.drain()
            await answering
        except BaseException:
            # As uvicorn does: also when the process waits no longer, nobody is left without an answer.
            self.fail()
        finally:
            answering.close()
            let_go(self._cycle)


def let_go(cycle: RequestResponseCycle) -> None:
    """Part a request from its connection, answered or not.

    Or the two would keep each other until the next look for garbage.
    """
    cycle.on_response = _nothing


def written(response: Response, headers: list[tuple[bytes, bytes]]) -> bytes:
    """An answer with these headers, as it goes over the wire.

    Raises:
        ValueError: a header would be more than one, or end the head.
    """
    fields = b"\r\n".join(map(b": ".join, headers))
    ends = len(headers) - 1
    if fields.count(b"\r") != ends or fields.count(b"\n") != ends:
        raise ValueError(f"a header has a line break: {headers}")
    return b"".join((STATUS_LINE[response.status_code], fields, b"\r\n\r\n", response.body))


def _bytes_of(response: Response, cycle: RequestResponseCycle) -> bytes:
    """An answer as it is sent. It ends the connection if either side wants that.

    Raises:
        ValueError: a header would be more than one, or end the head.
    """
    headers = [*cycle.default_headers, *response.raw_headers]
    if (b"connection", b"close") in headers:
        cycle.keep_alive = False
    elif not cycle.keep_alive:
        headers.append((b"connection", b"close"))
    return written(response, headers)


def _log_access(cycle: RequestResponseCycle, status: int) -> None:
    """A line of uvicorn's log of accesses, where that is wanted."""
    address, path = get_client_addr(cycle.scope), get_path_with_query_string(cycle.scope)
    version = cycle.scope["http_version"]
    cycle.access_logger.info('%s - "%s %s HTTP/%s" %d', address, cycle.scope["method"], path, version, status)


def _nothing() -> None:
    """Nothing is left to do when an answer is complete."""
