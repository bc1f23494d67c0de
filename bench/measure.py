"""One measurement: book for a while, wait until the line is drained, count in PostgreSQL, check."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
import psycopg2
from psycopg2 import sql

from bench.load import book_for
from bench.processes import BenchmarkError
from bench.stack import TICKETS, used_between
from bench.targets import Target

WARM_UP_SECONDS = 1
DRAIN_SECONDS_MAX = 120.0
SETTLED_SECONDS = 0.5
"""The count must stand still so long to be called final; this time is not part of the figure."""
POLL_SECONDS = 0.02

TICKETS_GONE = "SELECT total_tickets - available_tickets FROM {schema}.events WHERE id = %s"
BOOKINGS = "SELECT count(*) FROM {schema}.bookings WHERE event_id = %s"
BOOKED = "SELECT count(*) FROM {schema}.ledger WHERE event_id = %s AND outcome = 'booked'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What one event's tables say."""

    tickets_gone: int
    bookings: int
    booked_in_ledger: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The figures of one measurement."""

    applied: int
    applied_seconds: float
    used_seconds: Mapping[str, float]
    """Processor time by process, where the target tells it."""

    @property
    def applied_per_second(self) -> float:
        """Bookings in PostgreSQL in the time from the first request to the last of them."""
        return self.applied / self.applied_seconds


def measure(target: Target, *, seconds: int, connections: int) -> Result:
    """Measure bookings on one hot event, after a short warm-up on another event.

    Raises:
        BenchmarkError: something broke, or the count is not what the clients were told.
    """
    with httpx.Client(base_url=target.base_url, timeout=10.0) as client:
        _book_and_drain(client, target, WARM_UP_SECONDS, connections)
        return _book_and_drain(client, target, seconds, connections)


def _book_and_drain(client: httpx.Client, target: Target, seconds: int, connections: int) -> Result:
    event_id = _create_event(client)
    started, used = time.monotonic(), target.processor_seconds()
    load = book_for(seconds, connections=connections, base_url=target.base_url, event_id=event_id)
    target.check()
    drained = await_drained(client, target, event_id, load.accepted)
    used = used_between(used, target.processor_seconds())
    tally = tally_of(target, event_id)
    # When wrk stops, each connection may have a request on its way whose answer nobody reads.
    check_tally(tally, load.accepted, unread=connections)
    return Result(applied=tally.bookings, applied_seconds=drained - started, used_seconds=used)


def _create_event(client: httpx.Client) -> str:
    answer = client.post("/events", json={"name": "Benchmark", "total_tickets": TICKETS})
    if answer.status_code != httpx.codes.CREATED:
        raise BenchmarkError(f"POST /events answered {answer.status_code}: {answer.text}")
    return str(answer.json()["id"])


def await_drained(client: httpx.Client, target: Target, event_id: str, accepted: int) -> float:
    """Wait until all that was accepted is applied; the moment at which the final count was first seen.

    Raises:
        BenchmarkError: it is not applied in time, or a process has ended.
    """
    deadline = time.monotonic() + DRAIN_SECONDS_MAX
    gone, changed_at = -1, time.monotonic()
    while time.monotonic() < deadline:
        target.check()
        event = client.get(f"/events/{event_id}").raise_for_status().json()
        seen_at = time.monotonic()
        if TICKETS - event["available_tickets"] != gone:
            gone, changed_at = TICKETS - event["available_tickets"], seen_at
        elif gone >= accepted and seen_at - changed_at >= SETTLED_SECONDS:
            return changed_at
        time.sleep(POLL_SECONDS)
    raise BenchmarkError(
        f"{accepted} accepted, but only {gone} applied {DRAIN_SECONDS_MAX:.0f} s after the load"
    )


def tally_of(target: Target, event_id: str) -> Tally:
    """What PostgreSQL has of an event."""
    connection = psycopg2.connect(target.database_url)
    try:
        with connection.cursor() as cursor:
            return Tally(
                tickets_gone=_number(cursor, target, TICKETS_GONE, event_id),
                bookings=_number(cursor, target, BOOKINGS, event_id),
                booked_in_ledger=_number(cursor, target, BOOKED, event_id) if target.has_ledger else None,
            )
    finally:
        connection.close()


def _number(cursor: psycopg2.extensions.cursor, target: Target, statement: str, event_id: str) -> int:
    cursor.execute(sql.SQL(statement).format(schema=sql.Identifier(target.schema)), (event_id,))
    row = cursor.fetchone()
    if row is None:
        raise BenchmarkError(f"event {event_id} is not in PostgreSQL")
    return int(row[0])


def check_tally(tally: Tally, told: int, *, unread: int = 0) -> None:
    """What clients were told, what is sold, what is booked and what the ledger says must agree.

    So many answers at most may have been `unread`.

    Raises:
        BenchmarkError: they don't.
    """
    counts = {tally.tickets_gone, tally.bookings}
    if tally.booked_in_ledger is not None:
        counts.add(tally.booked_in_ledger)
    if len(counts) != 1:
        raise BenchmarkError(f"WRONG RESULT, the counts of one event disagree: {tally}")
    if not told <= tally.bookings <= told + unread:
        raise BenchmarkError(
            f"WRONG RESULT: clients were told of {told} bookings, PostgreSQL has {tally.bookings}"
        )
