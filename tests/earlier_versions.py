"""A worker of an earlier version, in plain SQL: what it writes to a schema that is older than this code."""

from __future__ import annotations

import json
from collections.abc import Sequence

from msgspec.structs import replace
from sqlalchemy import Connection, text

from shared.clock import SystemClock
from shared.domain import (
    BookingStatus,
    BookTickets,
    CancelBooking,
    Command,
    EventState,
    SaleTerms,
    UnreadableCommand,
    apply_batch,
    kind_of,
)
from shared.identifiers import new_id
from shared.line.codec import WaitingCommand, book_payload, cancel_payload
from shared.records import (
    BookingRecord,
    CommandPayload,
    EventRecord,
    LedgerRecord,
    OutcomeDetail,
    booking_state,
    sale_terms,
)
from shared.seals import extended_digest, ledger_line, new_event, sealed
from worker.records import BatchRecords, batch_records

_COLUMNS_OF_0001 = (
    "CAST(id AS text) AS id, name, total_tickets, available_tickets, max_tickets_per_user, applied_position,"
    " fencing_token, created_at, updated_at"
)


def insert_event(connection: Connection, *, total_tickets: int, with_seal: bool) -> str:
    """Put an event on sale."""
    event = new_event(
        id=new_id(),
        terms=SaleTerms(name="Earlier", total_tickets=total_tickets, max_tickets_per_user=2),
        created_at=SystemClock().now(),
    )
    seal = ", ledger_digest, seal" if with_seal else ""
    connection.execute(
        text(
            "INSERT INTO events (id, name, total_tickets, available_tickets, max_tickets_per_user,"
            f" created_at, updated_at{seal}) VALUES (:id, :name, :total_tickets, :available_tickets,"
            f" :max_tickets_per_user, :created_at, :updated_at{', :ledger_digest, :seal' if seal else ''})"
        ),
        {name: getattr(event, name) for name in EventRecord.__struct_fields__},
    )
    return event.id


def booking(user_id: str, ticket_count: int = 1) -> WaitingCommand:
    now = SystemClock().now()
    command = BookTickets(id=new_id(), user_id=user_id, ticket_count=ticket_count, accepted_at=now)
    return _waiting(command, book_payload(user_id, ticket_count))


def cancellation(booking_id: str) -> WaitingCommand:
    return _waiting(CancelBooking(id=new_id(), booking_id=booking_id), cancel_payload(booking_id))


def unreadable() -> WaitingCommand:
    return _waiting(UnreadableCommand(id=new_id(), reason="spoilt"), None)


def _waiting(command: Command, payload: CommandPayload | None) -> WaitingCommand:
    return WaitingCommand(
        command=command,
        kind=kind_of(command),
        payload=payload,
        position=None,
        accepted_at=SystemClock().now(),
    )


def apply(
    connection: Connection, event_id: str, waiting: Sequence[WaitingCommand], *, with_seal: bool
) -> None:
    """Apply commands in one transaction that the caller commits, as revisions 0001 and 0002 expect it."""
    event = _lock(connection, event_id, with_seal=with_seal)
    bookings = _bookings(connection, event_id)
    holdings: dict[str, int] = {}
    for each in bookings.values():
        if each.status is BookingStatus.ACTIVE:
            holdings[each.user_id] = holdings.get(each.user_id, 0) + each.ticket_count
    state = EventState(
        terms=sale_terms(event),
        available_tickets=event.available_tickets,
        holdings=holdings,
        bookings={id: booking_state(each) for id, each in bookings.items()},
    )
    state, outcomes = apply_batch(state, [each.command for each in waiting])
    moment = SystemClock().now()
    records = batch_records(event, bookings, waiting, outcomes, moment)
    _write(connection, records)
    after = replace(
        event,
        available_tickets=state.available_tickets,
        applied_position=event.applied_position + len(waiting),
        updated_at=moment,
        ledger_digest=extended_digest(event.ledger_digest, map(ledger_line, records.entries)),
    )
    _write_event(connection, sealed(after), with_seal=with_seal)


def _lock(connection: Connection, event_id: str, *, with_seal: bool) -> EventRecord:
    columns = _COLUMNS_OF_0001 + (", ledger_digest, seal" if with_seal else "")
    row = connection.execute(
        text(f"SELECT {columns} FROM events WHERE id = :id FOR UPDATE"), {"id": event_id}
    ).one()
    seals = {"ledger_digest": b"", "seal": b""}
    if with_seal:
        seals = {"ledger_digest": bytes(row.ledger_digest), "seal": bytes(row.seal)}
    return EventRecord(**{**row._asdict(), **seals})


def _bookings(connection: Connection, event_id: str) -> dict[str, BookingRecord]:
    rows = connection.execute(
        text(
            "SELECT CAST(id AS text) AS id, CAST(event_id AS text) AS event_id, user_id, ticket_count,"
            " status, created_at, updated_at FROM bookings WHERE event_id = :id"
        ),
        {"id": event_id},
    )
    return {row.id: BookingRecord(**{**row._asdict(), "status": BookingStatus(row.status)}) for row in rows}


def _write(connection: Connection, records: BatchRecords) -> None:
    for each in records.cancelled.values():
        connection.execute(
            text("UPDATE bookings SET status = 'cancelled', updated_at = :updated_at WHERE id = :id"),
            {"id": each.id, "updated_at": each.updated_at},
        )
    for each in records.made.values():
        connection.execute(
            text(
                "INSERT INTO bookings VALUES (:id, :event_id, :user_id, :ticket_count, :status, :created_at,"
                " :updated_at)"
            ),
            {name: getattr(each, name) for name in BookingRecord.__struct_fields__},
        )
    for entry in records.entries:
        connection.execute(
            text(
                "INSERT INTO ledger (job_id, event_id, position, kind, payload, outcome, detail, booking_id,"
                " accepted_at, applied_at) VALUES (:job_id, :event_id, :position, :kind,"
                " CAST(:payload AS jsonb), :outcome, CAST(:detail AS jsonb), :booking_id, :accepted_at,"
                " :applied_at)"
            ),
            {
                **{name: getattr(entry, name) for name in LedgerRecord.__struct_fields__},
                "payload": _json(entry.payload),
                "detail": _json(entry.detail),
            },
        )


def _write_event(connection: Connection, after: EventRecord, *, with_seal: bool) -> None:
    """Before 0002 the worker counts; since then the database does."""
    counted = "available_tickets = :available"
    if with_seal:
        counted = "ledger_digest = :ledger_digest, seal = :seal"
    connection.execute(
        text(
            f"UPDATE events SET applied_position = :position, updated_at = :moment, {counted} WHERE id = :id"
        ),
        {
            "id": after.id,
            "position": after.applied_position,
            "moment": after.updated_at,
            "ledger_digest": after.ledger_digest,
            "seal": after.seal,
            "available": after.available_tickets,
        },
    )


def _json(document: CommandPayload | OutcomeDetail | None) -> str | None:
    return json.dumps(document) if document else None
