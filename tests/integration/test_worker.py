"""The worker's loop: takes its turns, waits for servers, leaves in order."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer
from sqlalchemy import text

from local.servers import PostgresServer
from shared import limits
from shared.database.engine import Database
from shared.domain import OutcomeCode
from shared.errors import LineUnavailable
from shared.line.consumer import Claim, Consumer
from shared.line.presence import is_worker_alive_on_this_host, worker_name_of_this_host
from shared.records import EventRecord
from shared.settings import Settings
from tests.builders import (
    assert_books_balance,
    book,
    build_worker,
    create_event,
    outcomes_in_ledger,
    queue_length,
    seed,
    submit,
    wait_until,
    work_off,
)
from tests.conftest import StartWorker


@pytest.fixture
def event(settings: Settings, database: Database, redis_client: redis.Redis) -> EventRecord:
    event = create_event(database)
    seed(settings, event)
    return event


def applied(database: Database, event: EventRecord) -> int:
    return len(outcomes_in_ledger(database, event.id))


def test_a_line_longer_than_a_stretch_is_worked_off_in_order(
    settings: Settings, database: Database, event: EventRecord
) -> None:
    commands = [book(event.id, f"user{i}") for i in range(500)]
    submit(settings, commands)
    short = settings.model_copy(update={"batch_commands_max": 7, "stretch_batches_max": 3})
    worker = build_worker(short, database, name="short")
    thread = threading.Thread(target=worker.run)
    thread.start()
    wait_until(lambda: applied(database, event) == 500)
    worker.stop()
    thread.join()
    assert [job_id for _, job_id, _ in outcomes_in_ledger(database, event.id)] == [
        command.job_id for command in commands
    ]
    assert_books_balance(database, event.id)


def test_a_worker_stays_with_the_one_event_that_has_work(
    settings: Settings, database: Database, event: EventRecord, redis_client: redis.Redis
) -> None:
    assert claims_for_a_long_line(settings, database, event, redis_client) == 1


def test_a_worker_looks_after_the_rest_even_if_its_line_never_ends(
    settings: Settings,
    database: Database,
    event: EventRecord,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "LONE_STRETCH_SECONDS_MAX", 0.0)
    assert claims_for_a_long_line(settings, database, event, redis_client) > 1


def claims_for_a_long_line(
    settings: Settings, database: Database, event: EventRecord, redis_client: redis.Redis
) -> int:
    """How often a worker claims an event whose line is longer than many stretches."""
    submit(settings, [book(event.id, f"user{i}") for i in range(200)])
    short = settings.model_copy(update={"batch_commands_max": 8, "stretch_seconds_max": 0.001})
    worker = build_worker(short, database, name="lone")
    work_off(worker, redis_client, event.id)
    assert applied(database, event) == 200
    return int(redis_client.hget(f"onsale:event:{event.id}", "token") or 0)


def test_an_idle_worker_looks_around_once_with_each_wait(
    settings: Settings,
    database: Database,
    event: EventRecord,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each look wakes the worker and Redis, which is most of what an idle system costs."""
    claim, claim_when_woken = Consumer.claim, Consumer.claim_when_woken
    looks: list[str] = []

    def claim_and_note(consumer: Consumer) -> Claim | None:
        looks.append("at once")
        return claim(consumer)

    def wait_and_note(consumer: Consumer, *arguments: Any, **options: Any) -> Claim | None:
        looks.append("after a wait")
        return claim_when_woken(consumer, *arguments, **options)

    monkeypatch.setattr(Consumer, "claim", claim_and_note)
    monkeypatch.setattr(Consumer, "claim_when_woken", wait_and_note)
    impatient = settings.model_copy(update={"idle_wait_seconds": 0.1})
    worker = build_worker(impatient, database, name="idle")
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        wait_until(lambda: len(looks) >= 4)
        waited = looks[:4]
        submit(settings, [book(event.id, "ann")])
        wait_until(lambda: applied(database, event) == 1 and looks.count("at once") == 2)
    finally:
        worker.stop()
        thread.join()
    assert waited == ["at once", *["after a wait"] * 3]


def test_a_stray_at_the_head_of_a_long_line_is_not_left_there_until_the_line_ends(
    settings: Settings, database: Database, event: EventRecord, redis_client: redis.Redis
) -> None:
    """Past it every completed job would be looked for."""
    commands = [book(event.id, f"user{i}") for i in range(100)]
    submit(settings, commands)
    queue = Queue(f"event:{event.id}", connection=redis_client, serializer=JSONSerializer)
    foreign = queue.enqueue("os.system", "true")
    redis_client.lrem(queue.key, 1, foreign.id)
    redis_client.linsert(queue.key, "BEFORE", commands[20].job_id, foreign.id)
    worker = build_worker(settings.model_copy(update={"batch_commands_max": 4}), database, name="tidy")
    work_off(worker, redis_client, event.id)
    last = Job.fetch(commands[-1].job_id, connection=redis_client, serializer=JSONSerializer)
    ends = [job.latest_result() for job in (foreign, last)]
    assert ends[0] is not None
    assert ends[1] is not None
    assert ends[0].created_at < ends[1].created_at


def test_a_long_line_does_not_hold_up_a_short_one(
    settings: Settings, database: Database, event: EventRecord, start_worker: StartWorker
) -> None:
    other = create_event(database)
    seed(settings, other)
    submit(settings, [book(event.id, f"user{i}") for i in range(900)])
    submit(settings, [book(other.id, "ann")])
    slow = settings.model_copy(update={"batch_commands_max": 5, "stretch_batches_max": 2})
    worker = build_worker(slow, database, name="slow")
    thread = threading.Thread(target=worker.run)
    thread.start()
    wait_until(lambda: applied(database, other) == 1)
    behind = applied(database, event)
    worker.stop()
    thread.join()
    assert behind < 900


def test_a_stopped_worker_hands_its_event_back_at_once(
    settings: Settings, database: Database, event: EventRecord, redis_client: redis.Redis
) -> None:
    patient = settings.model_copy(update={"lease_seconds": 60.0, "batch_commands_max": 1})
    submit(settings, [book(event.id, f"user{i}") for i in range(300)])
    first = build_worker(patient, database, name="first")
    thread = threading.Thread(target=first.run)
    thread.start()
    wait_until(lambda: applied(database, event) > 3)
    first.stop()
    thread.join()
    assert redis_client.zcard("onsale:leased") == 0
    assert queue_length(redis_client, event.id) == 300 - applied(database, event) > 0
    second = build_worker(settings, database, name="second")
    thread = threading.Thread(target=second.run)
    thread.start()
    wait_until(lambda: applied(database, event) == 300)
    second.stop()
    thread.join()
    assert_books_balance(database, event.id)


def test_workers_wait_for_postgresql_and_go_on_by_themselves(
    settings: Settings,
    database: Database,
    event: EventRecord,
    postgres: PostgresServer,
    start_worker: StartWorker,
    redis_client: redis.Redis,
) -> None:
    start_worker("first")
    start_worker("second")
    postgres.stop()
    try:
        submit(settings, [book(event.id, f"user{i}") for i in range(20)])
    finally:
        postgres.start()
    # The connections of the test itself are lost too.
    database.engine.dispose()
    wait_until(lambda: applied(database, event) == 20)
    wait_until(lambda: queue_length(redis_client, event.id) == 0)
    assert_books_balance(database, event.id)


def test_an_event_that_cannot_move_holds_up_no_other(
    settings: Settings, database: Database, event: EventRecord, start_worker: StartWorker
) -> None:
    with database.transaction() as connection:
        connection.execute(
            text(
                "INSERT INTO ledger (job_id, event_id, position, kind, outcome, accepted_at, applied_at)"
                " VALUES (gen_random_uuid(), :id, 1, 'book', 'booked', now(), now())"
            ),
            {"id": event.id},
        )
    other = create_event(database)
    seed(settings, other)
    submit(settings, [book(event.id, "ann")])
    submit(settings, [book(other.id, "ann")])
    start_worker()
    wait_until(lambda: applied(database, other) == 1)
    assert applied(database, event) == 1


def test_two_workers_that_both_think_they_hold_the_claim_apply_each_command_once(
    settings: Settings, database: Database, event: EventRecord, redis_client: redis.Redis
) -> None:
    """The claim is broken on purpose: it is taken away again and again while both work."""
    commands = [book(event.id, f"user{i}") for i in range(400)]
    submit(settings, commands)
    small = settings.model_copy(update={"batch_commands_max": 5})
    workers = [build_worker(small, database, name=f"worker{i}") for i in range(3)]
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()

    def steal() -> bool:
        redis_client.delete("onsale:leased")
        redis_client.zadd("onsale:ready", {event.id: 0})
        return applied(database, event) == 400

    wait_until(steal)
    for worker in workers:
        worker.stop()
    for thread in threads:
        thread.join()
    entries = outcomes_in_ledger(database, event.id)
    assert [job_id for _, job_id, _ in entries] == [command.job_id for command in commands]
    assert [outcome for _, _, outcome in entries] == [OutcomeCode.BOOKED] * 10 + [
        OutcomeCode.NOT_ENOUGH_TICKETS
    ] * 390
    assert_books_balance(database, event.id)


def test_a_worker_says_whether_it_lives(
    settings: Settings, redis_client: redis.Redis, start_worker: StartWorker
) -> None:
    assert not is_worker_alive_on_this_host(redis_client)
    worker = start_worker(worker_name_of_this_host())
    wait_until(lambda: is_worker_alive_on_this_host(redis_client))
    worker.stop()
    wait_until(lambda: not is_worker_alive_on_this_host(redis_client))


def test_what_a_full_redis_refuses_is_put_off_until_it_is_due_again(
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    events = [create_event(database) for _ in range(8)]
    for each in events:
        seed(settings, each)
        submit(settings, [book(each.id, "ann")])
    rarely = settings.model_copy(update={"sweep_seconds": 3600.0, "worker_ttl_seconds": 3600})
    worker = build_worker(rarely, database, name="refused")
    redis_client.config_set("maxmemory", "1mb")
    try:
        thread = threading.Thread(target=worker.run)
        thread.start()
        # Each event is a turn of its own.
        wait_until(lambda: all(applied(database, each) == 1 for each in events))
        worker.stop()
        thread.join()
    finally:
        redis_client.config_set("maxmemory", "0")
    # One heartbeat and one sweep were due.
    assert caplog.messages.count("heartbeat or sweep put off") == 2


def test_a_redis_without_memory_is_worked_free(
    settings: Settings,
    database: Database,
    event: EventRecord,
    redis_client: redis.Redis,
    start_worker: StartWorker,
) -> None:
    submit(settings, [book(event.id, f"user{i}") for i in range(50)])
    redis_client.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(LineUnavailable):
            submit(settings, [book(event.id, "late")])
        start_worker()
        wait_until(lambda: queue_length(redis_client, event.id) == 0)
    finally:
        redis_client.config_set("maxmemory", "0")
    assert applied(database, event) == 50
    assert_books_balance(database, event.id)
