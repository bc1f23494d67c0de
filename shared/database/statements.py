"""The SQL of events, bookings and the ledger, as functions named for what they do, for inside a transaction.

That of a batch is in `shared.database.batches`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Row, Text, Uuid, bindparam, cast, func, insert, select, text
from sqlalchemy.dialects.postgresql import ARRAY

from shared.database.tables import bookings, events, ledger
from shared.domain import BookingStatus, CommandKind, OutcomeCode
from shared.errors import DatabaseUnavailable
from shared.records import BookingRecord, EventRecord, LedgerRecord

EVENT_COLUMNS = (
    events.c.id,
    events.c.name,
    events.c.total_tickets,
    events.c.available_tickets,
    events.c.max_tickets_per_user,
    events.c.applied_position,
    events.c.fencing_token,
    events.c.created_at,
    events.c.updated_at,
    events.c.ledger_digest,
    events.c.seal,
    events.c.organiser_id,
    events.c.sales_open_at,
    events.c.sales_closed,
    events.c.archived_at,
)
_SELECT_EVENT = select(*EVENT_COLUMNS).where(events.c.id == bindparam("event_id"))
_LOCK_EVENT = _SELECT_EVENT.with_for_update()
_SELECT_HOLDINGS = (
    select(bookings.c.user_id, func.sum(bookings.c.ticket_count))
    .where(
        bookings.c.event_id == bindparam("event_id"),
        bookings.c.user_id == func.any(bindparam("user_ids")),
        bookings.c.status == BookingStatus.ACTIVE.value,
    )
    .group_by(bookings.c.user_id)
)
_ANY_OF_IDS = func.any(cast(bindparam("ids", type_=Text), ARRAY(Uuid(as_uuid=False))))
_SELECT_EVENTS = select(*EVENT_COLUMNS).where(events.c.id == _ANY_OF_IDS)
_SELECT_BOOKINGS = select(bookings).where(bookings.c.id == _ANY_OF_IDS)
_SELECT_LEDGER = select(ledger).where(ledger.c.job_id == _ANY_OF_IDS)


def insert_event(connection: Connection, event: EventRecord) -> None:
    """Add an event with all its tickets for sale."""
    connection.execute(
        insert(events).values(
            id=event.id,
            name=event.name,
            total_tickets=event.total_tickets,
            available_tickets=event.available_tickets,
            max_tickets_per_user=event.max_tickets_per_user,
            created_at=event.created_at,
            updated_at=event.updated_at,
            ledger_digest=event.ledger_digest,
            seal=event.seal,
            organiser_id=event.organiser_id,
            sales_open_at=event.sales_open_at,
            sales_closed=event.sales_closed,
        )
    )


def find_event(connection: Connection, event_id: str) -> EventRecord | None:
    """Read an event without locking it."""
    row = connection.execute(_SELECT_EVENT, {"event_id": event_id}).one_or_none()
    return None if row is None else event_record(row)


def find_events(connection: Connection, event_ids: Iterable[str]) -> dict[str, EventRecord]:
    """The events with these ids, by id; what does not exist is left out."""
    rows = connection.execute(_SELECT_EVENTS, {"ids": _uuid_array(event_ids)})
    return {row.id: event_record(row) for row in rows}


def lock_event(connection: Connection, event_id: str) -> EventRecord | None:
    """Read an event and hold its row lock until the transaction ends.

    Raises:
        RuntimeError: not called inside a transaction, where the lock would be gone at once.
    """
    if not connection.in_transaction():
        raise RuntimeError("lock_event needs a transaction")
    row = connection.execute(_LOCK_EVENT, {"event_id": event_id}).one_or_none()
    return None if row is None else event_record(row)


def lock_missing_event(connection: Connection, event_id: str) -> None:
    """Let one transaction at a time work on an event that has no row to lock."""
    connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:event_id, 0))"), {"event_id": event_id}
    )


def last_ledger_position(connection: Connection, event_id: str) -> int:
    """The newest position in an event's ledger, 0 if it has none."""
    newest = connection.execute(select(func.max(ledger.c.position)).where(ledger.c.event_id == event_id))
    return newest.scalar() or 0


def active_tickets_by_user(connection: Connection, event_id: str, user_ids: Iterable[str]) -> dict[str, int]:
    """The active tickets of each of these users at this event; who has none is left out."""
    rows = connection.execute(_SELECT_HOLDINGS, {"event_id": event_id, "user_ids": list(user_ids)})
    return {user_id: int(tickets) for user_id, tickets in rows}


def find_bookings(connection: Connection, booking_ids: Iterable[str]) -> dict[str, BookingRecord]:
    """The bookings with these ids, by id; what does not exist is left out."""
    rows = connection.execute(_SELECT_BOOKINGS, {"ids": _uuid_array(booking_ids)})
    return {row.id: booking_record(row) for row in rows}


def find_ledger_records(connection: Connection, job_ids: Iterable[str]) -> dict[str, LedgerRecord]:
    """The ledger rows of these jobs, by job id; what was never applied is left out."""
    rows = connection.execute(_SELECT_LEDGER, {"ids": _uuid_array(job_ids)})
    return {row.job_id: ledger_record(row) for row in rows}


def ping(connection: Connection) -> None:
    """Ask PostgreSQL whether it lives, and takes writes.

    Raises:
        DatabaseUnavailable: it only reads; another connection may lead to a server that writes.
    """
    if connection.execute(text("SHOW transaction_read_only")).scalar_one() == "on":
        connection.invalidate()
        raise DatabaseUnavailable("PostgreSQL takes no writes")


def _uuid_array(ids: Iterable[str]) -> str:
    """Ids as the text of a PostgreSQL array, cast by the server: one parameter, whatever the batch."""
    return "{" + ",".join(ids) + "}"


def event_record(row: Row[*tuple[Any, ...]]) -> EventRecord:
    """A row of `events` as a record."""
    return EventRecord(
        **{**row._asdict(), "ledger_digest": bytes(row.ledger_digest), "seal": bytes(row.seal)}
    )


def booking_record(row: Row[*tuple[Any, ...]]) -> BookingRecord:
    """A row of `bookings` as a record."""
    return BookingRecord(**{**row._asdict(), "status": BookingStatus(row.status)})


def ledger_record(row: Row[*tuple[Any, ...]]) -> LedgerRecord:
    """A row of `ledger` as a record."""
    return LedgerRecord(
        **{
            **row._asdict(),
            "kind": CommandKind(row.kind),
            "outcome": OutcomeCode(row.outcome),
            "detail": row.detail or {},
        }
    )
