"""A connection to Redis for what a worker says all the time, where `shared.line.link` is for an event loop.

What redis-py does around each call (pool, retries, metrics) takes as long as to make the call.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, cast

import redis
from redis.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from shared.line.connections import retry
from shared.line.link import Words, packed
from shared.line.scripts import ScriptName, script_digest, script_source


class BlockingLink:
    """Calls scripts over one connection, one at a time; a lost one is opened again by the next call."""

    def __init__(self, client: redis.Redis) -> None:
        """`client` lends the connection, with its time limits, and closes it when it is closed itself."""
        self._pool = cast(Any, client.connection_pool)
        self._connection: AbstractConnection | None = None
        self._lock = threading.Lock()
        self._retry = retry()

    def call(self, script: ScriptName, *arguments: Any) -> Any:
        """The answer of a script.

        Where the connection is lost it is called again, a few times: only for what may be done twice.

        Raises:
            RedisError, OSError: Redis does not answer, or the answer is an error.
        """
        words = _call(script, arguments)
        with self._lock:
            return _unless_error(self._loaded(script, words, *self._ask_again_if_lost([words])))

    def call_after(self, wait: Words, script: ScriptName, *arguments: Any) -> Any:
        """The answer of a script that Redis runs when a blocking command has ended, both in one request.

        Redis runs the script also where the blocking command ended with an error. So what the script gives
        counts; only where it gives nothing is that error raised.

        Raises:
            RedisError, OSError: Redis does not answer, or an answer is an error.
        """
        words = _call(script, arguments)
        with self._lock:
            waited, answer = self._ask_again_if_lost([wait, words])
            answer = _unless_error(self._loaded(script, words, answer))
        if answer is None:
            _unless_error(waited)
        return answer

    def _loaded(self, script: ScriptName, words: Words, answer: Any) -> Any:
        """The answer of a script, also where Redis was started anew and has forgotten it."""
        if not isinstance(answer, NoScriptError):
            return answer
        self._ask_again_if_lost([("SCRIPT", "LOAD", script_source(script))])
        [answer] = self._ask_again_if_lost([words])
        return answer

    def _ask_again_if_lost(self, commands: Sequence[Words]) -> list[Any]:
        try:
            return self._ask(commands)
        except RedisConnectionError:
            return self._retry.call_with_retry(lambda: self._ask(commands), lambda _error: None)

    def _ask(self, commands: Sequence[Words]) -> list[Any]:
        """The answers, of which some may be errors: behind one the others are to be read all the same."""
        if self._connection is None:
            self._connection = self._pool.get_connection()
        # It is opened again by this where it was lost.
        self._connection.send_packed_command([packed(words) for words in commands], check_health=False)
        return [_read(self._connection) for _ in commands]


def _call(script: ScriptName, arguments: Sequence[Any]) -> Words:
    return ("EVALSHA", script_digest(script), 0, *arguments)


def _read(connection: AbstractConnection) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error


def _unless_error(answer: Any) -> Any:
    if isinstance(answer, ResponseError):
        raise answer
    return answer
