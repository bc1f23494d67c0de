"""Connections to Redis for what is said all the time, in an event loop: each command, and each result.

redis-py opens them (address, TLS, login) and closes them. What it does for every call (pool, retries,
metrics, time limits, streams) costs an API process as much as all the rest of a booking; here a call is one
write, and an answer goes from the socket through hiredis to who waits for it.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self, cast

import hiredis
import redis.asyncio
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import BusyLoadingError, InvalidResponse, NoScriptError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.line.connections import retry_async

Words = Sequence[Any]
"""A command and its arguments: texts, bytes or numbers."""

_NOT_WHOLE_YET = object()
_ERRORS = {"NOSCRIPT": NoScriptError, "LOADING": BusyLoadingError}


class _Wire(asyncio.Protocol, ABC):
    """A connection of a client's pool that speaks to us, from when it has been opened until it is lost."""

    def __init__(self, pool: ConnectionPool, connection: AbstractConnection) -> None:
        self._pool = pool
        self._connection = connection
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=_reply_error, notEnoughData=_NOT_WHOLE_YET
        )
        # redis-py shows its transport nowhere else. Nothing is on its way there: nothing was asked yet.
        self._transport = cast(asyncio.Transport, cast(Any, connection)._writer.transport)
        self._streams = cast(asyncio.Protocol, self._transport.get_protocol())
        self._transport.set_protocol(self)
        self.is_lost = self._transport.is_closing()

    async def give_back(self) -> None:
        """Close the connection; the pool opens it again when somebody wants one."""
        self.is_lost = True
        await self._connection.disconnect(nowait=True)
        await self._pool.release(self._connection)

    def data_received(self, data: bytes) -> None:
        """Hand on what has become whole."""
        self._reader.feed(data)
        while (answer := self._reader.gets()) is not _NOT_WHOLE_YET:
            self._take(answer)

    def eof_received(self) -> None:
        """Redis has closed its side: let the connection end."""
        self._streams.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell redis-py, and who waits."""
        self._streams.connection_lost(exc)
        self._lose(RedisConnectionError(f"connection lost: {exc or 'Redis has closed it'}"))

    def _lose(self, error: RedisError) -> None:
        self.is_lost = True
        self._transport.abort()
        self._end(error)

    @abstractmethod
    def _take(self, answer: Any) -> None:
        """Something has arrived."""

    @abstractmethod
    def _end(self, error: RedisError) -> None:
        """Nothing more will arrive."""


@dataclass(slots=True)
class _Question:
    """Commands that were sent together, and who is to be told their answers, of which some may be there.

    It is given up at a moment of the event loop's clock.
    """

    count: int
    tell: Callable[[list[Any]], None]
    ends_at: float
    answers: list[Any] = field(default_factory=list)


class Conversation(_Wire):
    """Answers come in the order of the questions."""

    def __init__(self, pool: ConnectionPool, connection: AbstractConnection) -> None:
        super().__init__(pool, connection)
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Question] = deque()
        self._limit: asyncio.TimerHandle | None = None

    async def ask(self, commands: Sequence[Words], seconds_max: float) -> list[Any]:
        """The answers, errors among them."""
        told: asyncio.Future[list[Any]] = self._loop.create_future()
        self.ask_then(commands, seconds_max, partial(_settle, told))
        return await told

    def ask_then(
        self, commands: Sequence[Words], seconds_max: float, tell: Callable[[list[Any]], None]
    ) -> None:
        """Ask without a task that waits: `tell` is called with the answers, errors among them."""
        if self.is_lost:
            raise RedisConnectionError("connection lost: closed when it was new")
        self._transport.write(b"".join([packed(words) for words in commands]))
        ends_at = self._loop.time() + seconds_max * len(commands)
        self._waiting.append(_Question(len(commands), tell, ends_at))
        if self._limit is None:
            self._limit = self._loop.call_at(ends_at, self._give_up_if_late)

    def _give_up_if_late(self) -> None:
        """End the connection where the first in turn has waited too long: which answer is whose is not known.

        One timer looks after all of them, so that a question does not set one of its own.
        """
        self._limit = None
        if not self._waiting:
            return
        if self._waiting[0].ends_at > self._loop.time():
            self._limit = self._loop.call_at(self._waiting[0].ends_at, self._give_up_if_late)
            return
        _tell_error(self._waiting.popleft(), RedisTimeoutError("no answer in time"))
        self._lose(RedisConnectionError("connection lost: given up, as an answer did not come in time"))

    def _take(self, answer: Any) -> None:
        if isinstance(answer, hiredis.PushNotification):
            return
        question = self._waiting[0]
        question.answers.append(answer)
        if len(question.answers) == question.count:
            self._waiting.popleft()
            question.tell(question.answers)

    def _end(self, error: RedisError) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
        while self._waiting:
            _tell_error(self._waiting.popleft(), type(error)(*error.args))


class Link:
    """Asks Redis over one connection, which whoever asks after a loss opens again."""

    def __init__(self, client: redis.asyncio.Redis, *, seconds_max: float) -> None:
        """`client` lends the connection, and closes it when it is closed itself.

        No answer is waited for longer than `seconds_max`, several that are asked for together as many times
        that.
        """
        self._pool = client.connection_pool
        self._seconds_max = seconds_max
        self._conversation: Conversation | None = None
        self._opening = asyncio.Lock()
        self._retry = retry_async()

    async def ask(self, *commands: Words) -> list[Any]:
        """Send commands together; gives the answer of each.

        Where the connection is lost they are sent again, a few times: only for what may be done twice.

        Raises:
            RedisError, OSError: Redis can't be reached, does not answer, or one of the answers is an error.
        """
        try:
            return await self._ask(commands)
        except RedisConnectionError:
            return await self._retry.call_with_retry(lambda: self._ask(commands), _before_next_try)

    def ask_then(self, command: Words, tell: Callable[[Any], None]) -> bool:
        """Ask without a task that waits, if a connection stands; gives whether it was asked.

        `tell` is called with the answer, or an error. Nothing is sent again where the connection is lost.

        Raises:
            RedisError, OSError, RuntimeError: it can't be sent; nobody is told then.
        """
        conversation = self._conversation
        if conversation is None or conversation.is_lost:
            return False
        conversation.ask_then([command], self._seconds_max, partial(_tell_first, tell))
        return True

    async def _ask(self, commands: Sequence[Words]) -> list[Any]:
        conversation = self._conversation
        if conversation is None or conversation.is_lost:
            conversation = await self._open()
        answers = await conversation.ask(commands, self._seconds_max)
        for answer in answers:
            if isinstance(answer, RedisError):
                raise answer
        return answers

    async def _open(self) -> Conversation:
        async with self._opening:
            if self._conversation is not None:
                if not self._conversation.is_lost:
                    return self._conversation
                lost, self._conversation = self._conversation, None
                await lost.give_back()
            try:
                connection = await _lent(self._pool)
            except RedisConnectionError as error:
                # redis-py has tried a few times already.
                raise RedisError(str(error)) from error
            self._conversation = Conversation(self._pool, connection)
            return self._conversation


class Subscription(_Wire):
    """Listens to one channel until the connection is lost."""

    def __init__(
        self, pool: ConnectionPool, connection: AbstractConnection, receive: Callable[[bytes], None]
    ) -> None:
        super().__init__(pool, connection)
        self._receive = receive
        self._subscribed = asyncio.Event()
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(cls, client: redis.asyncio.Redis, receive: Callable[[bytes], None]) -> Self:
        """A subscription over a connection of this client; `receive` gets what is published.

        Raises:
            RedisError, OSError: Redis does not answer.
        """
        pool = client.connection_pool
        return cls(pool, await _lent(pool), receive)

    async def subscribe(self, channel: str, *, seconds_max: float) -> None:
        """Begin to listen; what is published after this returns is received.

        Raises:
            RedisError: Redis does not answer in time.
        """
        self._transport.write(packed(("SUBSCRIBE", channel)))
        too_late = RedisTimeoutError(f"no answer within {seconds_max} s")
        limit = asyncio.get_running_loop().call_later(seconds_max, self._lose, too_late)
        try:
            await self._subscribed.wait()
        finally:
            limit.cancel()
        if self.is_lost:
            await self._lost

    async def wait_until_lost(self) -> None:
        """Listen for as long as it goes.

        Raises:
            RedisError: always, in the end.
        """
        await self._lost

    def _take(self, answer: Any) -> None:
        if isinstance(answer, RedisError):
            self._lose(answer)
        elif answer[0] == b"message":
            self._receive(answer[2])
        elif answer[0] == b"subscribe":
            self._subscribed.set()

    def _end(self, error: RedisError) -> None:
        if not self._lost.done():
            self._lost.set_exception(error)
            # Whoever listens learns it, but there may be nobody: asyncio need not complain of that.
            self._lost.exception()
        self._subscribed.set()


def _settle(told: asyncio.Future[list[Any]], answers: list[Any]) -> None:
    """Who does not wait any more has cancelled this."""
    if not told.done():
        told.set_result(answers)


def _tell_error(question: _Question, error: RedisError) -> None:
    """In the place of the answers that will not come."""
    missing = question.count - len(question.answers)
    question.tell([*question.answers, *[error] * missing])


def _tell_first(tell: Callable[[Any], None], answers: list[Any]) -> None:
    tell(answers[0])


async def _lent(pool: ConnectionPool) -> AbstractConnection:
    """A connection of the pool, opened."""
    return cast(AbstractConnection, await cast(Any, pool).get_connection())


def packed(words: Words) -> bytes:
    """A command as it is sent."""
    return cast(bytes, hiredis.pack_command(tuple(words)))


def _reply_error(message: str) -> RedisError:
    kind = message.partition(" ")[0]
    return _ERRORS.get(kind, ResponseError)(message)


async def _before_next_try(_error: Exception) -> None:
    """Nothing is to be done: the next try opens the connection."""
