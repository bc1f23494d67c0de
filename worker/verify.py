"""`python -m worker verify`: is what the database holds what the rules make of the ledger?

For each event, as of one moment: the ledger's positions run from 1 without a gap to the event's last applied
position; the ledger, run through `apply_batch` from the start, gives the outcomes that it records, to the
letter; it gives exactly the bookings and the counter that the tables hold; and the digests over the ledger
and the event's row are those that were written with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Protocol, TypeVar

from msgspec.structs import replace

from shared.database import audit
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
from shared.errors import EventNotFound
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


class EventRows(Protocol):
    """The rows of one event, wherever they are: in the tables, or in an archive."""

    def event(self) -> EventRecord | None:
        """The event; None if there is none."""
        ...

    def ledger(self) -> Iterator[LedgerRecord]:
        """Its ledger in order of position."""
        ...

    def first_change(self) -> LedgerRecord | None:
        """The first change of its terms that was applied."""
        ...

    def bookings(self) -> Iterator[BookingRecord]:
        """Its bookings, in any order."""
        ...


class RowsVerifier:
    """Checks the rows of events and reports each violation by a line that names it."""

    def __init__(self, report: Report, progress: Progress) -> None:
        self._report = report
        self._progress = progress
        self.counts = Counts()

    def verify_rows(self, event_id: str, rows: EventRows) -> None:
        """Check one event.

        Raises:
            EventNotFound: there is no event with this id, and no row that names it.
        """
        event = rows.event()
        if event is None:
            self._verify_absent(rows, event_id)
        elif event.archived_at is not None:
            self._verify_archived(rows, event)
        else:
            self._verify_present(rows, event)
        self.counts.events += 1
        self._progress(self.counts)

    def _verify_present(self, rows: EventRows, event: EventRecord) -> None:
        with ScratchStore() as store:
            replayed = self._replay(rows, event, store)
            self._compare(f"event {event.id}", event, replayed)
            self._check_seal(event)
            self._compare_bookings(rows, store)

    def _verify_absent(self, rows: EventRows, event_id: str) -> None:
        if self._verify_failed(rows, after_position=0):
            return
        if next(rows.bookings(), None) is None:
            raise EventNotFound(f"there is no event {event_id}")
        self._violation(f"event {event_id} does not exist, but bookings of it are left")

    def _verify_archived(self, rows: EventRows, event: EventRecord) -> None:
        """Nothing is left of it but its row, and commands that came too late."""
        left = next(rows.bookings(), None) or next(rows.ledger(), None)
        if isinstance(left, BookingRecord) or (left and left.position <= event.applied_position):
            self._violation(
                f"event {event.id} is archived, but rows of it are left;"
                f" run `python -m worker archive {event.id} --to FILE --remove` with its file again"
            )
            return
        self._check_seal(event)
        self._verify_failed(rows, after_position=event.applied_position)

    def _verify_failed(self, rows: EventRows, *, after_position: int) -> int:
        """Commands for an event that is not there can only have failed for that reason; gives how many."""
        commands = 0
        for commands, entry in enumerate(rows.ledger(), start=1):
            self.counts.commands += 1
            is_next = entry.position == after_position + commands
            if entry.outcome is not OutcomeCode.EVENT_NOT_FOUND or not is_next:
                self._violation(f"{_name(entry)} was applied to an event that does not exist")
        return commands

    def _check_seal(self, event: EventRecord) -> None:
        if sealed(event) != event:
            self._violation(f"event {event.id}: its row was changed after it was sealed")

    def _replay(self, rows: EventRows, event: EventRecord, store: ScratchStore) -> EventRecord:
        """Run the ledger through the rules; gives the event as it must be after that."""
        replayed = replace(
            self._at_the_start(rows, event),
            applied_position=0,
            updated_at=event.created_at,
            ledger_digest=empty_ledger_digest(event.id),
        )
        for entries in _chunks(rows.ledger()):
            self._check_positions(replayed, entries)
            replayed = self._replay_chunk(replayed, entries, store)
            self.counts.commands += len(entries)
            self._progress(self.counts)
        return replayed

    def _at_the_start(self, rows: EventRows, event: EventRecord) -> EventRecord:
        """The event under its first terms, which are its present ones unless they were changed."""
        terms = sale_terms(event)
        change = rows.first_change()
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

    def _compare_bookings(self, rows: EventRows, store: ScratchStore) -> None:
        for found in _chunks(rows.bookings()):
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
        for column in found.__struct_fields__:
            is_, must_be = getattr(found, column), getattr(expected, column)
            if is_ != must_be:
                self._violation(f"{name}: {column} is {is_!r}, the rules give {must_be!r}")

    def _violation(self, what: str) -> None:
        self.counts.violations += 1
        self._report(what)


class Verifier(RowsVerifier):
    """Checks the events in a database."""

    def __init__(self, database: Database, report: Report, progress: Progress) -> None:
        super().__init__(report, progress)
        self._database = database

    def verify_all(self) -> None:
        """Check every event, each as of its own moment."""
        with self._database.transaction() as connection:
            event_ids = audit.all_event_ids(connection)
        for event_id in event_ids:
            self.verify_event(event_id)

    def verify_event(self, event_id: str) -> None:
        """Check one event. It may go on selling meanwhile.

        Raises:
            EventNotFound: there is no event with this id, and no row that names it.
        """
        with self._database.transaction(snapshot=True, seconds_max=audit.READ_SECONDS_MAX) as connection:
            self.verify_rows(event_id, audit.DatabaseRows(connection, event_id))


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
