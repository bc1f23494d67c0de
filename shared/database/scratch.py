"""A store on disk for what `verify` has replayed, so that its memory does not grow with the ledger."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from shared.domain import BookingStatus
from shared.records import BookingRecord

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE bookings (
    id TEXT PRIMARY KEY, event_id TEXT, user_id TEXT, ticket_count INTEGER, status TEXT,
    created_at TEXT, updated_at TEXT, seen INTEGER DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE holdings (user_id TEXT PRIMARY KEY, tickets INTEGER) WITHOUT ROWID;
"""


class ScratchStore:
    """The bookings and holdings of one event, as its ledger says that they must be."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="onsale-verify-")
        self._connection = sqlite3.connect(Path(self._folder.name) / "replay", isolation_level=None)
        self._connection.executescript(_SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._connection.close()
        self._folder.cleanup()

    def bookings(self, ids: Iterable[str]) -> dict[str, BookingRecord]:
        """The bookings with these ids; what does not exist is left out."""
        found = {}
        for id in ids:
            row = self._connection.execute("SELECT * FROM bookings WHERE id = ?", (id,)).fetchone()
            if row is not None:
                found[id] = _record(row)
        return found

    def holdings(self, user_ids: Iterable[str]) -> dict[str, int]:
        """The active tickets of these users; who has none is left out."""
        found = {}
        for user_id in user_ids:
            query = "SELECT tickets FROM holdings WHERE user_id = ?"
            row = self._connection.execute(query, (user_id,)).fetchone()
            if row is not None:
                found[user_id] = int(row[0])
        return found

    def write(self, bookings: Iterable[BookingRecord], holdings: Iterable[tuple[str, int]]) -> None:
        """Write bookings and holdings as they are now."""
        self._connection.execute("BEGIN")
        self._connection.executemany(
            "INSERT OR REPLACE INTO bookings VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
            (
                (
                    booking.id,
                    booking.event_id,
                    booking.user_id,
                    booking.ticket_count,
                    booking.status.value,
                    booking.created_at.isoformat(),
                    booking.updated_at.isoformat(),
                )
                for booking in bookings
            ),
        )
        self._connection.executemany("INSERT OR REPLACE INTO holdings VALUES (?, ?)", holdings)
        self._connection.execute("COMMIT")

    def mark_seen(self, booking_ids: Iterable[str]) -> None:
        """Remember that these bookings have been found in the database."""
        self._connection.execute("BEGIN")
        self._connection.executemany(
            "UPDATE bookings SET seen = 1 WHERE id = ?", ((id,) for id in booking_ids)
        )
        self._connection.execute("COMMIT")

    def unseen(self) -> Iterator[str]:
        """The ids of bookings that have not been found."""
        for (id,) in self._connection.execute("SELECT id FROM bookings WHERE seen = 0"):
            yield str(id)


def _record(row: tuple[str, str, str, int, str, str, str, int]) -> BookingRecord:
    id, event_id, user_id, ticket_count, status, created_at, updated_at, _ = row
    return BookingRecord(
        id=id,
        event_id=event_id,
        user_id=user_id,
        ticket_count=ticket_count,
        status=BookingStatus(status),
        created_at=datetime.fromisoformat(created_at),
        updated_at=datetime.fromisoformat(updated_at),
    )
