"""Onsale's processes for a measurement, part by part, with the processor time that each has used."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil
from redis import Redis

from bench.processes import POLL_SECONDS, START_SECONDS_MAX, BenchmarkError, Process, check_alive, running
from bench.targets import Target, migrate_database, serve
from local.servers import PostgresServer, ValkeyServer
from shared.clock import SystemClock
from shared.database import statements
from shared.database.engine import Database
from shared.domain import SaleTerms
from shared.identifiers import new_id
from shared.line import keys
from shared.line.codec import book_payload
from shared.line.connections import connect, connect_async
from shared.line.producer import Producer, Submission
from shared.records import EventRecord
from shared.seals import new_event
from shared.settings import Settings

SUBMITTED_AT_ONCE = 2_560
TICKETS = 5_000_000
"""More than can be sold in a run, so that every command is a booking and none a refusal."""

LINE_LENGTH_MAX = 10_000_000

Result = TypeVar("Result")


@dataclass(slots=True, kw_only=True)
class Stack:
    """Fresh servers, and Onsale's processes as they are added."""

    directory: Path
    postgres: PostgresServer
    valkey: ValkeyServer
    settings: Settings
    environment: dict[str, str]
    processes: dict[str, Process] = field(default_factory=dict)
    base_url: str = ""
    _exits: ExitStack = field(default_factory=ExitStack)

    def start_api(self) -> None:
        """Start an API process and wait until it answers."""
        self.base_url, processes = serve(
            self._exits, ["-m", "api", "serve"], self.environment, self.directory
        )
        self.processes |= processes

    def start_worker(self, name: str = "worker-1") -> None:
        """Start a worker."""
        self._exits.enter_context(self.worker(name))

    @contextmanager
    def worker(self, name: str = "worker-1") -> Iterator[None]:
        """A worker for the length of the block."""
        command = [sys.executable, "-m", "worker"]
        with running(command, self.environment, self.directory / f"{name}.log") as process:
            self.processes[name] = process
            try:
                yield
            finally:
                del self.processes[name]

    def await_workers(self, count: int) -> None:
        """Wait until so many workers have begun to work, as RQ's list of workers has it.

        Raises:
            BenchmarkError: a process has ended, or the time is up.
        """
        client = self.line()
        deadline = time.monotonic() + START_SECONDS_MAX
        while client.scard(keys.RQ_WORKERS) < count:
            self.check()
            if time.monotonic() > deadline:
                raise BenchmarkError(f"{count} workers did not begin within {START_SECONDS_MAX:.0f} s")
            time.sleep(POLL_SECONDS)
        client.close()

    def check(self) -> None:
        """Raise BenchmarkError if a process has ended."""
        check_alive(self.processes, self.directory)

    def target(self) -> Target:
        """Onsale as a peer is seen: over HTTP, and in its tables."""
        return Target(
            base_url=self.base_url,
            database_url=self.postgres.url,
            schema="public",
            has_ledger=True,
            check=self.check,
            processor_seconds=self.processor_seconds,
        )

    def line(self) -> Redis:
        """A client of the line."""
        return connect(self.settings)

    def applied(self, client: Redis, event_id: str) -> int:
        """How many commands of an event have been applied."""
        return int(client.hget(f"onsale:event:{event_id}", "applied") or 0)

    def processor_seconds(self) -> dict[str, float]:
        """User and system time that each process has used since its start, with its children's."""
        pids = {name: process.pid for name, process in self.processes.items()}
        assert self.postgres.pid is not None
        assert self.valkey.pid is not None
        pids |= {"PostgreSQL": self.postgres.pid, "Valkey": self.valkey.pid}
        return {name: seconds_used(pid) for name, pid in pids.items()}

    def make_event(self, *, total_tickets: int = TICKETS) -> EventRecord:
        """An event that PostgreSQL and Redis know."""
        event = new_event(
            id=new_id(),
            terms=SaleTerms(name="Benchmark", total_tickets=total_tickets, max_tickets_per_user=2),
            created_at=SystemClock().now(),
        )
        database = Database(self.settings, connections_max=1)
        with database.transaction() as connection:
            statements.insert_event(connection, event)
        database.close()
        self.with_producer(lambda producer: producer.seed_event(event))
        return event

    def make_quiet_events(self, count: int) -> None:
        """Open events that nobody asks for just now, but did: RQ still lists their queues."""
        now = SystemClock().now()
        terms = SaleTerms(name="Quiet", total_tickets=100, max_tickets_per_user=2)
        events = [new_event(id=new_id(), terms=terms, created_at=now) for _ in range(count)]
        database = Database(self.settings, connections_max=1)
        with database.transaction() as connection:
            for event in events:
                statements.insert_event(connection, event)
        database.close()

        async def seed(producer: Producer) -> None:
            for event in events:
                await producer.seed_event(event)

        self.with_producer(seed)
        client = self.line()
        pipeline = client.pipeline(transaction=False)
        for event in events:
            pipeline.sadd("rq:queues", f"rq:queue:event:{event.id}")
            pipeline.zadd(f"rq:finished:event:{event.id}", {new_id(): now.timestamp() + 3_600})
        pipeline.execute()
        client.close()

    def with_producer(self, use: Callable[[Producer], Awaitable[Result]]) -> Result:
        """Run something with a producer, in an event loop of its own."""

        async def run() -> Result:
            client = connect_async(self.settings)
            try:
                return await use(Producer(client, client, SystemClock(), self.settings))
            finally:
                await client.aclose()

        return asyncio.run(run())

    def fill(self, event_id: str, users: Sequence[str]) -> None:
        """Put a booking of each of these users on an event's line, without HTTP."""

        async def fill(producer: Producer) -> None:
            for start in range(0, len(users), SUBMITTED_AT_ONCE):
                together = users[start : start + SUBMITTED_AT_ONCE]
                await asyncio.gather(*(producer.submit(booking(event_id, user)) for user in together))

        self.with_producer(fill)

    def close(self) -> None:
        """End the processes."""
        self._exits.close()


@contextmanager
def stack(directory: Path, **onsale: str) -> Iterator[Stack]:
    """Fresh servers with the schema, for the length of the block; `onsale` sets ONSALE_ variables."""
    with (
        PostgresServer(directory / "postgres") as postgres,
        stack_with(postgres, directory, **onsale) as built,
    ):
        yield built


@contextmanager
def stack_with(postgres: PostgresServer, directory: Path, **onsale: str) -> Iterator[Stack]:
    """The same with a PostgreSQL that is there already, with what it holds."""
    with ValkeyServer(directory / "valkey") as valkey:
        environment = {
            "DATABASE_URL": postgres.url,
            "REDIS_URL": valkey.url,
            "ONSALE_LINE_LENGTH_MAX": str(LINE_LENGTH_MAX),
            **{f"ONSALE_{name.upper()}": value for name, value in onsale.items()},
        }
        migrate_database(environment, directory)
        settings = Settings(database_url=postgres.url, redis_url=valkey.url, line_length_max=LINE_LENGTH_MAX)
        built = Stack(
            directory=directory,
            postgres=postgres,
            valkey=valkey,
            settings=settings,
            environment=environment,
        )
        try:
            yield built
        finally:
            built.close()


@contextmanager
def onsale(directory: Path, workers: int) -> Iterator[Target]:
    """Onsale as it is measured over HTTP next to its peers, for the length of the block."""
    with stack(directory) as built:
        built.start_api()
        for number in range(1, workers + 1):
            built.start_worker(f"worker-{number}")
        yield built.target()


def used_between(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Processor seconds by process; workers are added up."""
    used: dict[str, float] = {}
    for name, seconds in after.items():
        kind = "workers" if name.startswith("worker-") else name
        used[kind] = used.get(kind, 0.0) + seconds - before.get(name, 0.0)
    return used


def new_users(count: int, *, prefix: str = "user") -> list[str]:
    """So many users in an order by chance, so that who follows another is not their neighbour in an index."""
    users = [f"{prefix}{number}" for number in range(count)]
    random.Random(count).shuffle(users)  # noqa: S311 (an order, the same in each run)
    return users


def booking(event_id: str, user_id: str) -> Submission:
    """One ticket for this user."""
    return Submission(job_id=new_id(), event_id=event_id, payload=book_payload(user_id, 1))


def seconds_used(pid: int) -> float:
    """User and system time of a process since its start, with its children's."""
    process = psutil.Process(pid)
    seconds = 0.0
    # What children have used that have ended counts with their parent, which is therefore asked last.
    for each in (*process.children(recursive=True), process):
        with suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
    return seconds
