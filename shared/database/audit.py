"""What `verify` reads: every row of an event, streamed, as of one moment."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, and_, or_, select, text

from shared.database.statements import booking_record, find_event, ledger_record
from shared.database.tables import bookings, ledger
from shared.domain import BookingStatus, CommandKind, OutcomeCode
from shared.records import BookingRecord, EventRecord, LedgerRecord

STREAM_ROWS = 1_000
"""Rows fetched at a time."""

_STREAMED = {"yield_per": STREAM_ROWS}

READ_SECONDS_MAX = 3_600
"""The longest that reading the rows of one event may take."""


def all_event_ids(connection: Connection) -> list[str]:
    """The ids of all events, also of those that have left rows but no event."""
    rows = connection.execute(
        text(
            "SELECT id FROM events UNION"
            " (WITH RECURSIVE named AS ("
            "   (SELECT event_id FROM ledger ORDER BY event_id LIMIT 1)"
            "   UNION ALL SELECT (SELECT l.event_id FROM ledger l WHERE l.event_id > named.event_id"
            "     ORDER BY l.event_id LIMIT 1) FROM named WHERE named.event_id IS NOT NULL)"
            "  SELECT event_id FROM named WHERE event_id IS NOT NULL)"
            " ORDER BY 1"
        )
    )
    return [str(id) for (id,) in rows]


class DatabaseRows:
    """The rows of one event in the tables, as of the moment that the transaction sees."""

    def __init__(self, connection: Connection, event_id: str) -> None:
        self._connection = connection
        self._event_id = event_id

    def event(self) -> EventRecord | None:
        """The event; None if there is none."""
        return find_event(self._connection, self._event_id)

    def ledger(self) -> Iterator[LedgerRecord]:
        """Its ledger in order of position."""
        statement = select(ledger).where(ledger.c.event_id == self._event_id).order_by(ledger.c.position)
        for row in self._connection.execute(statement, execution_options=_STREAMED):
            yield ledger_record(row)

    def first_change(self) -> LedgerRecord | None:
        """The first change of its terms that was applied."""
        statement = (
            select(ledger)
            .where(
                ledger.c.event_id == self._event_id,
                ledger.c.kind == CommandKind.CHANGE.value,
                ledger.c.outcome == OutcomeCode.CHANGED.value,
            )
            .order_by(ledger.c.position)
            .limit(1)
        )
        row = self._connection.execute(statement).one_or_none()
        return None if row is None else ledger_record(row)

    def bookings(self, *, in_order: bool = False) -> Iterator[BookingRecord]:
        """Its bookings, in order of id if that is asked for."""
        # Named one by one, since each status has its own index.
        statement = select(bookings).where(
            or_(
                *(
                    and_(bookings.c.event_id == self._event_id, bookings.c.status == status.value)
                    for status in BookingStatus
                )
            )
        )
        if in_order:
            statement = statement.order_by(bookings.c.id)
        for row in self._connection.execute(statement, execution_options=_STREAMED):
            yield booking_record(row)
