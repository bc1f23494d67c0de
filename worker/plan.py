"""Batches that are decided before anything is locked for them.

A small one is decided from memory, a large one while the one before it is still being written. Either way
PostgreSQL writes it only if nothing has changed: the first statement of its transaction locks the event's
row, and refuses to go on unless that is as it was thought to be (optimistic concurrency control, Kung and
Robinson, 1981).

Nor need what users hold be read for a long line: as long as that goes well they are thought to hold nothing.
PostgreSQL counts the tickets of all who are booked, and refuses a batch by which one would hold too many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from shared import limits
from shared.clock import Clock
from shared.database import batches
from shared.database.engine import Database
from shared.database.prepared import Statement
from shared.domain import BookTickets, EventState, Outcome, OutcomeCode, apply_batch
from shared.errors import WriteRefused
from shared.line.codec import WaitingCommand
from shared.records import EventRecord, sale_terms
from worker.applied_batch import AppliedBatch, applied_batch
from worker.decision import decision_of
from worker.memory import Remembered
from worker.phases import Phase, Phases

_WHATEVER_IS_HELD = frozenset({OutcomeCode.SALES_CLOSED, OutcomeCode.SALES_NOT_OPEN})
"""Refusals for which it makes no difference what a user holds."""

_MayRefuse = Callable[[EventRecord, Outcome], bool]
"""Whether a plan for an event may tell somebody this refusal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What PostgreSQL is asked to write, and what it then holds.

    One that `guesses` thinks that its users hold nothing but what plans before it book for them.
    """

    request: Statement
    batch: AppliedBatch
    guesses: bool = False


@dataclass(slots=True)
class Planning:
    """Whether a worker decides ahead, and by guess: not before these moments, in monotonic seconds."""

    resumes_at: float = -math.inf
    guesses_resume_at: float = -math.inf

    def may_decide_ahead(self, clock: Clock) -> bool:
        """Not soon after PostgreSQL had no answer."""
        return clock.monotonic_seconds() >= self.resumes_at

    def may_guess(self, clock: Clock) -> bool:
        """Not soon after it was of no use."""
        return clock.monotonic_seconds() >= self.guesses_resume_at

    def pause(self, clock: Clock) -> None:
        """PostgreSQL had no answer, or not soon: decide in turn for a while."""
        self.resumes_at = clock.monotonic_seconds() + limits.PLANS_PAUSE_SECONDS

    def pause_guesses(self, clock: Clock, seconds: float) -> None:
        """What somebody holds mattered: read it for a while."""
        self.guesses_resume_at = clock.monotonic_seconds() + seconds


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
    return _plan(clock, remembered.event, holdings, waiting, token, _nobody)


def plan_ahead(
    database: Database,
    clock: Clock,
    planning: Planning,
    before: Plan | AppliedBatch,
    waiting: Sequence[WaitingCommand],
    token: int,
) -> Plan | None:
    """A batch as it follows the one before; None if it must be read in its turn.

    Where the one before may not be committed yet, it is a plan, which says what its users will then hold. It
    books for nobody else, so what is committed tells the tickets of all others, whether or not it is part of
    that by now. What follows a guess is one too, for the users of that may hold more than it says. Where a
    guess decides nothing, `planning` makes no other for a while.

    Raises:
        EventLocked: the tables are locked for too long, as by a migration.
        DatabaseUnavailable: PostgreSQL did not answer, or not soon enough.
    """
    on_its_way: Mapping[str, int]
    if isinstance(before, Plan):
        event, on_its_way, guesses = before.batch.event, before.batch.holdings, before.guesses
    else:
        event, on_its_way, guesses = before.event, {}, planning.may_guess(clock)
    if event is None or event.archived_at is not None or not _only_books_next(event, waiting, token):
        return None
    users = users_who_book(waiting)
    holdings = {user_id: on_its_way[user_id] for user_id in users & on_its_way.keys()}
    if guesses:
        plan = _plan(clock, event, holdings, waiting, token, _who_is_refused_in_any_case, guesses=True)
        if plan is None:
            planning.pause_guesses(clock, limits.UNSURE_GUESS_PAUSE_SECONDS)
        return plan
    phases = Phases(clock)
    rows = database.look(
        batches.read_holdings(event.id, users - holdings.keys()),
        prepares=batches.PREPARED,
        seconds_max=limits.PLAN_LOOK_SECONDS_MAX,
    )
    phases.end(Phase.PREFETCH)
    return _plan(clock, event, batches.holdings_of(rows) | holdings, waiting, token, _everybody)


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


def _nobody(_event: EventRecord, _refusal: Outcome) -> bool:
    return False


def _everybody(_event: EventRecord, _refusal: Outcome) -> bool:
    return True


def _who_is_refused_in_any_case(event: EventRecord, refusal: Outcome) -> bool:
    """Also where they hold more than it was thought.

    Who was booked up to the limit, by this batch or those before, holds no more, or PostgreSQL refuses that.
    """
    return refusal.code in _WHATEVER_IS_HELD or (
        refusal.code is OutcomeCode.USER_LIMIT_EXCEEDED and refusal.held_tickets == event.max_tickets_per_user
    )


def _plan(
    clock: Clock,
    event: EventRecord,
    holdings: Mapping[str, int],
    waiting: Sequence[WaitingCommand],
    token: int,
    may_refuse: _MayRefuse,
    *,
    guesses: bool = False,
) -> Plan | None:
    """What a batch comes to; None if it comes to nothing, or to a refusal that it may not tell."""
    phases = Phases(clock)
    state = EventState(
        terms=sale_terms(event),
        available_tickets=event.available_tickets,
        holdings=holdings,
        bookings={},
    )
    state, outcomes = apply_batch(state, [each.command for each in waiting])
    refusals = [outcome for outcome in outcomes if outcome.code is not OutcomeCode.BOOKED]
    if not all(may_refuse(event, refusal) for refusal in refusals):
        return None
    decided = decision_of(event, {}, waiting, state, outcomes, token, clock.now())
    if decided.writes is None:
        return None
    plan = Plan(
        request=batches.write_all_if(event, decided.writes),
        batch=applied_batch(event, decided, waiting, {}),
        guesses=guesses,
    )
    phases.end(Phase.RULES)
    return plan
