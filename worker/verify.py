"""`python -m worker verify`: is what the database holds what the rules make of the ledger?

For each event, as of one moment: the ledger's positions run from 1 without a gap to the event's last applied
position; the ledger, run through `apply_batch` from the start, gives the outcomes that it records, to the
letter; it gives exactly the bookings and the counter that the tables hold; and the digests over the ledger
and the event's row are those that were written with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import groupby, islice
from typing import TypeVar

from sqlalchemy import Connection

from shared.database import audit, statements
from shared.database.engine import Database
from shared.database.scratch import ScratchStore
from shared.domain import (
    BookTickets,
    CancelBooking,
    Command,
    CommandKind,
    EventState,
    OutcomeCode,
    UnreadableCommand,
    WithdrawnCommand,
    apply_batch,
    kind_of,
)
from shared.line.codec import UNREADABLE, WaitingCommand, command_of_payload
from shared.records import (
    BookingRecord,
    EventRecord,
    LedgerRecord,
    booking_state,
    read_event_terms,
    sale_terms,
    with_terms,
)
from shared.seals import empty_ledger_digest, extended_digest, ledger_line, sealed
from worker.records import batch_records

CHUNK_ROWS = 1_000

Report = Callable[[str], None]
Progress = Callable[["Counts"], None]

_Record = TypeVar("_Record", EventRecord, BookingRecord, LedgerRecord)
_Row = TypeVar("_Row")


@dataclass(slots=True)
class Counts:
    """What has been checked, and how much of it is wrong."""

    events: int = 0
    commands: int = 0
    bookings: int = 0
    violations: int = 0


class Verifier:
    """Checks events and reports each violation by a line that names it."""

    def __init__(self, database: Database, report: Report, progress: Progress) -> None:
        self._database = database
        self._report = report
        self._progress = progress
        self.counts = Counts()

    def verify_all(self) -> None:
        """Check every event, each as of its own moment."""
        with self._database.transaction() as connection:
            event_ids = audit.all_event_ids(connection)
        for event_id in event_ids:
            self.verify_event(event_id)

    def verify_event(self, event_id: str) -> None:
        """Check one event. It may go on selling meanwhile."""
        with (
            self._database.transaction(snapshot=True, seconds_max=audit.READ_SECONDS_MAX) as connection,
            ScratchStore() as store,
        ):
            event = statements.find_event(connection, event_id)
            if event is None:
                self._verify_without_event(connection, event_id)
            else:
                replayed = self._replay(connection, event, store)
                self._compare(f"event {event_id}", event, replayed)
                if sealed(event) != event:
                    self._violation(f"event {event_id}: its row was changed after it was sealed")
                self._compare_bookings(connection, event, store)
        self.counts.events += 1
        self._progress(self.counts)

    def _verify_without_event(self, connection: Connection, event_id: str) -> None:
        """Commands for an event that does not exist can only have failed for that reason."""
        position = 0
        for position, entry in enumerate(audit.stream_ledger(connection, event_id), start=1):
            self.counts.commands += 1
            if entry.outcome is not OutcomeCode.EVENT_NOT_FOUND or entry.position != position:
                self._violation(f"{_name(entry)} was applied to an event that does not exist")
        if position == 0:
            self._violation(f"event {event_id} does not exist")

    def _replay(self, connection: Connection, event: EventRecord, store: ScratchStore) -> EventRecord:
        """Run the ledger through the rules; gives the event as it must be after that."""
        replayed = replace(
            self._at_the_start(connection, event),
            applied_position=0,
            updated_at=event.created_at,
            ledger_digest=empty_ledger_digest(event.id),
        )
        for entries in _chunks(audit.stream_ledger(connection, event.id)):
            self._check_positions(replayed, entries)
            replayed = self._replay_chunk(replayed, entries, store)
            self.counts.commands += len(entries)
            self._progress(self.counts)
        return replayed

    def _at_the_start(self, connection: Connection, event: EventRecord) -> EventRecord:
        """The event under its first terms, which are its present ones unless they were changed."""
        terms = sale_terms(event)
        change = audit.first_change(connection, event.id)
        if change is not None:
            try:
                terms = read_event_terms(change.detail["terms_before"])
            except (KeyError, TypeError, ValueError) as error:
                self._violation(f"{_name(change)} does not tell the terms before it: {error!r}")
        return replace(with_terms(event, terms), available_tickets=terms.total_tickets)

    def _check_positions(self, replayed: EventRecord, entries: Sequence[LedgerRecord]) -> None:
        for expected, entry in enumerate(entries, start=replayed.applied_position + 1):
            if entry.position != expected:
                self._violation(f"{_name(entry)} stands where position {expected} must")

    def _replay_chunk(
        self, replayed: EventRecord, entries: Sequence[LedgerRecord], store: ScratchStore
    ) -> EventRecord:
        waiting = [self._read_command(entry) for entry in entries]
        commands = [each.command for each in waiting]
        bookings = store.bookings({each.booking_id for each in commands if isinstance(each, CancelBooking)})
        state, outcomes = apply_batch(_state(replayed, commands, bookings, store), commands)
        for _, group in groupby(range(len(entries)), key=lambda index: entries[index].applied_at):
            indexes = list(group)
            part = slice(indexes[0], indexes[-1] + 1)
            before = replace(replayed, applied_position=replayed.applied_position + part.start)
            records = batch_records(
                before, bookings, waiting[part], outcomes[part], entries[part.start].applied_at
            )
            bookings |= records.made | records.cancelled
            for entry, expected in zip(entries[part], records.entries, strict=True):
                self._compare(_name(entry), entry, expected)
        store.write(bookings.values(), state.holdings.items())
        return replace(
            with_terms(replayed, state.terms),
            available_tickets=state.available_tickets,
            applied_position=replayed.applied_position + len(entries),
            updated_at=entries[-1].applied_at,
            ledger_digest=extended_digest(replayed.ledger_digest, map(ledger_line, entries)),
        )

    def _read_command(self, entry: LedgerRecord) -> WaitingCommand:
        command: Command = UnreadableCommand(id=entry.job_id, reason=entry.detail.get("reason", ""))
        if entry.outcome is OutcomeCode.WITHDRAWN:
            command = WithdrawnCommand(id=entry.job_id, kind=entry.kind)
        elif entry.kind is not CommandKind.UNKNOWN:
            try:
                command = command_of_payload(entry.job_id, entry.payload, entry.accepted_at)
            except UNREADABLE as error:
                self._violation(f"{_name(entry)} has a payload that can't be read: {error!r}")
        return WaitingCommand(
            command=command,
            kind=kind_of(command),
            payload=entry.payload,
            position=entry.position,
            accepted_at=entry.accepted_at,
            trace=entry.trace,
        )

    def _compare_bookings(self, connection: Connection, event: EventRecord, store: ScratchStore) -> None:
        for found in _chunks(audit.stream_bookings(connection, event.id)):
            explained = store.bookings(booking.id for booking in found)
            for booking in found:
                if booking.id in explained:
                    self._compare(f"booking {booking.id}", booking, explained[booking.id])
                else:
                    self._violation(f"booking {booking.id} is explained by no row of the ledger")
            store.mark_seen(explained)
            self.counts.bookings += len(found)
            self._progress(self.counts)
        for booking_id in store.unseen():
            self._violation(f"booking {booking_id} is missing, but its ledger row is there")

    def _compare(self, name: str, found: _Record, expected: _Record) -> None:
        for field in fields(found):
            is_, must_be = getattr(found, field.name), getattr(expected, field.name)
            if is_ != must_be:
                self._violation(f"{name}: {field.name} is {is_!r}, the rules give {must_be!r}")

    def _violation(self, what: str) -> None:
        self.counts.violations += 1
        self._report(what)


def _state(
    replayed: EventRecord,
    commands: Sequence[Command],
    bookings: Mapping[str, BookingRecord],
    store: ScratchStore,
) -> EventState:
    user_ids = {command.user_id for command in commands if isinstance(command, BookTickets)}
    user_ids.update(booking.user_id for booking in bookings.values())
    return EventState(
        terms=sale_terms(replayed),
        available_tickets=replayed.available_tickets,
        holdings=store.holdings(user_ids),
        bookings={id: booking_state(booking) for id, booking in bookings.items()},
    )


def _chunks(rows: Iterator[_Row]) -> Iterator[list[_Row]]:
    while chunk := list(islice(rows, CHUNK_ROWS)):
        yield chunk


def _name(entry: LedgerRecord) -> str:
    return f"event {entry.event_id} position {entry.position} job {entry.job_id}"
