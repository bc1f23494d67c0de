"""A connection to Redis for what a worker says all the time, where `shared.line.link` is for an event loop.

What redis-py does around each call (pool, retries, metrics) takes as long as to make the call.
"""

from __future__ import annotations

import threading
from typing import Any, cast

import redis
from redis.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError

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
        words: Words = ("EVALSHA", script_digest(script), 0, *arguments)
        with self._lock:
            try:
                return self._ask_again_if_lost(words)
            except NoScriptError:
                self._ask_again_if_lost(("SCRIPT", "LOAD", script_source(script)))
                return self._ask_again_if_lost(words)

    def _ask_again_if_lost(self, words: Words) -> Any:
        try:
            return self._ask(words)
        except RedisConnectionError:
            return self._retry.call_with_retry(lambda: self._ask(words), lambda _error: None)

    def _ask(self, words: Words) -> Any:
        if self._connection is None:
            self._connection = self._pool.get_connection()
        # It is opened again by this where it was lost.
        self._connection.send_packed_command([packed(words)], check_health=False)
        return self._connection.read_response()
