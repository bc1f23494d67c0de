"""Lists in pages: each query reads one page, and no more, from one end of an index."""

from __future__ import annotations

from sqlalchemy import Connection, select, tuple_, union_all

from shared.database.statements import EVENT_COLUMNS, booking_record, event_record, ledger_record
from shared.database.tables import bookings, events, ledger
from shared.domain import BookingStatus
from shared.records import BookingRecord, EventRecord, LedgerRecord


def newest_events(
    connection: Connection, *, before_id: str | None, count: int, organiser_id: str | None = None
) -> list[EventRecord]:
    """Events that are not archived, the newest first, of one organiser if one is named."""
    statement = (
        select(*EVENT_COLUMNS).where(events.c.archived_at.is_(None)).order_by(events.c.id.desc()).limit(count)
    )
    if organiser_id is not None:
        statement = statement.where(events.c.organiser_id == organiser_id)
    if before_id is not None:
        statement = statement.where(events.c.id < before_id)
    return [event_record(row) for row in connection.execute(statement)]


def bookings_of_event(
    connection: Connection,
    event_id: str,
    *,
    user_id: str | None,
    status: BookingStatus | None,
    after: tuple[str, str] | None,
    count: int,
) -> list[BookingRecord]:
    """Bookings of an event in order of user and id, behind the user and id in `after`.

    Each status has its own index, so without a status the page is merged from one page of each.
    """
    order = (bookings.c.user_id, bookings.c.id)
    pages = []
    for each in BookingStatus if status is None else (status,):
        page = select(bookings).where(bookings.c.event_id == event_id, bookings.c.status == each.value)
        if user_id is not None:
            page = page.where(bookings.c.user_id == user_id)
        if after is not None:
            page = page.where(tuple_(*order) > tuple_(*after))
        pages.append(page.order_by(*order).limit(count).subquery())
    merged = union_all(*(select(page) for page in pages)).subquery()
    statement = select(merged).order_by(merged.c.user_id, merged.c.id).limit(count)
    return [booking_record(row) for row in connection.execute(statement)]


def ledger_of_event(
    connection: Connection, event_id: str, *, after_position: int, count: int
) -> list[LedgerRecord]:
    """An event's ledger in order of position, behind that one."""
    statement = (
        select(ledger)
        .where(ledger.c.event_id == event_id, ledger.c.position > after_position)
        .order_by(ledger.c.position)
        .limit(count)
    )
    return [ledger_record(row) for row in connection.execute(statement)]
