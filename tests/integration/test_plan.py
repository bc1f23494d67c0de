"""Plans of batches: never other than if these were read in their turn, or else they are not written."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from shared.clock import SystemClock
from shared.database.engine import Database
from shared.domain import CancelBooking
from shared.errors import StaleClaim
from shared.identifiers import new_id
from shared.line.codec import WaitingCommand
from shared.metrics import BATCHES_REFUSED_AHEAD
from shared.records import EventRecord
from tests.builders import assert_books_balance, booking, create_event, tamper
from worker.applied_batch import AppliedBatch
from worker.batch import apply_to_database
from worker.plan import Plan, plan_ahead

CLOCK = SystemClock()
TOKEN = 7
CANCELLATION = replace(booking(3), command=CancelBooking(id=new_id(), booking_id=new_id()))


@pytest.fixture
def event(database: Database) -> EventRecord:
    return create_event(database)


@pytest.fixture
def applied(database: Database, event: EventRecord) -> AppliedBatch:
    """The first batch, in the database: ann has one ticket."""
    return apply_to_database(database, CLOCK, event.id, [booking(1, "ann")], TOKEN)


def plan(
    database: Database, last: AppliedBatch, waiting: Sequence[WaitingCommand], token: int = TOKEN
) -> Plan:
    made = plan_ahead(database, CLOCK, last.event, last.holdings, waiting, token)
    assert made is not None
    return made


def write(database: Database, made: Plan, token: int = TOKEN) -> AppliedBatch:
    batch = made.batch
    return apply_to_database(database, CLOCK, batch.event_id, batch.waiting, token, plan=made)


def outcomes(batch: AppliedBatch) -> list[str]:
    return [result["outcome"] for _, result in batch.results]


def test_who_holds_tickets_of_the_batch_before_or_of_earlier_ones_is_known(
    database: Database, applied: AppliedBatch
) -> None:
    """Whether or not the batch before is written when the next is planned."""
    second = plan(database, applied, [booking(2, "bob", 2), booking(3, "ann")])
    third = plan(database, second.batch, [booking(4, "bob"), booking(5, "ann"), booking(6, "cid")])
    written = write(database, second)
    late = plan(database, written, third.batch.waiting)
    expected = ["user-limit-exceeded", "user-limit-exceeded", "booked"]
    assert outcomes(third.batch) == outcomes(late.batch) == expected
    assert write(database, third) is third.batch
    assert_books_balance(database, applied.event_id)


def test_tickets_that_are_sold_in_the_batch_before_are_gone(
    database: Database, applied: AppliedBatch
) -> None:
    second = plan(database, applied, [booking(position, f"user{position}", 2) for position in range(2, 6)])
    third = plan(database, second.batch, [booking(6, "eve", 2), booking(7, "eve"), booking(8, "fay")])
    write(database, second)
    assert outcomes(write(database, third)) == ["not-enough-tickets", "booked", "not-enough-tickets"]
    assert_books_balance(database, applied.event_id)


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
    database: Database, applied: AppliedBatch, change: str, outcome: str
) -> None:
    made = plan(database, applied, [booking(2, "bob", 2)])
    tamper(database, f"UPDATE events SET {change} WHERE id = '{applied.event_id}'")
    refused = BATCHES_REFUSED_AHEAD._value.get()
    batch = write(database, made)
    assert batch is not made.batch
    assert outcomes(batch) == [outcome]
    assert BATCHES_REFUSED_AHEAD._value.get() == refused + 1


def test_a_plan_that_another_consumer_has_come_before_is_not_written(
    database: Database, applied: AppliedBatch
) -> None:
    made = plan(database, applied, [booking(2, "bob")])
    apply_to_database(database, CLOCK, applied.event_id, [booking(2, "cid")], TOKEN + 1)
    with pytest.raises(StaleClaim):
        write(database, made)
    assert_books_balance(database, applied.event_id)


def test_a_command_that_was_applied_before_is_not_applied_again(
    database: Database, applied: AppliedBatch
) -> None:
    again = replace(applied.waiting[0], position=2)
    batch = write(database, plan(database, applied, [again, booking(3, "bob")]))
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
    database: Database, applied: AppliedBatch, waiting: list[WaitingCommand]
) -> None:
    assert plan_ahead(database, CLOCK, applied.event, {}, waiting, TOKEN) is None


def test_nothing_is_planned_for_an_event_that_is_gone(database: Database, applied: AppliedBatch) -> None:
    tamper(database, f"UPDATE events SET archived_at = now() WHERE id = '{applied.event_id}'")
    gone = apply_to_database(database, CLOCK, applied.event_id, [booking(2, "bob")], TOKEN)
    assert plan_ahead(database, CLOCK, gone.event, {}, [booking(3, "bob")], TOKEN) is None
