"""Every SQL statement, as functions named for what they are for. Call them inside a transaction."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import psycopg2
from sqlalchemy import Connection, Row, Text, Uuid, bindparam, cast, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY

from shared.clock import format_time
from shared.database.tables import bookings, events, ledger
from shared.domain import BookingStatus, CommandKind, OutcomeCode
from shared.errors import WriteRefused
from shared.records import BookingRecord, EventRecord, LedgerRecord

_COPY_BOOKINGS = (
    "COPY bookings (id, event_id, user_id, ticket_count, status, created_at, updated_at)"
    " FROM STDIN WITH (FORMAT text, NULL '')"
)
_COPY_LEDGER = (
    "COPY ledger (job_id, event_id, position, kind, payload, outcome, detail, booking_id,"
    " accepted_at, applied_at, trace) FROM STDIN WITH (FORMAT text, NULL '')"
)

_LEDGER_TABS = len(ledger.c) - 1
_COPY_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_COPY_READ_BYTES = 64 * 1024

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


def insert_bookings(connection: Connection, records: Sequence[BookingRecord]) -> None:
    """Add bookings in bulk."""
    _copy(
        connection,
        _COPY_BOOKINGS,
        (
            "\t".join(
                (
                    record.id,
                    record.event_id,
                    _escaped(record.user_id),
                    str(record.ticket_count),
                    record.status.value,
                    format_time(record.created_at),
                    format_time(record.updated_at),
                )
            )
            for record in records
        ),
    )


def cancel_bookings(connection: Connection, booking_ids: Iterable[str], moment: datetime) -> None:
    """Mark bookings as cancelled."""
    connection.execute(
        update(bookings)
        .where(bookings.c.id == _ANY_OF_IDS)
        .values(status=BookingStatus.CANCELLED.value, updated_at=moment),
        {"ids": _uuid_array(booking_ids)},
    )


def insert_ledger_lines(connection: Connection, lines: Iterable[str]) -> None:
    """Add ledger rows in bulk, as `shared.seals.ledger_line` writes them.

    A second row for a job or a position is refused by the database.
    """
    _copy(connection, _COPY_LEDGER, (_with_every_column(line).replace("\\", "\\\\") for line in lines))


def change_event(connection: Connection, event: EventRecord) -> None:
    """Write the terms of an event; tickets that are added or taken away become available or cease to be."""
    added = event.total_tickets - events.c.total_tickets
    connection.execute(
        update(events)
        .where(events.c.id == event.id)
        .values(
            name=event.name,
            total_tickets=event.total_tickets,
            available_tickets=events.c.available_tickets + added,
            sales_open_at=event.sales_open_at,
            sales_closed=event.sales_closed,
        )
    )


def update_event(connection: Connection, event: EventRecord) -> None:
    """Write what a batch changed about its event, but for the tickets: the database counts those itself.

    Raises:
        WriteRefused: the database counts other tickets than the rules.
    """
    counted = connection.execute(
        update(events)
        .where(events.c.id == event.id)
        .values(
            applied_position=event.applied_position,
            fencing_token=event.fencing_token,
            updated_at=event.updated_at,
            ledger_digest=event.ledger_digest,
            seal=event.seal,
        )
        .returning(events.c.available_tickets)
    ).scalar_one()
    if counted != event.available_tickets:
        raise WriteRefused(f"the database counts {counted} tickets left, the rules {event.available_tickets}")


def ping(connection: Connection) -> None:
    """Ask PostgreSQL for a sign of life."""
    connection.execute(text("SELECT 1"))


def _escaped(text: str) -> str:
    """A text as COPY reads it."""
    return text if text.isalnum() else text.translate(_COPY_ESCAPES)


def _with_every_column(ledger_line: str) -> str:
    """COPY wants all columns; a line without a trace ends before it."""
    return ledger_line if ledger_line.count("\t") == _LEDGER_TABS else ledger_line + "\t"


def _copy(connection: Connection, statement: str, lines: Iterable[str]) -> None:
    data = "\n".join(lines).encode()
    cursor = connection.connection.cursor()
    try:
        cursor.copy_expert(statement, io.BytesIO(data), _COPY_READ_BYTES)
    except (psycopg2.OperationalError, psycopg2.InterfaceError):
        # SQLAlchemy has not seen this and would hand a lost connection out again.
        connection.invalidate()
        raise
    finally:
        cursor.close()


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
