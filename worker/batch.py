"""A batch of commands in one transaction: lock, prefetch, apply, write; from memory just apply and write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from shared.clock import Clock
from shared.database import batches, statements
from shared.database.engine import Database
from shared.domain import (
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
    LedgerRecord,
    OutcomeDetail,
    booking_state,
    sale_terms,
)
from shared.seals import ledger_line
from worker.applied_batch import AppliedBatch, applied_batch
from worker.decision import decision_of
from worker.memory import Memory, Remembered
from worker.phases import Phase, Phases, count_ahead, count_from_memory
from worker.plan import Plan, is_small, plan_from_memory, users_who_book, write_planned
from worker.records import ledger_record


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
    plan: Plan | None = None,
) -> AppliedBatch:
    """Apply commands to the database, each exactly once, and give the outcome of each.

    A command that was applied before gives its recorded outcome again. With a `memory` of the small batches
    before, a small one that only books is written without reading anything first. With a `plan` of these
    commands that is written, unless PostgreSQL refuses it, because the event or what users hold is not as
    thought.

    Raises:
        StaleClaim: a newer consumer has worked on this event; nothing was applied.
        OutOfTurn: the commands don't follow those that were applied last; nothing was applied.
        EventLocked: another transaction holds the event's row; nothing was applied.
        WriteRefused: a constraint forbids what the batch would write; nothing was applied.
        DatabaseUnavailable: PostgreSQL did not answer; the batch was applied as a whole or not at all.
    """
    remembered = None if memory is None else memory.take(event_id)
    batch = None
    if plan is not None:
        batch = write_planned(database, clock, plan)
        count_ahead(written=batch is not None)
    elif remembered is not None:
        batch = _apply_from_memory(database, clock, remembered, waiting, token)
    if batch is None:
        batch = _apply(database, clock, event_id, waiting, token)
    if memory is not None and batch.event is not None and is_small(waiting):
        memory.keep(batch.event, batch.holdings, remembered)
    return batch


def _apply_from_memory(
    database: Database, clock: Clock, remembered: Remembered, waiting: Sequence[WaitingCommand], token: int
) -> AppliedBatch | None:
    plan = plan_from_memory(clock, remembered, waiting, token)
    if plan is None:
        return None
    batch = write_planned(database, clock, plan)
    count_from_memory(written=batch is not None)
    return batch


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
    opening = batches.lock_and_read(event_id, users_who_book(waiting))
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
    return applied_batch(event, decided, waiting, prefetched.recorded)


def _refuse_stale_claim(event: EventRecord, token: int) -> None:
    if token != NO_CLAIM and token < event.fencing_token:
        raise StaleClaim(event.fencing_token)


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
