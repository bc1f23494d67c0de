"""Batches that are decided before anything is locked for them.

A small one is decided from memory, a large one while the one before it is still being written. Either way
PostgreSQL writes it only if nothing has changed: the first statement of its transaction locks the event's
row, and refuses to go on unless that is as it was thought to be (optimistic concurrency control, Kung and
Robinson, 1981).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared import limits
from shared.clock import Clock
from shared.database import batches
from shared.database.engine import Database
from shared.database.prepared import Statement
from shared.domain import BookTickets, EventState, OutcomeCode, apply_batch
from shared.errors import WriteRefused
from shared.line.codec import WaitingCommand
from shared.records import EventRecord, sale_terms
from worker.applied_batch import AppliedBatch, applied_batch
from worker.decision import decision_of
from worker.memory import Remembered
from worker.phases import Phase, Phases


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What PostgreSQL is asked to write, and what it then holds."""

    request: Statement
    batch: AppliedBatch


def plan_from_memory(
    clock: Clock, remembered: Remembered, waiting: Sequence[WaitingCommand], token: int
) -> Plan | None:
    """A small batch as its event is remembered; None if it must be read first.

    Who is not remembered to hold tickets is thought to hold none. PostgreSQL finds out where they are booked
    over their limit; where nobody is booked it looks at nothing, so whoever is refused must be read first.
    """
    if not is_small(waiting) or not _only_books_next(remembered.event, waiting, token):
        return None
    known = remembered.holdings
    holdings = {user_id: known[user_id] for user_id in users_who_book(waiting) if user_id in known}
    return _plan(clock, remembered.event, holdings, waiting, token, refuses=False)


def plan_ahead(
    database: Database,
    clock: Clock,
    event: EventRecord | None,
    on_its_way: Mapping[str, int],
    waiting: Sequence[WaitingCommand],
    token: int,
) -> Plan | None:
    """A batch as it follows one that leaves the event like this; None if it must be read in its turn.

    Where the one before may not be committed yet, it was a plan, and `on_its_way` are the tickets that its
    users will then have. It books for nobody else, so what is committed tells those of all others, whether or
    not it is part of that by now.

    Raises:
        EventLocked: the tables are locked for too long, as by a migration.
        DatabaseUnavailable: PostgreSQL did not answer, or not soon enough.
    """
    if event is None or event.archived_at is not None or not _only_books_next(event, waiting, token):
        return None
    phases = Phases(clock)
    users = users_who_book(waiting)
    known = users & on_its_way.keys()
    rows = database.look(
        batches.read_holdings(event.id, users - known),
        prepares=batches.PREPARED,
        seconds_max=limits.PLAN_LOOK_SECONDS_MAX,
    )
    holdings = batches.holdings_of(rows) | {user_id: on_its_way[user_id] for user_id in known}
    phases.end(Phase.PREFETCH)
    return _plan(clock, event, holdings, waiting, token, refuses=True)


def write_planned(database: Database, clock: Clock, plan: Plan) -> AppliedBatch | None:
    """Write a batch as it was planned; None if PostgreSQL refuses that, and nothing was written.

    Raises:
        EventLocked: another transaction holds the event's row.
        DatabaseUnavailable: PostgreSQL did not answer; the batch was written as a whole or not at all.
    """
    phases = Phases(clock)
    try:
        database.transact(plan.request, prepares=batches.PREPARED)
    except WriteRefused:
        return None
    finally:
        phases.end(Phase.WRITE)
    return plan.batch


def is_small(waiting: Sequence[WaitingCommand]) -> bool:
    """Whether a round trip is much next to the rest, so that memory is worth its keeping."""
    return len(waiting) <= limits.COMMANDS_FROM_MEMORY_MAX


def users_who_book(waiting: Sequence[WaitingCommand]) -> set[str]:
    """Whose tickets the rules ask for."""
    return {command.command.user_id for command in waiting if isinstance(command.command, BookTickets)}


def _only_books_next(event: EventRecord, waiting: Sequence[WaitingCommand], token: int) -> bool:
    """Whether commands book, and come next, with nobody else's claim between ours and the last."""
    return event.fencing_token <= token <= event.fencing_token + 1 and all(
        command.position == position and not command.unchecked and isinstance(command.command, BookTickets)
        for position, command in enumerate(waiting, start=event.applied_position + 1)
    )


def _plan(
    clock: Clock,
    event: EventRecord,
    holdings: Mapping[str, int],
    waiting: Sequence[WaitingCommand],
    token: int,
    *,
    refuses: bool,
) -> Plan | None:
    """What a batch comes to; None if it comes to nothing, or to a refusal where it `refuses` nobody."""
    phases = Phases(clock)
    state = EventState(
        terms=sale_terms(event),
        available_tickets=event.available_tickets,
        holdings=holdings,
        bookings={},
    )
    state, outcomes = apply_batch(state, [each.command for each in waiting])
    if not refuses and any(outcome.code is not OutcomeCode.BOOKED for outcome in outcomes):
        return None
    decided = decision_of(event, {}, waiting, state, outcomes, token, clock.now())
    if decided.writes is None:
        return None
    plan = Plan(
        request=batches.write_all_if(event, decided.writes),
        batch=applied_batch(event, decided, waiting, {}),
    )
    phases.end(Phase.RULES)
    return plan
