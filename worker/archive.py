"""`python -m worker archive`: an event that is over goes into a file and, if asked, out of the servers.

What is removed is first in the file, on the disk, and found right by `verify`. A removal that is
interrupted is taken up again by the same command. The event's row stays behind as a trace, so that nobody
takes the event for one that never was, and no command for it is accepted again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path

from msgspec.structs import replace

from shared import limits
from shared.clock import Clock, format_time
from shared.database import audit, removal, statements
from shared.database.engine import Database
from shared.database.webhooks import webhooks_of_event
from shared.domain import BookingStatus
from shared.errors import ArchiveRefused
from shared.line.repair import LineRepair
from shared.records import EventRecord
from shared.seals import sealed
from shared.webhooks.records import WebhookRecord
from worker.archive_file import ArchiveRows, write_archive
from worker.verify import RowsVerifier

Report = Callable[[str], None]


class Archivist:
    """Exports and removes events, and says what it did."""

    def __init__(self, database: Database, repair: LineRepair, clock: Clock, report: Report) -> None:
        self._database = database
        self._repair = repair
        self._clock = clock
        self._report = report

    def export(self, event_id: str, path: Path) -> None:
        """Write an event that is over to a file that does not exist yet, and check it. Changes nothing else.

        Raises:
            ArchiveRefused: the event is not over, the file exists, or what was written breaks a rule.
            ArchiveUnreadable: the file is not what was written.
            TemporarilyUnavailable: a server does not answer.
            OSError: the file can't be written.
        """
        if path.exists():
            raise ArchiveRefused(f"{path} exists; name another file")
        with self._database.transaction(snapshot=True, seconds_max=audit.READ_SECONDS_MAX) as connection:
            rows = audit.DatabaseRows(connection, event_id)
            event = self._refuse_unless_over(event_id, rows.event())
            end = write_archive(path, event, rows.ledger(), rows.bookings(in_order=True))
        self._check(path, event_id)
        self._report(f"{path}: {end.commands} commands and {end.bookings} bookings, SHA-256 {end.sha256}")

    def remove(self, event_id: str, path: Path) -> None:
        """Take an event that is in a file out of Redis and PostgreSQL; without the file, write it first.

        Raises:
            As `export`; also ArchiveRefused: the event is not in this file as it is now, or its last command
                is not a day old.
        """
        if not path.exists():
            self.export(event_id, path)
        archived = self._check(path, event_id)
        event = self._mark(archived)
        self._forget(event_id)
        self._remove_rows(event)
        # An API process may have told Redis what it had read before the event was marked.
        self._forget(event_id)
        self._report(f"event {event_id} is archived; keep {path}")

    def _refuse_unless_over(self, event_id: str, event: EventRecord | None) -> EventRecord:
        if event is None:
            raise ArchiveRefused(f"there is no event {event_id}")
        if event.archived_at is not None:
            raise ArchiveRefused(f"event {event_id} was archived at {format_time(event.archived_at)}")
        if not event.sales_closed:
            raise ArchiveRefused(
                f"the sales of event {event_id} are open; close them first:"
                f' PATCH /events/{event_id} {{"sales_closed": true}}'
            )
        if waiting := self._repair.waiting(event_id):
            raise ArchiveRefused(f"{waiting} commands wait for event {event_id}; let them be applied first")
        line = self._repair.read(event_id)
        if line is not None and line.accepted > event.applied_position:
            raise ArchiveRefused(
                f"Redis has given positions of event {event_id} that PostgreSQL does not have;"
                " try again, and if that does not help, run `python -m worker reconcile`"
            )
        return event

    def _check(self, path: Path, event_id: str) -> EventRecord:
        """The event in a file in which everything is right."""
        rows = ArchiveRows(path)
        rows.check()
        event = rows.event()
        if event.id != event_id:
            raise ArchiveRefused(f"{path} has event {event.id}, not {event_id}; name the file of this one")
        verifier = RowsVerifier(self._report, progress=lambda counts: None)
        verifier.verify_rows(event_id, rows)
        if verifier.counts.violations:
            raise ArchiveRefused(f"{path} has {verifier.counts.violations} violations, so nothing is removed")
        return event

    def _mark(self, archived: EventRecord) -> EventRecord:
        """Mark the event as archived if it is the one in the file; no command is applied to it any more."""
        with self._database.transaction() as connection:
            event = statements.lock_event(connection, archived.id)
            if event is not None and event.archived_at is not None:
                if event.ledger_digest != archived.ledger_digest:
                    raise ArchiveRefused(f"event {event.id} was archived with another file; use that one")
                return event
            event = self._refuse_unless_over(archived.id, event)
            if event != archived:
                raise ArchiveRefused(
                    f"something happened at event {event.id} after the file was written; remove the file and"
                    " run this again"
                )
            self._refuse_if_young(event)
            _refuse_if_untold(event, webhooks_of_event(connection, event.id))
            event = sealed(replace(event, archived_at=self._clock.now()))
            removal.mark_archived(connection, event)
        return event

    def _refuse_if_young(self, event: EventRecord) -> None:
        """Clients may still send a command again; it must be recognised by its Idempotency-Key."""
        removable_at = event.updated_at + timedelta(seconds=limits.ARCHIVE_QUIET_SECONDS)
        if self._clock.now() < removable_at:
            raise ArchiveRefused(
                f"the last command for event {event.id} was applied at {format_time(event.updated_at)};"
                f" it can be removed after {format_time(removable_at)}"
            )

    def _forget(self, event_id: str) -> None:
        if not self._repair.forget(event_id):
            self._report(f"commands that came too late for event {event_id} wait in Redis; they will fail")

    def _remove_rows(self, event: EventRecord) -> None:
        """Step by step; each step is a transaction that leaves the database's count right."""
        for status in BookingStatus:
            while self._remove_bookings(event.id, status):
                pass
        while self._remove_ledger_rows(event):
            pass
        with self._database.transaction() as connection:
            left = statements.lock_event(connection, event.id)
            assert left is not None
            removal.mark_archived(connection, sealed(left))

    def _remove_bookings(self, event_id: str, status: BookingStatus) -> int:
        with self._database.transaction() as connection:
            return removal.remove_bookings(connection, event_id, status, limits.ARCHIVE_STEP_ROWS)

    def _remove_ledger_rows(self, event: EventRecord) -> int:
        with self._database.transaction() as connection:
            return removal.remove_ledger_rows(
                connection, event.id, event.applied_position, limits.ARCHIVE_STEP_ROWS
            )


def _refuse_if_untold(event: EventRecord, webhooks: Iterable[WebhookRecord]) -> None:
    """Webhooks read the ledger, which is about to go."""
    for webhook in webhooks:
        if webhook.disabled_at is None and webhook.cursor_position < event.applied_position:
            raise ArchiveRefused(
                f"webhook {webhook.id} has not been told all that happened at event {event.id};"
                " wait until it has, or delete it"
            )
