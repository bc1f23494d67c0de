"""Batches that are decided while the one before is written: never other than if they were read in turn."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import redis
from msgspec.structs import replace

from shared.clock import SystemClock
from shared.database.engine import Database
from shared.domain import CancelBooking, OutcomeCode
from shared.errors import StaleClaim
from shared.identifiers import new_id
from shared.line.codec import WaitingCommand
from shared.metrics import BATCHES_REFUSED_AHEAD, BATCHES_WRITTEN_AHEAD, BATCHES_WRITTEN_FROM_MEMORY
from shared.records import EventRecord
from shared.settings import Settings
from tests.builders import (
    assert_books_balance,
    book,
    booking,
    build_worker,
    create_event,
    outcomes_in_ledger,
    queue_length,
    seed,
    submit,
    tamper,
    violations,
    wait_until,
    work_off,
)
from worker import stretch
from worker.applied_batch import AppliedBatch
from worker.batch import apply_to_database
from worker.consume import Worker
from worker.plan import Plan, plan_ahead
from worker.stretch import DATABASE_CONNECTIONS_MAX

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


@pytest.fixture
def long_line(settings: Settings, database: Database) -> tuple[EventRecord, list[str]]:
    """An event, and its line of 240 commands of forty users, who each ask six times for one ticket."""
    event = create_event(database, total_tickets=70)
    seed(settings, event)
    commands = [book(event.id, f"user{number % 40}") for number in range(240)]
    submit(settings, commands)
    return event, [command.job_id for command in commands]


@pytest.fixture
def worker(settings: Settings) -> Iterator[Worker]:
    """One that applies twelve commands at most in a batch."""
    database = Database(settings, connections_max=DATABASE_CONNECTIONS_MAX)
    yield build_worker(settings.model_copy(update={"batch_commands_max": 12}), database, name="planner")
    database.close()


def test_a_long_line_is_decided_ahead_as_it_would_be_in_turn(
    worker: Worker,
    database: Database,
    redis_client: redis.Redis,
    long_line: tuple[EventRecord, list[str]],
) -> None:
    event, job_ids = long_line
    written, refused = BATCHES_WRITTEN_AHEAD._value.get(), BATCHES_REFUSED_AHEAD._value.get()
    work_off(worker, redis_client, event.id)
    rows = outcomes_in_ledger(database, event.id)
    sold_out, over_limit = OutcomeCode.NOT_ENOUGH_TICKETS, OutcomeCode.USER_LIMIT_EXCEEDED
    # All forty have one after the first round, thirty have two after the second.
    thirds = [over_limit] * 30 + [sold_out] * 10
    assert [job_id for _, job_id, _ in rows] == job_ids
    assert [code for _, _, code in rows] == [OutcomeCode.BOOKED] * 70 + [sold_out] * 10 + thirds * 4
    assert BATCHES_WRITTEN_AHEAD._value.get() >= written + 15
    assert BATCHES_REFUSED_AHEAD._value.get() == refused
    assert_books_balance(database, event.id)


def test_a_line_goes_on_in_order_behind_a_batch_that_was_not_written_as_planned(
    worker: Worker,
    database: Database,
    redis_client: redis.Redis,
    long_line: tuple[EventRecord, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The event is renamed by hand once it is in the middle of it."""
    event, job_ids = long_line
    refused = BATCHES_REFUSED_AHEAD._value.get()
    planned: list[Plan | None] = []

    def plan_and_rename(*arguments: Any) -> Plan | None:
        planned.append(plan_ahead(*arguments))
        if len(planned) == 5:
            tamper(database, f"UPDATE events SET name = 'Another' WHERE id = '{event.id}'")
        return planned[-1]

    monkeypatch.setattr(stretch, "plan_ahead", plan_and_rename)
    work_off(worker, redis_client, event.id)
    assert BATCHES_REFUSED_AHEAD._value.get() > refused
    assert len(planned) > 15
    assert [job_id for _, job_id, _ in outcomes_in_ledger(database, event.id)] == job_ids
    assert_books_balance(database, event.id)


def test_nobody_is_refused_ahead_for_what_memory_does_not_know_of_them(
    settings: Settings, worker: Worker, database: Database, redis_client: redis.Redis
) -> None:
    """The first batch of a line may be decided from memory, which knows only whom it has seen."""
    event = create_event(database, total_tickets=100)
    seed(settings, event)
    submit(settings, [book(event.id, "ann")])
    work_off(build_worker(settings, database, name="another"), redis_client, event.id)
    from_memory = BATCHES_WRITTEN_FROM_MEMORY._value.get()
    thread = threading.Thread(target=worker.run)
    thread.start()
    submit(settings, [book(event.id, "bob")])
    wait_until(lambda: queue_length(redis_client, event.id) == 0)
    others = [book(event.id, f"user{number}") for number in range(22)]
    submit(settings, [book(event.id, "ann"), *others[:5], book(event.id, "ann", 2), *others[5:]])
    wait_until(lambda: queue_length(redis_client, event.id) == 0)
    worker.stop()
    thread.join()
    assert BATCHES_WRITTEN_FROM_MEMORY._value.get() > from_memory
    # What a refusal says of what she holds is in the ledger, and is not what memory had thought.
    assert violations(database) == []
