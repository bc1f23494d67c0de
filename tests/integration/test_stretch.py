"""The work on a long line, of which three batches are in work at once."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis

from shared import limits
from shared.database.engine import Database
from shared.database.prepared import Statement
from shared.domain import OutcomeCode
from shared.errors import DatabaseUnavailable, EventLocked, LineUnavailable, OnsaleError
from shared.line.codec import cancel_payload
from shared.line.consumer import Claim, Consumer, Peeked
from shared.line.producer import Submission
from shared.metrics import (
    BATCHES_REFUSED_AHEAD,
    BATCHES_WRITTEN_AHEAD,
    BATCHES_WRITTEN_FROM_MEMORY,
    COMMANDS_APPLIED,
)
from shared.settings import Settings
from tests.builders import (
    assert_books_balance,
    book,
    build_worker,
    create_event,
    outcomes_in_ledger,
    queue_length,
    seed,
    submission,
    submit,
    tamper,
    violations,
    wait_until,
    work_off,
)
from tests.conftest import IDLE_SECONDS_MAX
from tests.faults.boundaries import FROM_MEMORY, LOOK, Boundaries, no_action, watch_database
from worker import stretch
from worker.applied_batch import AppliedBatch
from worker.batch import apply_to_database
from worker.consume import Worker
from worker.plan import Plan, plan_ahead
from worker.stretch import DATABASE_CONNECTIONS_MAX

BATCH_COMMANDS_MAX = 12
THIRD = 4
"""The size of the first batches: the first look at a line is cut for three at once."""

SOLD_OUT, OVER_LIMIT = OutcomeCode.NOT_ENOUGH_TICKETS, OutcomeCode.USER_LIMIT_EXCEEDED
# All forty have one after the first round, thirty have two after the second.
EXPECTED = [OutcomeCode.BOOKED] * 70 + [SOLD_OUT] * 10 + ([OVER_LIMIT] * 30 + [SOLD_OUT] * 10) * 4

During = Callable[[int, Callable[[], None]], list[Plan | None]]


@dataclass(frozen=True, kw_only=True)
class LongLine:
    """An event, and its line of 240 commands of forty users, who each ask six times for one ticket."""

    event_id: str
    job_ids: list[str]
    database: Database
    client: redis.Redis

    def work_off(self, worker: Worker) -> None:
        work_off(worker, self.client, self.event_id)

    def tamper(self, change: str) -> None:
        """Change the event by hand."""
        tamper(self.database, f"UPDATE events SET {change} WHERE id = '{self.event_id}'")

    def applied(self) -> list[tuple[int, str, OutcomeCode]]:
        return outcomes_in_ledger(self.database, self.event_id)

    def waiting(self) -> int:
        return queue_length(self.client, self.event_id)

    def assert_applied(self) -> None:
        """All of it, each command once, in order, and as if one batch had followed the other."""
        rows = self.applied()
        assert [job_id for _, job_id, _ in rows] == self.job_ids
        assert [code for _, _, code in rows] == EXPECTED
        assert_books_balance(self.database, self.event_id)


@pytest.fixture
def line(settings: Settings, database: Database, redis_client: redis.Redis) -> LongLine:
    event = create_event(database, total_tickets=70)
    seed(settings, event)
    commands = [book(event.id, f"user{number % 40}") for number in range(240)]
    submit(settings, commands)
    return LongLine(
        event_id=event.id,
        job_ids=[command.job_id for command in commands],
        database=database,
        client=redis_client,
    )


@pytest.fixture
def worker(settings: Settings) -> Iterator[Worker]:
    """One that finds the line long."""
    # A busy machine may need longer between two requests than a claim lasts here.
    patient = settings.model_copy(update={"lease_seconds": IDLE_SECONDS_MAX})
    database = Database(patient, connections_max=DATABASE_CONNECTIONS_MAX)
    few = settings.model_copy(update={"batch_commands_max": BATCH_COMMANDS_MAX})
    yield build_worker(few, database, name="planner")
    database.close()


@pytest.fixture
def during(monkeypatch: pytest.MonkeyPatch) -> During:
    """Does something when a batch is decided ahead for the so many-th time; gives the plans of all of them.

    The batch before it is on its way then, and the one before that is being completed.
    """

    def arrange(number: int, act: Callable[[], None]) -> list[Plan | None]:
        plans: list[Plan | None] = []

        def act_and_plan(*arguments: Any) -> Plan | None:
            plans.append(None)
            if len(plans) == number:
                act()
            plans[-1] = plan_ahead(*arguments)
            return plans[-1]

        monkeypatch.setattr(stretch, "plan_ahead", act_and_plan)
        return plans

    return arrange


def test_a_long_line_is_decided_ahead_as_it_would_be_in_turn(
    worker: Worker,
    line: LongLine,
) -> None:
    written, refused = BATCHES_WRITTEN_AHEAD._value.get(), BATCHES_REFUSED_AHEAD._value.get()
    line.work_off(worker)
    line.assert_applied()
    assert BATCHES_WRITTEN_AHEAD._value.get() >= written + 15
    assert BATCHES_REFUSED_AHEAD._value.get() == refused


def test_a_line_goes_on_in_order_behind_a_batch_that_was_not_written_as_planned(
    worker: Worker,
    line: LongLine,
    during: During,
) -> None:
    refused = BATCHES_REFUSED_AHEAD._value.get()
    decided = during(5, lambda: line.tamper("name = 'Another'"))
    line.work_off(worker)
    assert BATCHES_REFUSED_AHEAD._value.get() > refused
    assert len(decided) > 15
    line.assert_applied()


@pytest.mark.parametrize("error", [DatabaseUnavailable("no connection left"), EventLocked("a migration")])
def test_where_nothing_can_be_read_beside_a_line_is_worked_off_in_turn(
    worker: Worker,
    line: LongLine,
    during: During,
    caplog: pytest.LogCaptureFixture,
    error: OnsaleError,
) -> None:
    def fail() -> None:
        raise error

    decided = during(3, fail)
    line.work_off(worker)
    assert len(decided) == 3
    assert [message for message in caplog.messages if "interrupted" in message or "locked" in message] == []
    assert caplog.messages.count("deciding ahead paused") == 1
    line.assert_applied()


def test_a_worker_that_is_stopped_finishes_what_it_has_begun_and_leaves_the_rest(
    settings: Settings,
    worker: Worker,
    line: LongLine,
    during: During,
) -> None:
    begun = 5
    during(begun, worker.stop)
    worker.run()
    applied = len(line.applied())
    assert applied == 3 * THIRD + (begun - 3) * BATCH_COMMANDS_MAX
    assert line.waiting() == len(line.job_ids) - applied
    line.work_off(build_worker(settings, line.database, name="another"))
    line.assert_applied()


def test_a_worker_that_is_stopped_while_it_claims_an_event_gives_it_back_at_once(
    settings: Settings,
    worker: Worker,
    line: LongLine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claim = Consumer.claim

    def claim_and_stop(consumer: Consumer) -> Claim | None:
        worker.stop()
        return claim(consumer)

    monkeypatch.setattr(Consumer, "claim", claim_and_stop)
    worker.run()
    assert line.applied() == []
    assert line.waiting() == len(line.job_ids)
    monkeypatch.undo()
    line.work_off(build_worker(settings, line.database, name="another"))
    line.assert_applied()


def test_what_is_read_ahead_takes_no_longer_than_it_may(settings: Settings) -> None:
    patient = {"statement_timeout_ms": 60_000, "transaction_seconds_max": 60.0}
    database = Database(settings.model_copy(update=patient), connections_max=1)
    with pytest.raises(DatabaseUnavailable):
        database.look(Statement(["SELECT pg_sleep(20)"]), prepares=(), seconds_max=0.1)
    database.close()


def test_a_worker_whose_claim_another_has_taken_over_gives_up_all_that_it_has_in_hand(
    worker: Worker,
    line: LongLine,
    during: During,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The database has seen a later token; Redis has not, so the worker goes on with one later still."""
    during(
        5,
        lambda: line.tamper("fencing_token = fencing_token + 9"),
    )
    line.work_off(worker)
    assert caplog.messages.count("stale claim given up") == 1
    line.assert_applied()


def test_a_stray_before_a_long_line_is_put_aside(
    worker: Worker,
    line: LongLine,
    during: During,
) -> None:
    def push_a_stray() -> None:
        line.client.hset("rq:job:a-stray", mapping={"status": "queued", "origin": f"event:{line.event_id}"})
        line.client.lpush(f"rq:queue:event:{line.event_id}", "a-stray")

    during(5, push_a_stray)
    line.work_off(worker)
    assert line.client.zscore(f"rq:failed:event:{line.event_id}", "a-stray") is not None
    line.assert_applied()


def test_a_batch_that_is_applied_while_the_line_does_not_answer_is_counted_once(
    worker: Worker,
    line: LongLine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = commands_counted()
    fail_completion(monkeypatch, 4)
    line.work_off(worker)
    tally = worker._context.tally
    assert commands_counted() - before == tally.applied + tally.failed == len(line.job_ids)
    line.assert_applied()


def test_where_two_batches_in_work_fail_both_errors_are_logged(
    worker: Worker,
    line: LongLine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """While the fifth batch is written the one before it is completed."""
    failed, written = fail_completion(monkeypatch, 4), []

    def apply_but_once(*arguments: Any) -> AppliedBatch:
        written.append(True)
        if len(written) == 5:
            assert failed.wait(IDLE_SECONDS_MAX)
            raise DatabaseUnavailable("so is the database")
        return apply_to_database(*arguments)

    monkeypatch.setattr(stretch, "apply_to_database", apply_but_once)
    line.work_off(worker)
    reasons = {record.getMessage(): str(vars(record)["fields"].get("reason")) for record in caplog.records}
    assert reasons["work interrupted, trying again"] == "so is the database"
    assert reasons["another batch in work failed too"] == "the line is gone"
    line.assert_applied()


def fail_completion(monkeypatch: pytest.MonkeyPatch, number: int) -> threading.Event:
    """Have Redis away at the so many-th completion; gives what is set from then on."""
    complete, completed, failed = Consumer.complete, [], threading.Event()

    def complete_but_once(consumer: Consumer, *arguments: Any, **options: Any) -> Peeked | None:
        completed.append(True)
        if len(completed) == number:
            failed.set()
            raise LineUnavailable("the line is gone")
        return complete(consumer, *arguments, **options)

    monkeypatch.setattr(Consumer, "complete", complete_but_once)
    return failed


def commands_counted() -> float:
    return sum(
        sample.value
        for metric in COMMANDS_APPLIED.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    )


def test_tickets_that_are_given_back_in_a_long_line_are_sold_to_who_comes_next(
    settings: Settings, worker: Worker, database: Database, redis_client: redis.Redis
) -> None:
    event = create_event(database, total_tickets=40)
    seed(settings, event)
    first = [book(event.id, f"user{number}") for number in range(40)]
    cancellations = [submission(event.id, cancel_payload(each.job_id)) for each in first[::2]]
    later = [book(event.id, f"late{number}") for number in range(40)]
    commands = [*first, *cancellations, *later]
    submit(settings, commands)
    work_off(worker, redis_client, event.id)
    rows = outcomes_in_ledger(database, event.id)
    assert [job_id for _, job_id, _ in rows] == [command.job_id for command in commands]
    assert [code for _, _, code in rows] == [
        *[OutcomeCode.BOOKED] * 40,
        *[OutcomeCode.CANCELLED] * 20,
        *[OutcomeCode.BOOKED] * 20,
        *[SOLD_OUT] * 20,
    ]
    assert violations(database) == []


def test_a_long_line_of_new_users_is_decided_without_reading_until_one_is_none(
    settings: Settings, worker: Worker, database: Database, redis_client: redis.Redis
) -> None:
    event = create_event(database, total_tickets=200)
    seed(settings, event)
    submit(settings, [book(event.id, "ann", 2)])
    work_off(build_worker(settings, database, name="another"), redis_client, event.id)
    users = [f"user{number}" for number in range(120)]
    users[60] = "ann"
    submit(settings, [book(event.id, user) for user in users])
    boundaries = Boundaries(no_action)
    watch_database(worker._context.database, boundaries)
    boundaries.watching = True
    refused = BATCHES_REFUSED_AHEAD._value.get()
    work_off(worker, redis_client, event.id)
    first_look = boundaries.names.index(f"before {LOOK}")
    assert boundaries.names[:first_look].count(f"before {FROM_MEMORY}") >= 60 // BATCH_COMMANDS_MAX
    assert boundaries.names.count(f"before {LOOK}") >= 40 // BATCH_COMMANDS_MAX
    assert BATCHES_REFUSED_AHEAD._value.get() == refused + 1
    codes = [code for _, _, code in outcomes_in_ledger(database, event.id)]
    assert codes == [OutcomeCode.BOOKED] * 61 + [OVER_LIMIT] + [OutcomeCode.BOOKED] * 59
    assert violations(database) == []


@pytest.mark.parametrize("users", [150, 250, 400])
def test_whoever_comes_in_whatever_order_is_told_what_the_rules_say(
    settings: Settings,
    worker: Worker,
    database: Database,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    during: During,
    users: int,
) -> None:
    """However often somebody holds more than was thought, and is thought to hold nothing again at once."""
    monkeypatch.setattr(limits, "UNSURE_GUESS_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(limits, "REFUSED_GUESS_PAUSE_SECONDS", 0.0)
    plans = during(0, lambda: None)
    chance = random.Random(users)
    event = create_event(database, total_tickets=450, max_tickets_per_user=3)
    seed(settings, event)
    commands: list[Submission] = []
    for _ in range(300):
        if chance.random() < 0.02 and commands:
            commands.append(submission(event.id, cancel_payload(chance.choice(commands).job_id)))
        else:
            commands.append(
                book(event.id, f"user{chance.randrange(users)}", chance.choice([1, 1, 1, 1, 2, 3]))
            )
    submit(settings, commands)
    refused = BATCHES_REFUSED_AHEAD._value.get()
    work_off(worker, redis_client, event.id)
    assert any(plan is not None and plan.guesses for plan in plans)
    assert BATCHES_REFUSED_AHEAD._value.get() > refused
    rows = outcomes_in_ledger(database, event.id)
    assert [job_id for _, job_id, _ in rows] == [command.job_id for command in commands]
    assert violations(database) == []


def test_nobody_is_refused_ahead_for_what_memory_does_not_know_of_them(
    settings: Settings, worker: Worker, database: Database, redis_client: redis.Redis
) -> None:
    """The first batch of a line may be decided from memory, which knows only whom it has seen."""
    event = create_event(database, total_tickets=100)
    seed(settings, event)
    submit(settings, [book(event.id, "ann")])
    work_off(build_worker(settings, database, name="another"), redis_client, event.id)
    from_memory, ahead = BATCHES_WRITTEN_FROM_MEMORY._value.get(), BATCHES_WRITTEN_AHEAD._value.get()
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
    assert BATCHES_WRITTEN_AHEAD._value.get() > ahead
    # What a refusal says of what she holds is in the ledger, and is not what memory had thought.
    assert violations(database) == []
