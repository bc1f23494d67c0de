"""The I/O boundaries that a process passes: before a request leaves it, and after the answer has come.

Between two of them a process touches nothing that another one could see. So whatever a crash or a freeze can
do it does at one of these, and they can be counted.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

import psycopg2
import redis
import redis.asyncio
from psycopg2.extensions import connection as PostgresConnection
from psycopg2.extensions import cursor as PostgresCursor
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy import event

from shared.database import statements
from shared.database.engine import Database
from shared.line import link
from shared.line.scripts import ScriptName, script_digest

SCRIPT_BY_DIGEST = {script_digest(name).encode(): name.value for name in ScriptName}

FROM_MEMORY = "a batch from memory"
LOOK = "a look at what users hold"

_DIGEST = re.compile("_[0-9a-f]{8}$")
"""What tells the names of prepared statements of different versions apart."""

Action = Callable[[int, str], bool]
"""What happens at a boundary, given its number and name; True cuts the connection there."""


class Boundaries:
    """Numbers the boundaries that are passed while it watches."""

    def __init__(self, action: Action) -> None:
        self.names: list[str] = []
        self.watching = False
        self._action = action
        self._counting = threading.Lock()

    def cut_at(self, name: str) -> bool:
        """Pass a boundary; whether the connection is to be cut there."""
        if not self.watching:
            return False
        # Threads pass them at the same time; each number has to be somebody's.
        with self._counting:
            number = len(self.names)
            self.names.append(name)
        return self._action(number, name)


def no_action(_number: int, _name: str) -> bool:
    """Just count."""
    return False


def kill_at(number: int) -> Action:
    """End this process at a boundary, with nothing of it left to run."""

    def kill(passed: int, _name: str) -> bool:
        if passed == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    return kill


def cut_at(number: int) -> Action:
    """Cut the connection at a boundary; the process lives on."""
    return lambda passed, _name: passed == number


class Gate:
    """Stops a thread at a boundary until it is opened."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._reached = threading.Event()
        self._opened = threading.Event()

    def action(self, passed: int, _name: str) -> bool:
        """Wait here if this is the boundary."""
        if passed == self._number:
            self._reached.set()
            assert self._opened.wait(30), "the gate was not opened"
        return False

    def wait_until_reached(self, give_up: threading.Event) -> None:
        """Wait until the thread stands at the boundary, or is known never to reach it."""
        while not self._reached.wait(0.002):
            if give_up.is_set():
                return

    def open(self) -> None:
        """Let the thread go on."""
        self._opened.set()


def watch_redis(client: redis.Redis, boundaries: Boundaries) -> None:
    """Have every request and answer of this client counted."""

    class Watched(redis.Connection):
        def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            name = _request_name(command)
            self._pass(f"before {name}")
            super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]
            self.sent = name

        def read_response(self, *args: Any, **kwargs: Any) -> Any:
            answer = super().read_response(*args, **kwargs)
            self._pass(f"after {self.sent}")
            return answer

        def _pass(self, name: str) -> None:
            if boundaries.cut_at(name):
                self.disconnect()  # type: ignore[no-untyped-call]
                raise RedisConnectionError("cut by the test")

    client.connection_pool.connection_class = Watched


def watch_async_redis(client: redis.asyncio.Redis, boundaries: Boundaries) -> None:
    """Have every request and answer of this client counted."""

    class Watched(redis.asyncio.Connection):
        async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            name = _request_name(command)
            await self._pass(f"before {name}")
            await super().send_packed_command(command, check_health)
            self.sent = name

        async def read_response(self, *args: Any, **kwargs: Any) -> Any:
            answer = await super().read_response(*args, **kwargs)
            if answer is not None:
                await self._pass(f"after {self.sent}")
            return answer

        async def _pass(self, name: str) -> None:
            if boundaries.cut_at(name):
                await self.disconnect()
                raise RedisConnectionError("cut by the test")

    client.connection_pool.connection_class = Watched


def watch_link(boundaries: Boundaries) -> None:
    """Have every question and answer of this process's links counted; they are not cut."""

    class Watched(link.Conversation):
        def ask_then(
            self, commands: Sequence[link.Words], seconds_max: float, tell: Callable[[list[Any]], None]
        ) -> None:
            words = commands[0]
            name = SCRIPT_BY_DIGEST[words[1].encode()] if words[0] == "EVALSHA" else words[0]

            def tell_counted(answers: list[Any]) -> None:
                boundaries.cut_at(f"after {name}")
                tell(answers)

            boundaries.cut_at(f"before {name}")
            super().ask_then(commands, seconds_max, tell_counted)

    link.Conversation = Watched  # type: ignore[misc]


def watch_database(database: Database, boundaries: Boundaries) -> None:
    """Have every statement and commit of this database counted."""

    class WatchedCursor(PostgresCursor):
        def execute(self, sql: Any, arguments: Any = None) -> None:
            execute = super().execute
            _around(self.connection, _statement_name(sql), lambda: execute(sql, arguments))

    class WatchedConnection(PostgresConnection):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.cursor_factory = WatchedCursor

        def commit(self) -> None:
            _around(self, "COMMIT", super().commit)

    def _around(connection: PostgresConnection, name: str, request: Callable[[], object]) -> None:
        _pass(connection, f"before {name}")
        request()
        _pass(connection, f"after {name}")

    def _pass(connection: PostgresConnection, name: str) -> None:
        if boundaries.cut_at(name):
            with socket.socket(fileno=os.dup(connection.fileno())) as cut:
                cut.shutdown(socket.SHUT_RDWR)
            raise psycopg2.OperationalError("server closed the connection unexpectedly")

    @event.listens_for(database.engine, "do_connect")
    @event.listens_for(database.engine_by_hand, "do_connect")
    def use_watched_connection(
        _dialect: object, _record: object, _arguments: object, parameters: dict[str, Any]
    ) -> None:
        parameters["connection_factory"] = WatchedConnection

    with database.transaction() as connection:
        statements.ping(connection)


def _request_name(command: Any) -> str:
    """The command's name, or that of the script that it calls."""
    packed = command.encode() if isinstance(command, str) else b"".join(command)
    parts = packed[:400].split(b"\r\n")
    name: str = parts[2].decode(errors="replace")
    if name == "EVALSHA":
        return SCRIPT_BY_DIGEST[parts[4]]
    return name


def _statement_name(sql: Any) -> str:
    text = sql.decode() if isinstance(sql, bytes) else str(sql)
    words = text.split()
    if text.startswith("BEGIN;") and ("onsale_expect_event" in text or "as it was remembered" in text):
        return FROM_MEMORY
    if text.startswith("EXECUTE onsale_begin") and "onsale_read_holdings" in text:
        return LOOK
    if words[0] == "SELECT" and "FROM" in words:
        lock = " for update" if "UPDATE" in words else ""
        return f"SELECT from {words[words.index('FROM') + 1]}{lock}"
    return _DIGEST.sub("", " ".join(words[:2]))
