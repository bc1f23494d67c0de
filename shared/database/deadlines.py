"""A time limit on transactions that holds also when the server does not answer at all.

PostgreSQL's own time limits are kept by the server, and libpq waits for its answer for ever. A server that is
frozen, or a host that is gone, is noticed here.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count

from sqlalchemy import Connection

from shared.clock import Clock

_LOOK_SECONDS = 0.25


class Deadlines:
    """Cuts connections whose transaction takes too long; the driver raises as for any lost connection."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._numbers = count()
        self._open: dict[int, tuple[float, int]] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None

    @contextmanager
    def limit(self, connection: Connection, seconds_max: float) -> Iterator[None]:
        """Let the block use this connection no longer than so many seconds."""
        deadline = self._clock.monotonic_seconds() + seconds_max
        number = next(self._numbers)
        # A descriptor of our own: the driver may close its one, and another thread then gets the same number.
        descriptor = os.dup(connection.connection.dbapi_connection.fileno())  # type: ignore[union-attr]
        with self._lock:
            self._open[number] = (deadline, descriptor)
            self._start_watching()
        try:
            yield
        finally:
            with self._lock:
                del self._open[number]
            os.close(descriptor)

    def stop(self) -> None:
        """End the watch."""
        self._stopping.set()

    def _start_watching(self) -> None:
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="database deadlines", daemon=True)
            self._watcher.start()

    def _watch(self) -> None:
        while not self._stopping.wait(_LOOK_SECONDS):
            now = self._clock.monotonic_seconds()
            with self._lock:
                for deadline, descriptor in self._open.values():
                    if deadline < now:
                        _cut(descriptor)


def _cut(descriptor: int) -> None:
    """End a connection for both sides; one that has ended already is as well."""
    with socket.socket(fileno=os.dup(descriptor)) as connection, suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
