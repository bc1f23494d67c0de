"""Taking an archived event out of the tables, in steps, so that no transaction is long."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select, update

from shared.database.tables import bookings, events, ledger
from shared.domain import BookingStatus
from shared.records import EventRecord


def mark_archived(connection: Connection, event: EventRecord) -> None:
    """Write when an event was archived, and its seal. Whoever locks its row from now on finds it archived."""
    connection.execute(
        update(events).where(events.c.id == event.id).values(archived_at=event.archived_at, seal=event.seal)
    )


def remove_bookings(connection: Connection, event_id: str, status: BookingStatus, count: int) -> int:
    """Remove at most so many bookings with this status; gives how many. The database counts them back."""
    chosen = (
        select(bookings.c.id)
        .where(bookings.c.event_id == event_id, bookings.c.status == status.value)
        .limit(count)
    )
    return connection.execute(delete(bookings).where(bookings.c.id.in_(chosen))).rowcount


def remove_ledger_rows(connection: Connection, event_id: str, up_to_position: int, count: int) -> int:
    """Remove at most so many ledger rows, up to a position; gives how many."""
    chosen = (
        select(ledger.c.job_id)
        .where(ledger.c.event_id == event_id, ledger.c.position <= up_to_position)
        .order_by(ledger.c.position)
        .limit(count)
    )
    return connection.execute(delete(ledger).where(ledger.c.job_id.in_(chosen))).rowcount
