"""What PostgreSQL and Valkey have in common as child processes of ours.

Beside a data folder `data` there are `data.log`, `data.lock` and, for PostgreSQL, `data.password`.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import BinaryIO, ClassVar, Self

from local.errors import ServerFailed
from local.ports import free_port

# Long, because a server may have to recover after a crash; one that ends instead is noticed at once.
START_SECONDS_MAX = 120.0
STOP_SECONDS_MAX = 30.0
KILL_SECONDS_MAX = 10.0
LOCK_SECONDS_MAX = 30.0
CONNECT_SECONDS_MAX = 2
POLL_SECONDS = 0.05
LOG_BYTES_MAX = 10_000_000
LOG_TAIL_BYTES = 2_000

NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


class Server(ABC):
    """A server on 127.0.0.1 that is a child of this process.

    An object can be started again after `stop` or `kill`; it keeps its port and its data. Where the system
    can do it (Linux, started by the main thread) the server stops when this process dies.
    """

    name: ClassVar[str]
    _stop_signal: ClassVar[signal.Signals]
    _kill_signal: ClassVar[signal.Signals]
    _environment: Mapping[str, str] = NO_SETTINGS

    def __init__(
        self, data_directory: Path, *, port: int | None = None, settings: Mapping[str, str] = NO_SETTINGS
    ) -> None:
        """Name the folder of the data, which need not exist; `settings` go before the defaults."""
        self.data_directory = data_directory.absolute()
        self.port = free_port() if port is None else port
        self.process: subprocess.Popen[bytes] | None = None
        self._settings = settings
        self._log_offset = 0

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect, with the password if there is one."""

    @property
    def log_path(self) -> Path:
        """Where the server writes what it has to say."""
        return self._beside("log")

    @property
    def pid(self) -> int | None:
        """The process id of the running server; None when it doesn't run."""
        if self.process is None or self.process.poll() is not None:
            return None
        return self.process.pid

    def start(self) -> None:
        """Start, and wait until it accepts connections. Does nothing when it runs.

        Raises:
            ServerFailed: it ended, took too long, or another server uses the data. Nothing is left running.
        """
        if self.pid is not None:
            return
        try:
            self.data_directory.parent.mkdir(parents=True, exist_ok=True)
            with self._lock() as lock, self._open_log() as log:
                self._prepare(log)
                self._spawn(lock, log)
            self._await_ready()
        except BaseException as error:
            self.kill()
            if isinstance(error, OSError):
                raise ServerFailed(f"{self.name} can't use {self.data_directory}: {error}") from error
            raise

    def stop(self) -> None:
        """Stop cleanly, and by force when that takes too long. Does nothing when it doesn't run."""
        if not self._end(self._stop_signal, STOP_SECONDS_MAX):
            self.kill()

    def kill(self) -> None:
        """Stop at once, as a crash would: nothing that isn't yet on the disk gets there."""
        if not self._end(self._kill_signal, KILL_SECONDS_MAX):
            self._end(signal.SIGKILL, KILL_SECONDS_MAX)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @abstractmethod
    def _prepare(self, log: BinaryIO) -> None:
        """Make the data folder ready for the server. The lock is held, so no other server uses it."""

    @abstractmethod
    def _command(self) -> list[str]:
        """How to run the server in the foreground, leashed to this process."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether this very server accepts connections now."""

    def _beside(self, suffix: str) -> Path:
        return self.data_directory.with_name(f"{self.data_directory.name}.{suffix}")

    @contextmanager
    def _lock(self) -> Iterator[BinaryIO]:
        """Hold the lock on the data. The server inherits it, and keeps it for as long as it lives.

        So a server that is still about to end, of a supervisor that was killed, is waited for.
        """
        deadline = time.monotonic() + LOCK_SECONDS_MAX
        with self._beside("lock").open("ab") as lock:
            while not _try_lock(lock):
                if time.monotonic() > deadline:
                    raise ServerFailed(
                        f"another {self.name} uses {self.data_directory}; stop it, or choose another folder"
                    )
                time.sleep(POLL_SECONDS)
            yield lock

    def _open_log(self) -> BinaryIO:
        if self.log_path.exists() and self.log_path.stat().st_size > LOG_BYTES_MAX:
            self.log_path.replace(self._beside("log.previous"))
        log = self.log_path.open("ab")
        self._log_offset = log.tell()
        return log

    def _spawn(self, lock: BinaryIO, log: BinaryIO) -> None:
        self.process = subprocess.Popen(
            self._command(),
            cwd="/",
            env={**os.environ, **self._environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Ctrl-C in the terminal reaches us alone; we say when the server stops.
            start_new_session=True,
            pass_fds=(lock.fileno(),),
        )

    def _await_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._answers():
            if self.process is None or self.process.poll() is not None:
                raise self._failed("ended while it was starting")
            if time.monotonic() > deadline:
                raise self._failed(f"did not accept connections within {START_SECONDS_MAX:.0f} s")
            time.sleep(POLL_SECONDS)

    def _end(self, with_signal: signal.Signals, seconds_max: float) -> bool:
        """Send a signal and wait; whether the server has ended."""
        if self.process is None:
            return True
        self.process.send_signal(with_signal)
        try:
            self.process.wait(timeout=seconds_max)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _failed(self, what: str) -> ServerFailed:
        return ServerFailed(f"{self.name} {what}; the end of {self.log_path}:\n{self._log_tail()}")

    def _log_tail(self) -> str:
        """The end of what was logged since the last start."""
        with self.log_path.open("rb") as log:
            log.seek(self._log_offset)
            return log.read()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()


def _try_lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
