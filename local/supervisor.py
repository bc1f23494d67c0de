"""Runs servers, API, workers, webhooks and dashboard, keeps them running, and stops them in order."""

from __future__ import annotations

import errno
import fcntl
import http.client
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Protocol

from local.errors import DataInUse, PortTaken, ProgramFailed
from local.logins import Logins, make_logins
from local.ports import check_port
from local.programs import Program, stop_together
from local.restarts import RESTARTS_MAX, RESTARTS_SECONDS, RestartBudget
from local.secret_files import write_secret
from local.servers import PostgresServer, Server, ValkeyServer
from local.settings import DASHBOARD_HOST, LocalSettings
from local.terminal import describe, describe_exit, quote, reachable_host, say
from shared.database.roles import API, WEBHOOKS, WORKER

DASHBOARD = Path(__file__).parent.parent / "deploy" / "dashboard.py"
ENVIRONMENT_NAMES = ("DATABASE_URL", "REDIS_URL")
MIGRATE_SECONDS_MAX = 300.0
HEALTH_SECONDS_MAX = 60.0
HEALTH_ANSWER_SECONDS_MAX = 1.0
# A request may wait for its result for half a minute; it isn't worth holding up the person at the terminal.
API_STOP_SECONDS_MAX = 10.0
API_GRACE_SECONDS = 8
DASHBOARD_STOP_SECONDS_MAX = 5.0
# A batch in its transaction ends within PostgreSQL's statement timeout of 10 seconds, or is rolled back.
WORKER_STOP_SECONDS_MAX = 20.0
# An attempt that has begun ends within its time limit of 10 seconds, and is written down.
WEBHOOKS_STOP_SECONDS_MAX = 25.0
POLL_SECONDS = 0.2

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Child(Protocol):
    """What the supervisor watches: a server or a program."""

    @property
    def name(self) -> str:
        """What to call it before the person at the terminal."""
        ...

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The process that was started last."""
        ...

    def start(self) -> None:
        """Start it, also again after it has ended."""
        ...


class StopRequested(Exception):
    """Someone has sent a signal to stop. Raised between two steps, never in the middle of one."""


class Supervisor:
    """Everything on one machine, from the first start to the last stop."""

    def __init__(self, settings: LocalSettings, environment: Mapping[str, str]) -> None:
        """`environment` is what the children get, beside the URLs of the servers."""
        self._settings = settings
        self._environment = dict(environment)
        self._logins: Logins | None = None
        self._watched: list[tuple[Child, RestartBudget]] = []
        self._stop_requested = False

    def run(self) -> None:
        """Run until a signal to stop, then stop everything; nothing is left running, whatever happens.

        Raises:
            LocalError: something was in the way, or ended too often.
        """
        self._listen_for_signals()
        check_ports(self._settings)
        with suppress(StopRequested), ExitStack() as stack:
            stack.enter_context(exclusive(self._settings.data_directory))
            # What is started is stopped in the reverse order.
            self._start_servers(stack)
            self._migrate(stack)
            self._start_programs(stack)
            self._await_health()
            self._welcome(stack)
            self._watch()

    def _listen_for_signals(self) -> None:
        for number in _STOP_SIGNALS:
            # `nohup make up` is meant to go on when its terminal is closed.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._request_stop)

    def _request_stop(self, _number: int, _frame: FrameType | None) -> None:
        if not self._stop_requested:
            say("Stopping …")
        self._stop_requested = True

    def _check_stop(self) -> None:
        if self._stop_requested:
            raise StopRequested

    def _start_servers(self, stack: ExitStack) -> None:
        settings = self._settings
        postgres_url, redis_url = settings.database_url, settings.redis_url
        if postgres_url is None:
            postgres_url = self._start_server(stack, PostgresServer(settings.data_directory / "postgres"))
            self._logins = make_logins(postgres_url, settings.data_directory / "passwords")
        if redis_url is None:
            redis_url = self._start_server(stack, ValkeyServer(settings.data_directory / "valkey"))
        self._environment |= {"DATABASE_URL": postgres_url, "REDIS_URL": redis_url}

    def _start_server(self, stack: ExitStack, server: Server) -> str:
        say(f"Starting {server.name} …")
        stack.callback(server.stop)
        self._start(server)
        return server.url

    def _start(self, child: Child) -> None:
        child.start()
        self._watched.append((child, RestartBudget()))
        self._check_stop()

    def _migrate(self, stack: ExitStack) -> None:
        """Bring the schema up to date.

        Raises:
            ProgramFailed: that failed or took too long.
        """
        environment = self._environment
        if self._logins is not None:
            environment = environment | {"ONSALE_PASSWORDS_DIRECTORY": str(self._logins.passwords_directory)}
        command = [sys.executable, "-m", "worker", "migrate"]
        migration = Program("migration", command, environment, stop_seconds_max=5.0)
        stack.callback(migration.stop)
        migration.start()
        deadline = time.monotonic() + MIGRATE_SECONDS_MAX
        while (code := exit_code(migration)) is None:
            if time.monotonic() > deadline:
                raise ProgramFailed(f"the migration took more than {MIGRATE_SECONDS_MAX:.0f} s")
            self._pause()
        if code != 0:
            raise ProgramFailed(
                f"the migration of the database ended with {describe_exit(code)}; the reason is above"
            )

    def _start_programs(self, stack: ExitStack) -> None:
        workers = [self._worker(number) for number in range(1, self._settings.workers + 1)]
        front = [self._api(), self._dashboard()]
        behind = [*workers, self._webhooks()]
        stack.callback(stop_together, behind)
        # Stopped first, so that nothing new is accepted while the workers finish their batches.
        stack.callback(stop_together, front)
        for program in (*front, *behind):
            self._start(program)

    def _api(self) -> Program:
        settings = self._settings
        command = [sys.executable, "-m", "api", "serve", "--grace-seconds", str(API_GRACE_SECONDS)]
        command += ["--host", settings.api_host, "--port", str(settings.api_port)]
        return self._program("API", command, role=API, seconds=API_STOP_SECONDS_MAX)

    def _worker(self, number: int) -> Program:
        command = [sys.executable, "-m", "worker"]
        return self._program(f"worker {number}", command, role=WORKER, seconds=WORKER_STOP_SECONDS_MAX)

    def _webhooks(self) -> Program:
        command = [sys.executable, "-m", "worker", "webhooks"]
        return self._program("webhooks process", command, role=WEBHOOKS, seconds=WEBHOOKS_STOP_SECONDS_MAX)

    def _dashboard(self) -> Program:
        # Its address of Redis may have a password, which must not stand in its command line.
        environment = {**self._environment, "RQ_DASHBOARD_REDIS_URL": self._environment["REDIS_URL"]}
        command = [sys.executable, str(DASHBOARD), "--host", DASHBOARD_HOST]
        command += ["--port", str(self._settings.dashboard_port)]
        return Program("dashboard", command, environment, stop_seconds_max=DASHBOARD_STOP_SECONDS_MAX)

    def _program(self, name: str, command: list[str], *, role: str, seconds: float) -> Program:
        """A program that logs in to our own PostgreSQL as this role, and to another's as its URL says."""
        environment = self._environment
        if self._logins is not None:
            environment = {**environment, "DATABASE_URL": self._logins.urls[role]}
        return Program(name, command, environment, stop_seconds_max=seconds)

    def _await_health(self) -> None:
        deadline = time.monotonic() + HEALTH_SECONDS_MAX
        while not is_healthy(reachable_host(self._settings.api_host), self._settings.api_port):
            if time.monotonic() > deadline:
                raise ProgramFailed(f"the API did not answer /health within {HEALTH_SECONDS_MAX:.0f} s")
            self._restart_what_ended()
            self._pause()

    def _welcome(self, stack: ExitStack) -> None:
        path = self._settings.data_directory / "environment"
        stack.callback(path.unlink, missing_ok=True)
        lines = [f"export {name}={quote(self._environment[name])}" for name in ENVIRONMENT_NAMES]
        write_secret(path, "\n".join(lines) + "\n")
        say(describe(self._settings, self._environment, path))

    def _watch(self) -> None:
        while True:
            self._restart_what_ended()
            self._pause()

    def _pause(self) -> None:
        self._check_stop()
        time.sleep(POLL_SECONDS)
        self._check_stop()

    def _restart_what_ended(self) -> None:
        """Start again what has ended by itself.

        Raises:
            LocalError: it can't be started, or it ends too often.
        """
        for child, budget in self._watched:
            code = exit_code(child)
            if code is None:
                continue
            what = f"{child.name} has ended with {describe_exit(code)}"
            if not budget.spend(time.monotonic()):
                often = f"more than {RESTARTS_MAX} times within {RESTARTS_SECONDS:.0f} s"
                raise ProgramFailed(f"{what}, {often}; the reason is above, or in a log in the data folder")
            say(f"onsale: {what}; starting it again")
            child.start()


@contextmanager
def exclusive(data_directory: Path) -> Iterator[None]:
    """Have the data folder for oneself, making it if need be.

    Raises:
        DataInUse: another supervisor has it, or it can't be written.
    """
    remedy = "or set ONSALE_DATA_DIRECTORY to another folder"
    try:
        data_directory.mkdir(parents=True, exist_ok=True)
        with (data_directory / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except BlockingIOError as error:
        raise DataInUse(
            f"`make up` already runs on the data in {data_directory}; stop it, {remedy}"
        ) from error
    except OSError as error:
        raise DataInUse(
            f"the data folder {data_directory} can't be used ({error.strerror}); correct that, {remedy}"
        ) from error


def check_ports(settings: LocalSettings) -> None:
    """See that API and dashboard can listen.

    Raises:
        PortTaken: one of them can't; the message names the variable to set.
    """
    wanted = (
        ("API", settings.api_host, settings.api_port),
        ("DASHBOARD", DASHBOARD_HOST, settings.dashboard_port),
    )
    for part, host, port in wanted:
        try:
            check_port(host, port)
        except OSError as error:
            raise PortTaken(_explain_port(part, host, port, error)) from error


def _explain_port(part: str, host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is taken by another program; stop it, or set {part}_PORT to a free port"
    variables = "API_HOST or API_PORT" if part == "API" else "DASHBOARD_PORT"
    return f"port {port} of {host} can't be listened on ({error.strerror}); set {variables} to another"


def is_healthy(host: str, port: int) -> bool:
    """Whether `GET /health` answers with 200 now."""
    connection = http.client.HTTPConnection(host, port, timeout=HEALTH_ANSWER_SECONDS_MAX)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def exit_code(child: Child) -> int | None:
    """How a child ended, as `subprocess` says it; None while it runs."""
    return None if child.process is None else child.process.poll()
