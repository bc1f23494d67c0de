"""The product as real processes behind proxies, and the keeper that starts again whatever dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import psutil
import redis

from local.leash import leashed
from local.servers import PostgresServer, Server, ServerFailed, ValkeyServer, free_port
from shared.line import keys
from shared.settings import Settings
from tests.storm.clocks import ClockOf, Clocks
from tests.storm.disks import small_disk
from tests.storm.loop_thread import LoopThread
from tests.storm.proxy import Proxy

REPOSITORY = Path(__file__).resolve().parents[2]
APIS = 2
WORKERS = 3
LEASE_SECONDS = 1.0
SETTINGS: Mapping[str, str] = {
    "ONSALE_LEASE_SECONDS": str(LEASE_SECONDS),
    "ONSALE_IDLE_WAIT_SECONDS": "0.2",
    "ONSALE_SWEEP_SECONDS": "2",
    # Short, so that clients are answered from the ledger too.
    "ONSALE_RESULT_TTL_SECONDS": "60",
    # Low, so that a line fills up while nobody works it off.
    "ONSALE_LINE_LENGTH_MAX": "500",
}
# The disk is small, and PostgreSQL would keep a gigabyte of its write-ahead log by default.
POSTGRES_SETTINGS: Mapping[str, str] = {"max_wal_size": "128MB", "min_wal_size": "64MB"}

STOP_SECONDS_MAX = 20.0
PROGRAM_SECONDS_MAX = 120.0
REDIS_SECONDS_MAX = 2.0
LEAK_SECONDS_MAX = 10.0


class SteppedValkey(ValkeyServer):
    """Valkey with a clock of its own."""

    def __init__(self, data_directory: Path, environment: Mapping[str, str]) -> None:
        super().__init__(data_directory)
        self._clock_environment = environment

    def _command(self) -> list[str]:
        assignments = [f"{name}={value}" for name, value in self._clock_environment.items()]
        return ["env", *assignments, *super()._command()]


class Program:
    """An API process or a worker; what it says goes to a log file."""

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        self._command = command
        self._environment = environment
        self._log = log

    def start(self) -> None:
        """Start it, also again after it has ended."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                leashed(self._command, signal.SIGKILL),
                cwd=REPOSITORY,
                env=dict(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int | None:
        """The process id; None when it doesn't run."""
        if self.process is None or self.process.poll() is not None:
            return None
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal. Does nothing when it doesn't run."""
        if self.process is not None:
            self.process.send_signal(number)

    def stop(self) -> None:
        """Stop it, by force when that takes too long."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_SECONDS_MAX)


class Cluster:
    """Everything that runs, from the first start to the last stop."""

    def __init__(self, folder: Path, loop: LoopThread) -> None:
        self.folder = folder
        self.clocks = Clocks(folder)
        self.api_ports = [free_port() for _ in range(APIS)]
        self.pids: dict[int, str] = {}
        """Every process that was ever started, by its id."""
        self.postgres_disk, self.valkey_disk = folder / "postgres", folder / "valkey"
        self.has_small_disks = False
        self._others = set(psutil.Process().children(recursive=True))
        self._loop = loop
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start(self) -> None:
        self._stack.callback(lambda: self.clocks.remove_traces(self.pids))
        on_small_disks = [
            self._stack.enter_context(small_disk(folder)) for folder in (self.postgres_disk, self.valkey_disk)
        ]
        self.has_small_disks = all(on_small_disks)
        self.postgres = PostgresServer(self.postgres_disk / "data", settings=POSTGRES_SETTINGS)
        self.valkey = SteppedValkey(self.valkey_disk / "data", self.clocks.environment(ClockOf.VALKEY))
        for server in (self.postgres, self.valkey):
            self._stack.callback(server.stop)
            server.start()
        self.database_proxy = self._proxy(self.postgres.port)
        self.redis_proxy = self._proxy(self.valkey.port)
        self.settings = Settings(database_url=self.postgres.url, redis_url=self.valkey.url)
        """To reach the servers past the proxies."""
        self.run_program("migrate")
        self.apis = [self._api(port) for port in self.api_ports]
        self.workers = [
            self._program(f"worker {number}", ["-m", "worker"], ClockOf.WORKERS)
            for number in range(1, WORKERS + 1)
        ]
        for program in (*self.workers, *self.apis):
            self._stack.callback(program.stop)
        self.tend()

    def tend(self) -> None:
        """Start again whatever has ended; a server that can't start is tried again the next time."""
        parts: list[Server | Program] = [self.valkey, self.postgres, *self.apis, *self.workers]
        for part in parts:
            if part.pid is None:
                # Where its disk is full, it can't; its log says why.
                with suppress(ServerFailed):
                    part.start()
            if part.process is not None:
                self.pids[part.process.pid] = part.name

    def run_program(self, *arguments: str) -> tuple[int, str]:
        """Run a command of `python -m worker` with a direct way to the servers; its status and output."""
        result = subprocess.run(
            [sys.executable, "-m", "worker", *arguments],
            cwd=REPOSITORY,
            env=_environment(self.postgres.url, self.valkey.url),
            capture_output=True,
            text=True,
            timeout=PROGRAM_SECONDS_MAX,
            check=False,
        )
        return result.returncode, result.stdout + result.stderr

    def redis_client(self) -> redis.Redis:
        """A way to Valkey past the proxy."""
        return redis.Redis.from_url(
            self.valkey.url, socket_timeout=REDIS_SECONDS_MAX, socket_connect_timeout=REDIS_SECONDS_MAX
        )

    def unfinished_lines(self, event_ids: Sequence[str]) -> list[str]:
        """What still waits, or is still claimed; empty when all is done."""
        with self.redis_client() as client:
            lengths = {
                f"{prefix}{event_id}": int(client.llen(f"{prefix}{event_id}"))
                for event_id in event_ids
                for prefix in (keys.ORDER, f"{keys.RQ_QUEUE}{keys.QUEUE_NAME_PREFIX}")
            }
            lengths |= {key: int(client.zcard(key)) for key in (keys.READY, keys.LEASED)}
        return [f"{key} has {length} entries" for key, length in lengths.items() if length]

    def waiting_job_ids(self, event_ids: Sequence[str]) -> set[str]:
        """The commands that still stand in these lines."""
        with self.redis_client() as client:
            return {
                job_id.decode(errors="replace")
                for event_id in event_ids
                for job_id in client.lrange(f"{keys.ORDER}{event_id}", 0, -1)
            }

    def leaked_processes(self) -> list[str]:
        """After the end: what of it still runs."""
        own = set(psutil.Process().children(recursive=True)) - self._others
        _, alive = psutil.wait_procs(list(own), timeout=LEAK_SECONDS_MAX)
        left = [f"process {process.pid} is still there: {process.name()}" for process in alive]
        known = {process.pid for process in alive}
        return left + [
            f"process {pid} ({name}) is still there"
            for pid, name in self.pids.items()
            if pid not in known and _is_ours(pid)
        ]

    def _proxy(self, target_port: int) -> Proxy:
        proxy = Proxy(port=free_port(), target_port=target_port)
        self._loop.call(proxy.start())
        self._stack.callback(lambda: self._loop.call(proxy.close()))
        return proxy

    def _api(self, port: int) -> Program:
        command = ["-m", "api", "serve", "--port", str(port)]
        # One is enough: under libfaketime, threads that wait for Python's lock keep a core busy with it.
        is_stepped = port == self.api_ports[-1]
        return self._program(f"API {port}", command, ClockOf.API if is_stepped else None)

    def _program(self, name: str, arguments: list[str], whose: ClockOf | None) -> Program:
        environment = _environment(
            _with_port(self.postgres.url, self.database_proxy.port),
            _with_port(self.valkey.url, self.redis_proxy.port),
        )
        return Program(
            name,
            [sys.executable, *arguments],
            environment if whose is None else {**environment, **self.clocks.environment(whose)},
            self.folder / f"{name.replace(' ', '-').lower()}.log",
        )


def _environment(database_url: str, redis_url: str) -> dict[str, str]:
    return {**os.environ, **SETTINGS, "DATABASE_URL": database_url, "REDIS_URL": redis_url}


def _with_port(url: str, port: int) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition(":")[0] + f":{port}"))


def _is_ours(pid: int) -> bool:
    """Whether the process with this id is our child, and not another's that got the same id later."""
    try:
        return psutil.Process(pid).ppid() == os.getpid()
    except psutil.NoSuchProcess:
        return False
