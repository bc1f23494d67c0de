"""A batch of commands in one transaction: lock, prefetch, apply, write; from memory just apply and write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from operator import attrgetter

from sqlalchemy import Connection

from shared import limits
from shared.clock import Clock
from shared.database import batches, statements
from shared.database.engine import Database
from shared.domain import (
    BookTickets,
    CancelBooking,
    EventState,
    Outcome,
    OutcomeCode,
    apply_batch,
)
from shared.errors import OutOfTurn, StaleClaim, WriteRefused
from shared.line.codec import WaitingCommand, repeated
from shared.line.consumer import NO_CLAIM
from shared.records import (
    BookingRecord,
    EventRecord,
    EventView,
    JobResult,
    LedgerRecord,
    OutcomeDetail,
    booking_state,
    event_view,
    sale_terms,
)
from shared.seals import ledger_line
from worker.decision import Decision, decision_of, results_of
from worker.memory import Memory, Remembered
from worker.phases import Phase, Phases, count_from_memory
from worker.records import ledger_record


@dataclass(frozen=True, kw_only=True)
class AppliedBatch:
    """What the database holds after a batch. What is told of it is made when somebody asks.

    `recorded` are the rows of commands that had been applied before, `entries` those of the others. `event`
    and `view` are None if the event does not exist. `holdings` are the tickets of the users that the rules
    asked for.
    """

    event_id: str
    waiting: Sequence[WaitingCommand]
    recorded: Mapping[str, LedgerRecord]
    entries: Sequence[LedgerRecord]
    applied_at: datetime
    applied_position: int
    event: EventRecord | None = None
    holdings: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def results(self) -> Sequence[tuple[str, JobResult]]:
        """The outcome of each command, in order."""
        return results_of(self.event_id, self.waiting, self.recorded, self.entries, self.applied_at)

    @cached_property
    def outcomes(self) -> Mapping[OutcomeCode, int]:
        """How many commands that were not applied before had each outcome."""
        return Counter(map(attrgetter("outcome"), self.entries))

    @property
    def view(self) -> EventView | None:
        """The event as others see it."""
        return None if self.event is None else event_view(self.event)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prefetched:
    """All that a batch reads, read before anything is decided."""

    recorded: Mapping[str, LedgerRecord]
    fresh: Sequence[WaitingCommand]
    bookings: Mapping[str, BookingRecord]
    state: EventState


def apply_to_database(
    database: Database,
    clock: Clock,
    event_id: str,
    waiting: Sequence[WaitingCommand],
    token: int,
    memory: Memory | None = None,
) -> AppliedBatch:
    """Apply commands to the database, each exactly once, and give the outcome of each.

    A command that was applied before gives its recorded outcome again. With a `memory` of the small batches
    before, a small one that only books is written without reading anything first.

    Raises:
        StaleClaim: a newer consumer has worked on this event; nothing was applied.
        OutOfTurn: the commands don't follow those that were applied last; nothing was applied.
        EventLocked: another transaction holds the event's row; nothing was applied.
        WriteRefused: a constraint forbids what the batch would write; nothing was applied.
        DatabaseUnavailable: PostgreSQL did not answer; the batch was applied as a whole or not at all.
    """
    if memory is None:
        return _apply(database, clock, event_id, waiting, token)
    remembered = memory.take(event_id)
    batch = None
    if remembered is not None and _only_books_next(remembered.event, waiting, token):
        batch = _apply_from_memory(database, clock, remembered, waiting, token)
    if batch is None:
        batch = _apply(database, clock, event_id, waiting, token)
    if batch.event is not None and _is_small(waiting):
        memory.keep(batch.event, batch.holdings, remembered)
    return batch


def _is_small(waiting: Sequence[WaitingCommand]) -> bool:
    """Whether a round trip is much next to the rest, so that memory is worth its keeping."""
    return len(waiting) <= limits.COMMANDS_FROM_MEMORY_MAX


def _only_books_next(event: EventRecord, waiting: Sequence[WaitingCommand], token: int) -> bool:
    """Whether commands are few, book, and come next, with nobody else's claim between ours and the last."""
    return (
        _is_small(waiting)
        and event.fencing_token <= token <= event.fencing_token + 1
        and all(
            command.position == position
            and not command.unchecked
            and isinstance(command.command, BookTickets)
            for position, command in enumerate(waiting, start=event.applied_position + 1)
        )
    )


def _apply_from_memory(
    database: Database,
    clock: Clock,
    remembered: Remembered,
    waiting: Sequence[WaitingCommand],
    token: int,
) -> AppliedBatch | None:
    """Book for all of a batch as its event is remembered, in one round trip; None if it must be read first.

    Who is not remembered to hold tickets is thought to hold none. PostgreSQL finds out where they are booked
    over their limit; where nobody is booked it looks at nothing, so whoever is refused must be read first.
    """
    phases = Phases(clock)
    event = remembered.event
    state = EventState(
        terms=sale_terms(event),
        available_tickets=event.available_tickets,
        holdings={
            user_id: remembered.holdings[user_id]
            for user_id in _users_who_book(waiting)
            if user_id in remembered.holdings
        },
        bookings={},
    )
    state, outcomes = apply_batch(state, [each.command for each in waiting])
    if any(outcome.code is not OutcomeCode.BOOKED for outcome in outcomes):
        return None
    decided = decision_of(event, {}, waiting, state, outcomes, token, clock.now())
    if decided.writes is None:
        return None
    phases.end(Phase.RULES)
    try:
        database.transact(batches.write_all_if(event, decided.writes), prepares=batches.PREPARED)
    except WriteRefused:
        count_from_memory(written=False)
        return None
    finally:
        phases.end(Phase.WRITE)
    count_from_memory(written=True)
    return _applied(event, decided, waiting, {})


def _apply(
    database: Database, clock: Clock, event_id: str, waiting: Sequence[WaitingCommand], token: int
) -> AppliedBatch:
    try:
        return _read_and_apply(database, clock, event_id, waiting, token, look_up_all=False)
    except WriteRefused:
        # Redis may have forgotten a command that was applied, and given it a second position.
        return _read_and_apply(database, clock, event_id, waiting, token, look_up_all=True)


def _read_and_apply(
    database: Database,
    clock: Clock,
    event_id: str,
    waiting: Sequence[WaitingCommand],
    token: int,
    *,
    look_up_all: bool,
) -> AppliedBatch:
    phases = Phases(clock)
    opening = batches.lock_and_read(event_id, _users_who_book(waiting))
    with database.transaction_from(opening, prepares=batches.PREPARED) as transaction:
        connection = transaction.connection
        event, holdings = batches.event_and_holdings(transaction.rows)
        phases.end(Phase.LOCK)
        if event is None or event.archived_at is not None:
            return _fail_without_event(connection, event_id, event, waiting, clock.now())
        _refuse_stale_claim(event, token)
        prefetched = _prefetch(connection, event, holdings, waiting, look_up_all=look_up_all)
        phases.end(Phase.PREFETCH)
        fresh = prefetched.fresh
        state, outcomes = apply_batch(prefetched.state, [each.command for each in fresh])
        decided = decision_of(event, prefetched.bookings, fresh, state, outcomes, token, clock.now())
        if decided.writes is not None:
            transaction.ending = batches.write_all(decided.writes)
        phases.end(Phase.RULES)
    phases.end(Phase.WRITE)
    return _applied(event, decided, waiting, prefetched.recorded)


def _applied(
    before: EventRecord,
    decided: Decision,
    waiting: Sequence[WaitingCommand],
    recorded: Mapping[str, LedgerRecord],
) -> AppliedBatch:
    event = before if decided.writes is None else decided.writes.event
    return AppliedBatch(
        event_id=event.id,
        waiting=waiting,
        recorded=recorded,
        entries=decided.records.entries,
        applied_at=decided.applied_at,
        applied_position=event.applied_position,
        event=event,
        holdings=decided.state.holdings,
    )


def _refuse_stale_claim(event: EventRecord, token: int) -> None:
    if token != NO_CLAIM and token < event.fencing_token:
        raise StaleClaim(event.fencing_token)


def _users_who_book(waiting: Sequence[WaitingCommand]) -> set[str]:
    return {command.command.user_id for command in waiting if isinstance(command.command, BookTickets)}


def _prefetch(
    connection: Connection,
    event: EventRecord,
    holdings: dict[str, int],
    waiting: Sequence[WaitingCommand],
    *,
    look_up_all: bool,
) -> _Prefetched:
    """Read the recorded outcomes of what was applied before, and what the rules need for the rest.

    Most batches only book, each command for the first time: there nothing is left to read.
    """
    recorded = _find_recorded(connection, event.applied_position, waiting, look_up_all=look_up_all)
    fresh = _fresh_in_turn(event, waiting, recorded)
    bookings = _find_bookings_to_cancel(connection, event, fresh)
    who_cancel = {booking.user_id for booking in bookings.values()}
    if who_cancel:
        holdings = holdings | statements.active_tickets_by_user(connection, event.id, who_cancel)
    return _Prefetched(
        recorded=recorded,
        fresh=fresh,
        bookings=bookings,
        state=EventState(
            terms=sale_terms(event),
            available_tickets=event.available_tickets,
            holdings=holdings,
            bookings={booking.id: booking_state(booking) for booking in bookings.values()},
        ),
    )


def _find_recorded(
    connection: Connection,
    applied_position: int,
    waiting: Sequence[WaitingCommand],
    *,
    look_up_all: bool,
) -> Mapping[str, LedgerRecord]:
    """Positions are applied in order, so the last one tells who needs a look.

    Not so where the position is lost, or the API could not look for itself.
    """
    perhaps_applied = [
        command.command.id
        for command in waiting
        if look_up_all
        or command.unchecked
        or command.position is None
        or command.position <= applied_position
    ]
    return statements.find_ledger_records(connection, perhaps_applied) if perhaps_applied else {}


def _fresh_in_turn(
    event: EventRecord, waiting: Sequence[WaitingCommand], recorded: Mapping[str, LedgerRecord]
) -> list[WaitingCommand]:
    """The commands that are to be applied now, which must have the positions that follow the last.

    One without a row in the ledger whose position is another's is left out; its outcome says so. One that has
    a row, or gets one in this batch, and got a second position fills it as a repetition.
    """
    fresh: list[WaitingCommand] = []
    known = set(recorded)
    for command in waiting:
        next_position = event.applied_position + len(fresh) + 1
        is_recorded = command.command.id in known
        if command.position is None:
            position = event.applied_position if is_recorded else next_position
        else:
            position = command.position
        if position < next_position:
            continue
        if position > next_position:
            raise OutOfTurn(f"position {position} waits where {next_position} comes next")
        fresh.append(repeated(command, position) if is_recorded else command)
        known.add(command.command.id)
    return fresh


def _find_bookings_to_cancel(
    connection: Connection, event: EventRecord, fresh: Sequence[WaitingCommand]
) -> dict[str, BookingRecord]:
    ids = {command.command.booking_id for command in fresh if isinstance(command.command, CancelBooking)}
    found = statements.find_bookings(connection, ids) if ids else {}
    return {booking.id: booking for booking in found.values() if booking.event_id == event.id}


def _fail_without_event(
    connection: Connection,
    event_id: str,
    archived: EventRecord | None,
    waiting: Sequence[WaitingCommand],
    applied_at: datetime,
) -> AppliedBatch:
    """Commands for an event that is not there, or not any more, fail, each with its row in the ledger."""
    statements.lock_missing_event(connection, event_id)
    last_position = statements.last_ledger_position(connection, event_id)
    if archived is not None:
        last_position = max(last_position, archived.applied_position)
    state = "does not exist" if archived is None else "is archived"
    # Their positions are given anew here, so they don't tell who was applied before.
    recorded = statements.find_ledger_records(connection, [command.command.id for command in waiting])
    entries = [
        ledger_record(
            event_id,
            position,
            command,
            Outcome(command_id=command.command.id, code=OutcomeCode.EVENT_NOT_FOUND),
            OutcomeDetail(reason=f"event {event_id} {state}"),
            applied_at,
        )
        for position, command in enumerate(
            (command for command in waiting if command.command.id not in recorded), start=last_position + 1
        )
    ]
    if entries:
        batches.insert_ledger(connection, [ledger_line(entry) for entry in entries])
    return AppliedBatch(
        event_id=event_id,
        waiting=waiting,
        recorded=recorded,
        entries=entries,
        applied_at=applied_at,
        applied_position=last_position + len(entries),
    )
