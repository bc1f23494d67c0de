"""How long a connection is kept on which nobody asks: told by one timer, whatever comes in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from api.http_protocol import HttpProtocol

KEEP_ALIVE_SECONDS = 5


class Timer:
    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at, self.call, self.is_cancelled = at, call, False

    def cancel(self) -> None:
        self.is_cancelled = True


class Loop:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now, self.timers = 0.0, list[Timer]()

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, call: Callable[..., None], *arguments: object) -> Timer:
        timer = Timer(self.now + seconds, lambda: call(*arguments))
        self.timers.append(timer)
        return timer

    def advance(self, now: float) -> None:
        while due := [each for each in self.timers if each.at <= now and not each.is_cancelled]:
            first = min(due, key=lambda each: each.at)
            self.timers.remove(first)
            self.now = first.at
            first.call()
        self.now = now


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.is_closed = False

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def get_write_buffer_size(self) -> int:
        return 0


class Connection:
    """A connection whose requests have been answered."""

    def __init__(self) -> None:
        self.loop, self.transport = Loop(), Transport()
        config = Config(_nothing, http=HttpProtocol, timeout_keep_alive=KEEP_ALIVE_SECONDS, log_config=None)
        self.protocol = HttpProtocol(config, ServerState(), {}, cast(asyncio.AbstractEventLoop, self.loop))
        self.protocol.connection_made(self.transport)
        self.protocol.on_message_begin()

    def ask_at(self, now: float) -> None:
        self.loop.advance(now)
        self.protocol.on_message_begin()

    def answer_at(self, now: float) -> None:
        self.loop.advance(now)
        self.protocol._is_whole = True
        self.protocol._wait_no_more()
        self.protocol.on_response_complete()

    def is_open_at(self, now: float) -> bool:
        self.loop.advance(now)
        return not self.transport.is_closed


async def _nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    pass


@pytest.fixture
def connection() -> Connection:
    return Connection()


def test_one_that_is_idle_for_long_is_closed(connection: Connection) -> None:
    connection.answer_at(1)
    assert connection.is_open_at(5.9)
    assert not connection.is_open_at(6)


def test_it_is_the_last_answer_that_counts(connection: Connection) -> None:
    for now in range(1, 40, 4):
        connection.ask_at(now)
        connection.answer_at(now + 0.5)
    assert connection.is_open_at(42.4)
    assert not connection.is_open_at(42.5)


def test_a_request_that_is_being_answered_is_waited_for(connection: Connection) -> None:
    connection.answer_at(1)
    connection.ask_at(2)
    connection.protocol._wait_no_more()
    assert connection.is_open_at(100)
    connection.answer_at(100)
    assert connection.is_open_at(104.9)
    assert not connection.is_open_at(105)


def test_one_on_which_a_request_has_begun_is_not_idle(connection: Connection) -> None:
    """Its client is told that it is too slow, which is another limit."""
    connection.protocol._wait_no_more()
    connection.protocol.on_response_complete()
    assert connection.is_open_at(KEEP_ALIVE_SECONDS + 1)


def test_empty_lines_are_no_request(connection: Connection) -> None:
    connection.answer_at(1)
    for now in range(1, 6):
        connection.loop.advance(now)
        connection.protocol.data_received(b"\r\n")
    assert not connection.is_open_at(6)


def test_one_timer_is_enough_for_many_requests(connection: Connection) -> None:
    for each in range(100):
        connection.answer_at(1 + each / 100)
    assert len([timer for timer in connection.loop.timers if not timer.is_cancelled]) == 1


def test_one_that_is_lost_leaves_no_timer(connection: Connection) -> None:
    connection.answer_at(1)
    connection.protocol.connection_lost(ConnectionResetError())
    assert all(timer.is_cancelled for timer in connection.loop.timers)
