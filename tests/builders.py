"""Small builders, so that a test says only what it is about."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TypeVar

import httpx
import redis
from opentelemetry.trace import Tracer
from sqlalchemy import create_engine, text

from local.servers import PostgresServer
from shared.api_keys import ApiKey, Role, hash_secret, new_secret, write_token
from shared.clock import SystemClock
from shared.database import api_keys, statements
from shared.database.engine import Database
from shared.domain import BookingStatus, BookTickets, CommandKind, OutcomeCode, SaleTerms
from shared.identifiers import new_id
from shared.line.codec import WaitingCommand, book_payload
from shared.line.connections import connect, connect_async
from shared.line.consumer import NO_CLAIM, Completion, Consumer, GiveBack, Sleeper, job_words
from shared.line.presence import Presence
from shared.line.producer import Acceptance, Producer, Submission
from shared.records import CommandPayload, EventRecord
from shared.seals import new_event
from shared.settings import Settings
from worker.applied_batch import AppliedBatch
from worker.batch import apply_to_database
from worker.consume import Worker
from worker.verify import Verifier

Result = TypeVar("Result")

UNKNOWN_ID = "01900000-0000-7000-8000-000000000000"
"""Well-formed, and of nothing: for cases that have names, which must be the same in every process."""

_WAIT_SECONDS_MAX = 30.0


def wait_until(condition: Callable[[], object], seconds: float = _WAIT_SECONDS_MAX) -> None:
    """Wait for something that happens elsewhere; fail after a generous while."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "this has not happened in time"
        time.sleep(0.01)


def own_client(client: httpx.Client) -> httpx.Client:
    """A client of the same server for one thread: the connections of a shared one get mixed up.

    Loading the trusted certificates would take longer than the requests, which are not encrypted.
    """
    return httpx.Client(base_url=client.base_url, timeout=30, verify=False)


def in_new_database(postgres: PostgresServer, name: str) -> str:
    """The address of a database that is made anew."""
    engine = create_engine(
        postgres.url.replace("postgresql://", "postgresql+psycopg2://"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return postgres.url.rpartition("/")[0] + f"/{name}"


def build_worker(
    settings: Settings, database: Database, *, name: str, tracer: Tracer | None = None
) -> Worker:
    clock = SystemClock()
    client = connect(settings)
    return Worker(
        database,
        Consumer(client, settings, worker_name=name),
        Sleeper(
            connect(settings, blocking_seconds=settings.idle_wait_seconds),
            idle_wait_seconds=settings.idle_wait_seconds,
        ),
        Presence(client, clock, worker_name=name, ttl_seconds=settings.worker_ttl_seconds),
        clock,
        settings,
        tracer,
    )


def create_event(
    database: Database,
    *,
    id: str | None = None,
    total_tickets: int = 10,
    max_tickets_per_user: int = 2,
    sales_open_at: datetime | None = None,
    organiser_id: str | None = None,
) -> EventRecord:
    """An event in PostgreSQL that Redis does not know yet."""
    event = new_event(
        id=id or new_id(),
        terms=SaleTerms(
            name="Test Event",
            total_tickets=total_tickets,
            max_tickets_per_user=max_tickets_per_user,
            sales_open_at=sales_open_at,
        ),
        organiser_id=organiser_id,
        created_at=SystemClock().now(),
    )
    with database.transaction() as connection:
        statements.insert_event(connection, event)
    return event


def make_key(
    database: Database, role: Role, account: str, events: list[str] | None = None
) -> tuple[ApiKey, str]:
    """A key, and the token with which its holder comes."""
    secret = new_secret()
    key = ApiKey(
        id=new_id(),
        role=role,
        account=account,
        label="",
        events=events,
        secret_hash=hash_secret(secret),
        previous_hash=None,
        previous_until=None,
        created_at=SystemClock().now(),
        expires_at=None,
        revoked_at=None,
    )
    with database.transaction() as connection:
        api_keys.insert_key(connection, key)
    return key, write_token(key.id, secret)


def booking(position: int | None, user_id: str = "ann", ticket_count: int = 1) -> WaitingCommand:
    """A booking as it stands in the line."""
    now = SystemClock().now()
    return WaitingCommand(
        command=BookTickets(id=new_id(), user_id=user_id, ticket_count=ticket_count, accepted_at=now),
        kind=CommandKind.BOOK,
        payload=book_payload(user_id, ticket_count),
        position=position,
        accepted_at=now,
    )


def tamper(database: Database, statement: str) -> None:
    """Change the tables past every trigger, as nobody but their owner can."""
    with database.transaction() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for part in statement.split(";"):
            connection.execute(text(part.replace(":", r"\:")))


def with_producer(
    settings: Settings,
    use: Callable[[Producer], Awaitable[Result]],
    *,
    line_length_max: int = 1_000,
) -> Result:
    """Run something with a producer, in an event loop of its own."""

    async def run() -> Result:
        client = connect_async(settings)
        bounded = settings.model_copy(update={"line_length_max": line_length_max})
        try:
            return await use(Producer(client, client, SystemClock(), bounded))
        finally:
            await client.aclose()

    return asyncio.run(run())


def seed(settings: Settings, event: EventRecord) -> None:
    async def use(producer: Producer) -> None:
        await producer.seed_event(event)

    with_producer(settings, use)


def book(event_id: str, user_id: str, ticket_count: int = 1) -> Submission:
    return Submission(job_id=new_id(), event_id=event_id, payload=book_payload(user_id, ticket_count))


def submission(event_id: str, payload: CommandPayload) -> Submission:
    return Submission(job_id=new_id(), event_id=event_id, payload=payload)


def submit(
    settings: Settings, submissions: Sequence[Submission], *, line_length_max: int = 1_000
) -> list[Acceptance]:
    """Accept commands in this order."""

    async def use(producer: Producer) -> list[Acceptance]:
        return await asyncio.gather(*(producer.submit(each) for each in submissions))

    return with_producer(settings, use, line_length_max=line_length_max)


def work_off(worker: Worker, client: redis.Redis, event_id: str) -> None:
    """Let a worker run until RQ's list of an event is empty."""
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        wait_until(lambda: queue_length(client, event_id) == 0)
    finally:
        worker.stop()
        thread.join()


def completion_of(batch: AppliedBatch) -> Completion:
    now = SystemClock().now()
    return Completion(
        job_words=job_words(batch.results),
        view=batch.view,
        applied_position=batch.applied_position,
        started_at=now,
        ended_at=now,
    )


def complete(
    consumer: Consumer,
    event_id: str,
    token: int,
    batch: AppliedBatch,
    give_back: GiveBack = GiveBack.IF_EMPTY,
) -> object:
    return consumer.complete(event_id, token, completion_of(batch), give_back)


def outcomes_in_ledger(database: Database, event_id: str) -> list[tuple[int, str, OutcomeCode]]:
    """Position, job id and outcome of every ledger row of an event, in order of position."""
    with database.transaction() as connection:
        rows = connection.execute(
            text("SELECT position, job_id, outcome FROM ledger WHERE event_id = :id ORDER BY position"),
            {"id": event_id},
        ).all()
    return [(position, str(job_id), OutcomeCode(outcome)) for position, job_id, outcome in rows]


def assert_books_balance(database: Database, event_id: str) -> None:
    """I1 to I4 for one event, asked of the database itself."""
    with database.transaction() as connection:
        event = statements.find_event(connection, event_id)
        assert event is not None
        active = connection.execute(
            text(
                "SELECT user_id, sum(ticket_count) FROM bookings"
                " WHERE event_id = :id AND status = :active GROUP BY user_id"
            ),
            {"id": event_id, "active": BookingStatus.ACTIVE.value},
        ).all()
        booking_ids = {
            str(id)
            for (id,) in connection.execute(
                text("SELECT id FROM bookings WHERE event_id = :id"), {"id": event_id}
            )
        }
    entries = outcomes_in_ledger(database, event_id)
    assert event.available_tickets == event.total_tickets - sum(tickets for _, tickets in active)
    assert all(tickets <= event.max_tickets_per_user for _, tickets in active)
    assert [position for position, _, _ in entries] == list(range(1, event.applied_position + 1))
    assert booking_ids == {job_id for _, job_id, outcome in entries if outcome is OutcomeCode.BOOKED}


def violations(database: Database, event_id: str | None = None) -> list[str]:
    """What `verify` finds wrong, at one event or at all."""
    found: list[str] = []
    verifier = Verifier(database, report=found.append, progress=lambda counts: None)
    if event_id is None:
        verifier.verify_all()
    else:
        verifier.verify_event(event_id)
    assert verifier.counts.violations == len(found)
    return found


def apply_waiting(settings: Settings, database: Database, client: redis.Redis, event_id: str) -> None:
    """Apply and complete what waits at the head of a line."""
    consumer = Consumer(client, settings, worker_name="w")
    waiting = consumer.peek(event_id).commands
    complete(
        consumer,
        event_id,
        NO_CLAIM,
        apply_to_database(database, SystemClock(), event_id, waiting, NO_CLAIM),
    )


def queue_length(client: redis.Redis, event_id: str) -> int:
    return int(client.llen(f"rq:queue:event:{event_id}"))
