"""A line made anew for each fault, and all that must hold when it has been worked off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import redis

from shared.database import statements
from shared.database.engine import Database
from shared.domain import OutcomeCode
from shared.line.producer import JobRecord, Producer, Submission
from shared.records import job_result
from shared.settings import Settings
from tests.builders import (
    assert_books_balance,
    create_event,
    outcomes_in_ledger,
    tamper,
    violations,
    with_producer,
)
from tests.faults.roads import prepare_line

EXPECTED = [
    OutcomeCode.BOOKED,
    OutcomeCode.BOOKED,
    OutcomeCode.NOT_ENOUGH_TICKETS,
    OutcomeCode.CANCELLED,
    OutcomeCode.BOOKED,
    OutcomeCode.COMMAND_UNREADABLE,
    OutcomeCode.WITHDRAWN,
    OutcomeCode.USER_LIMIT_EXCEEDED,
    OutcomeCode.BOOKED,
]


def renew(
    settings: Settings, database: Database, client: redis.Redis, *, flush_scripts: bool = True
) -> tuple[str, list[Submission]]:
    """A new event and its line. With the scripts flushed, the road also passes the loading of each."""
    client.flushdb()
    tamper(database, "TRUNCATE events, bookings, ledger")
    event = create_event(database, total_tickets=3)
    commands = prepare_line(settings, client, event)
    if flush_scripts:
        client.script_flush()
    return event.id, commands


def expire_claims(client: redis.Redis) -> None:
    """As if so much time had passed that every claim has ended, and every delay."""
    for key in ("onsale:leased", "onsale:ready"):
        for event_id in cast(list[bytes], client.zrange(key, 0, -1)):
            client.zadd(key, {event_id: 0})


def assert_all_is_well(
    settings: Settings,
    database: Database,
    client: redis.Redis,
    event_id: str,
    commands: Sequence[Submission],
    expected: Sequence[OutcomeCode] = EXPECTED,
) -> None:
    """I1 to I4, the outcomes that there must be, and the same answer from Redis and from the ledger."""
    entries = outcomes_in_ledger(database, event_id)
    assert [job_id for _, job_id, _ in entries] == [command.job_id for command in commands]
    assert [outcome for _, _, outcome in entries] == expected
    assert_books_balance(database, event_id)
    assert violations(database) == []
    assert_every_job_is_answered(settings, database, commands)
    assert client.llen(f"onsale:order:{event_id}") == client.llen(f"rq:queue:event:{event_id}") == 0


def assert_every_job_is_answered(
    settings: Settings, database: Database, commands: Sequence[Submission]
) -> None:
    """What Redis says of each job is what the ledger says."""

    async def read_all(producer: Producer) -> list[JobRecord | None]:
        return [await producer.read_job(command.job_id) for command in commands]

    records = with_producer(settings, read_all)
    with database.transaction() as connection:
        entries = statements.find_ledger_records(connection, [command.job_id for command in commands])
    for command, record in zip(commands, records, strict=True):
        assert record is not None
        assert record.result == job_result(entries[command.job_id])
