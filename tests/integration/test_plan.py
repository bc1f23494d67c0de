"""Plans of batches: never other than if these were read in their turn, or else they are not written."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from shared import limits
from shared.clock import SystemClock
from shared.database.engine import Database
from shared.domain import CancelBooking
from shared.errors import StaleClaim
from shared.identifiers import new_id
from shared.line.codec import WaitingCommand
from shared.metrics import BATCHES_REFUSED_AHEAD
from shared.records import EventRecord
from tests.builders import assert_books_balance, booking, create_event, tamper, violations
from tests.faults.boundaries import LOOK, Boundaries, no_action, watch_database
from worker.applied_batch import AppliedBatch
from worker.batch import apply_to_database
from worker.plan import Plan, Planning, plan_ahead

CLOCK = SystemClock()
TOKEN = 7
CANCELLATION = replace(booking(3), command=CancelBooking(id=new_id(), booking_id=new_id()))


@pytest.fixture
def event(database: Database) -> EventRecord:
    return create_event(database)


@pytest.fixture
def planning(monkeypatch: pytest.MonkeyPatch) -> Planning:
    """For which a guess that was of no use is never long ago."""
    monkeypatch.setattr(limits, "UNSURE_GUESS_PAUSE_SECONDS", math.inf)
    return Planning()


@pytest.fixture
def applied(database: Database, event: EventRecord) -> AppliedBatch:
    """The first batch, in the database: ann has one ticket."""
    return apply_to_database(database, CLOCK, event.id, [booking(1, "ann")], TOKEN)


class Planner:
    """Plans batches and writes them."""

    def __init__(self, database: Database, planning: Planning) -> None:
        self.database = database
        self.planning = planning

    def may_guess(self) -> bool:
        return self.planning.may_guess(CLOCK)

    def plan(self, last: AppliedBatch | Plan, waiting: Sequence[WaitingCommand]) -> Plan | None:
        return plan_ahead(self.database, CLOCK, self.planning, last, waiting, TOKEN)

    def plan_made(self, last: AppliedBatch | Plan, waiting: Sequence[WaitingCommand]) -> Plan:
        made = self.plan(last, waiting)
        assert made is not None
        return made

    def write(self, made: Plan) -> AppliedBatch:
        event_id, waiting = made.batch.event_id, made.batch.waiting
        return apply_to_database(self.database, CLOCK, event_id, waiting, TOKEN, plan=made)


@pytest.fixture
def guesser(database: Database, planning: Planning) -> Planner:
    """One who thinks that users hold nothing until that was wrong."""
    return Planner(database, planning)


@pytest.fixture
def reader(database: Database, planning: Planning) -> Planner:
    """One who reads what users hold."""
    planning.pause_guesses(CLOCK, math.inf)
    return Planner(database, planning)


@pytest.fixture(params=["guesser", "reader"])
def planner(request: pytest.FixtureRequest) -> Planner:
    each: Planner = request.getfixturevalue(request.param)
    return each


def outcomes(batch: AppliedBatch) -> list[str]:
    return [result["outcome"] for _, result in batch.results]


def held(batch: AppliedBatch) -> list[int]:
    """What those hold who were refused for it."""
    details = [entry.detail.get("held_tickets") for entry in batch.entries]
    return [tickets for tickets in details if tickets is not None]


def test_who_holds_tickets_of_the_batch_before_or_of_earlier_ones_is_known(
    reader: Planner, database: Database, applied: AppliedBatch
) -> None:
    """Whether or not the batch before is written when the next is planned."""
    second = reader.plan_made(applied, [booking(2, "bob", 2), booking(3, "ann")])
    third = reader.plan_made(second, [booking(4, "bob"), booking(5, "ann"), booking(6, "cid")])
    written = reader.write(second)
    late = reader.plan_made(written, third.batch.waiting)
    expected = ["user-limit-exceeded", "user-limit-exceeded", "booked"]
    assert outcomes(third.batch) == outcomes(late.batch) == expected
    assert reader.write(third) is third.batch
    assert_books_balance(database, applied.event_id)


def test_tickets_that_are_sold_in_the_batch_before_are_gone(
    reader: Planner, database: Database, applied: AppliedBatch
) -> None:
    second = reader.plan_made(applied, [booking(position, f"user{position}", 2) for position in range(2, 6)])
    third = reader.plan_made(second, [booking(6, "eve", 2), booking(7, "eve"), booking(8, "fay")])
    reader.write(second)
    assert outcomes(reader.write(third)) == ["not-enough-tickets", "booked", "not-enough-tickets"]
    assert_books_balance(database, applied.event_id)


def test_a_guess_reads_nothing(guesser: Planner, database: Database, applied: AppliedBatch) -> None:
    boundaries = Boundaries(no_action)
    # Only connections that are opened from now on are watched.
    database.close_idle()
    watch_database(database, boundaries)
    boundaries.watching = True
    second = guesser.plan_made(applied, [booking(2, "bob", 2), booking(3, "ann")])
    third = guesser.plan_made(second, [booking(4, "cid"), booking(5, "bob")])
    assert second.guesses
    assert third.guesses
    assert boundaries.names == []
    assert guesser.write(second) is second.batch
    written = guesser.write(third)
    assert written is third.batch
    assert outcomes(written) == ["booked", "user-limit-exceeded"]
    assert held(written) == [2]
    guesser.planning.pause_guesses(CLOCK, math.inf)
    guesser.plan_made(written, [booking(6, "dan")])
    assert f"after {LOOK}" in boundaries.names
    assert violations(database) == []


@pytest.mark.parametrize(
    ("waiting", "expected", "expected_held"),
    [
        ([booking(2, "ann", 2), booking(3, "bob")], ["user-limit-exceeded", "booked"], [1]),
        ([booking(2, "ann"), booking(3, "ann")], ["booked", "user-limit-exceeded"], [2]),
        (
            [booking(2, "ann"), booking(3, "ann"), booking(4, "ann")],
            ["booked", *["user-limit-exceeded"] * 2],
            [2, 2],
        ),
    ],
)
def test_a_guess_that_books_over_the_limit_is_not_written(
    guesser: Planner,
    database: Database,
    applied: AppliedBatch,
    waiting: list[WaitingCommand],
    expected: list[str],
    expected_held: list[int],
) -> None:
    made = guesser.plan_made(applied, waiting)
    batch = guesser.write(made)
    assert batch is not made.batch
    assert (outcomes(batch), held(batch)) == (expected, expected_held)
    assert violations(database) == []


@pytest.mark.parametrize(
    ("waiting", "available"),
    [
        ([booking(2, "bob"), booking(3, "bob", 2)], 9),
        ([booking(2, "bob"), booking(3, "cid")], 1),
        ([booking(2, "bob", 2)], 1),
    ],
    ids=[
        "who may hold more than was booked",
        "for whom no tickets are left",
        "for whom too few are left",
    ],
)
def test_a_guess_refuses_nobody_who_may_hold_more_than_it_knows(
    guesser: Planner, database: Database, event: EventRecord, waiting: list[WaitingCommand], available: int
) -> None:
    tamper(database, f"UPDATE events SET available_tickets = {available + 1} WHERE id = '{event.id}'")
    applied = apply_to_database(database, CLOCK, event.id, [booking(1, "ann")], TOKEN)
    assert guesser.plan(applied, waiting) is None
    assert not guesser.may_guess()
    made = guesser.plan_made(applied, waiting)
    assert not made.guesses
    assert guesser.write(made) is made.batch


@pytest.mark.parametrize(
    ("change", "outcome"),
    [("sales_closed = true", "sales-closed"), ("sales_open_at = now() + interval '1 day'", "sales-not-open")],
)
def test_a_guess_refuses_who_would_be_refused_whatever_they_hold(
    guesser: Planner, database: Database, event: EventRecord, change: str, outcome: str
) -> None:
    tamper(database, f"UPDATE events SET {change} WHERE id = '{event.id}'")
    applied = apply_to_database(database, CLOCK, event.id, [booking(1, "ann")], TOKEN)
    made = guesser.plan_made(applied, [booking(2, "ann"), booking(3, "bob")])
    assert made.guesses
    assert guesser.write(made) is made.batch
    assert outcomes(made.batch) == [outcome, outcome]


def test_a_guess_refuses_who_was_booked_up_to_the_limit_by_it(
    guesser: Planner, database: Database, applied: AppliedBatch
) -> None:
    made = guesser.plan_made(applied, [booking(2, "bob", 2), booking(3, "bob")])
    assert made.guesses
    assert guesser.write(made) is made.batch
    assert outcomes(made.batch) == ["booked", "user-limit-exceeded"]
    assert held(made.batch) == [2]
    assert violations(database) == []


def test_what_follows_a_guess_is_one_until_all_is_written(
    guesser: Planner, database: Database, applied: AppliedBatch
) -> None:
    """What users of the batch before hold is a guess, too, so nothing is read beside it."""
    second = guesser.plan_made(applied, [booking(2, "ann")])
    guesser.planning.pause_guesses(CLOCK, math.inf)
    assert guesser.plan_made(second, [booking(3, "bob")]).guesses
    assert guesser.plan(second, [booking(3, "ann", 2)]) is None
    written = guesser.write(second)
    late = guesser.plan_made(written, [booking(3, "ann", 2)])
    assert not late.guesses
    assert held(guesser.write(late)) == [2]
    assert violations(database) == []


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ("sales_closed = true", "sales-closed"),
        ("max_tickets_per_user = 1", "user-limit-exceeded"),
        ("available_tickets = 0", "not-enough-tickets"),
        ("archived_at = now()", "event-not-found"),
        ("name = 'Another'", "booked"),
    ],
)
def test_a_plan_for_an_event_that_was_changed_since_is_not_written(
    planner: Planner, database: Database, applied: AppliedBatch, change: str, outcome: str
) -> None:
    made = planner.plan_made(applied, [booking(2, "bob", 2)])
    tamper(database, f"UPDATE events SET {change} WHERE id = '{applied.event_id}'")
    refused = BATCHES_REFUSED_AHEAD._value.get()
    batch = planner.write(made)
    assert batch is not made.batch
    assert outcomes(batch) == [outcome]
    assert BATCHES_REFUSED_AHEAD._value.get() == refused + 1


def test_a_plan_that_another_consumer_has_come_before_is_not_written(
    planner: Planner, database: Database, applied: AppliedBatch
) -> None:
    made = planner.plan_made(applied, [booking(2, "bob")])
    apply_to_database(database, CLOCK, applied.event_id, [booking(2, "cid")], TOKEN + 1)
    with pytest.raises(StaleClaim):
        planner.write(made)
    assert_books_balance(database, applied.event_id)


def test_a_command_that_was_applied_before_is_not_applied_again(
    planner: Planner, database: Database, applied: AppliedBatch
) -> None:
    again = replace(applied.waiting[0], position=2)
    batch = planner.write(planner.plan_made(applied, [again, booking(3, "bob")]))
    assert outcomes(batch) == ["booked", "booked"]
    assert_books_balance(database, applied.event_id)


@pytest.mark.parametrize(
    "waiting",
    [
        [booking(2, "bob"), CANCELLATION],
        [replace(booking(2, "bob"), unchecked=True)],
        [booking(None, "bob")],
        [booking(1, "bob")],
        [booking(3, "bob")],
    ],
    ids=["cancels", "may repeat another", "has no position", "was applied", "leaves one out"],
)
def test_what_must_be_read_in_its_turn_is_not_planned(
    planner: Planner, applied: AppliedBatch, waiting: list[WaitingCommand]
) -> None:
    may_guess = planner.may_guess()
    assert planner.plan(applied, waiting) is None
    assert planner.may_guess() is may_guess


def test_nothing_is_planned_for_an_event_that_is_gone(
    planner: Planner, database: Database, applied: AppliedBatch
) -> None:
    tamper(database, f"UPDATE events SET archived_at = now() WHERE id = '{applied.event_id}'")
    gone = apply_to_database(database, CLOCK, applied.event_id, [booking(2, "bob")], TOKEN)
    assert planner.plan(gone, [booking(3, "bob")]) is None
