"""What is measured over HTTP: the synchronous peers, each started afresh with servers of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.options import scratch
from bench.processes import Process, await_http, check_alive, free_port, run_to_end, running
from local.servers import PostgresServer

MIGRATE_SECONDS_MAX = 60.0
SYNCHRONOUS = "bench.peers.synchronous:app"
ATOMIC_UPDATE = "bench.peers.atomic_update:app"
HELLO_WORLD = "bench.peers.hello:app"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerSetting:
    """How many bookings the peer tries at once."""

    processes: int
    pool_size: int
    pool_overflow: int
    threads: int

    def __str__(self) -> str:
        return (
            f"{self.processes} process{'es' if self.processes > 1 else ''}, "
            f"pool {self.pool_size}+{self.pool_overflow}, {self.threads} threads"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A running system: where it listens, where its tables are, and whether it still lives."""

    base_url: str
    database_url: str
    schema: str
    has_ledger: bool
    check: Callable[[], None]
    processor_seconds: Callable[[], dict[str, float]] = dict
    """User and system time by process, where it is of interest."""


USUAL_BEST = PeerSetting(processes=2, pool_size=2, pool_overflow=0, threads=2)
"""What suits a synchronous peer best on two cores, where there is no time for trials."""


@contextmanager
def synchronous_peer(
    directory: Path, setting: PeerSetting, application: str = SYNCHRONOUS
) -> Iterator[Target]:
    """A synchronous peer with a fresh PostgreSQL, for the length of the block."""
    with ExitStack() as stack:
        postgres = stack.enter_context(PostgresServer(directory / "postgres"))
        environment = {
            "DATABASE_URL": postgres.url,
            "PEER_POOL_SIZE": str(setting.pool_size),
            "PEER_POOL_OVERFLOW": str(setting.pool_overflow),
            "PEER_THREADS": str(setting.threads),
        }
        base_url, processes = serve(
            stack,
            [*uvicorn(application), "--workers", str(setting.processes)],
            environment,
            directory,
        )
        yield Target(
            base_url=base_url,
            database_url=postgres.url,
            schema="peer",
            has_ledger=False,
            check=lambda: check_alive(processes, directory),
        )


@contextmanager
def plain_peer(application: str) -> Iterator[tuple[str, Process]]:
    """A peer that has nothing behind it: its URL and its process, for the length of the block."""
    with scratch() as directory, ExitStack() as exits:
        base_url, processes = serve(exits, uvicorn(application), {}, directory)
        yield base_url, processes["api"]


def migrate_database(environment: Mapping[str, str], directory: Path) -> None:
    """Give a fresh database its schema."""
    migrate = [sys.executable, "-m", "worker", "migrate"]
    run_to_end(migrate, environment, directory / "migrate.log", MIGRATE_SECONDS_MAX)


def uvicorn(application: str) -> list[str]:
    """How an application is served by uvicorn, as Python's arguments."""
    return ["-m", "uvicorn", application, "--no-access-log"]


def serve(
    stack: ExitStack, arguments: list[str], environment: Mapping[str, str], directory: Path
) -> tuple[str, dict[str, Process]]:
    """Start an HTTP server and wait until it answers; its URL, and its process by name."""
    port = free_port()
    command = [sys.executable, *arguments, "--host", "127.0.0.1", "--port", str(port)]
    log = directory / "api.log"
    process = stack.enter_context(running(command, environment, log))
    base_url = f"http://127.0.0.1:{port}"
    await_http(f"{base_url}/openapi.json", process, log)
    return base_url, {"api": process}
