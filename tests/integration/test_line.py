"""The line in Redis: acceptance, claims, completion, and what others do to RQ's list."""

from __future__ import annotations

import asyncio
import time

import pytest
import redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from shared import limits
from shared.clock import SystemClock
from shared.database import statements
from shared.database.engine import Database
from shared.errors import EventNotFound, LineFull
from shared.identifiers import new_id
from shared.line.consumer import NO_CLAIM, Consumer, GiveBack
from shared.line.producer import Acceptance, Producer
from shared.records import EventRecord
from shared.settings import Settings
from tests.builders import (
    assert_books_balance,
    book,
    complete,
    completion_of,
    create_event,
    queue_length,
    seed,
    submit,
    with_producer,
)
from worker.batch import apply_to_database


@pytest.fixture
def event(settings: Settings, database: Database, redis_client: redis.Redis) -> EventRecord:
    event = create_event(database)
    seed(settings, event)
    return event


@pytest.fixture
def consumer(settings: Settings, redis_client: redis.Redis) -> Consumer:
    return Consumer(redis_client, settings, worker_name="first")


@pytest.fixture
def second(settings: Settings, redis_client: redis.Redis) -> Consumer:
    return Consumer(redis_client, settings, worker_name="second")


def test_positions_are_given_in_order_without_gaps(settings: Settings, event: EventRecord) -> None:
    accepted = submit(settings, [book(event.id, f"user{i}") for i in range(600)])
    assert [each.position for each in accepted] == list(range(1, 601))


def test_a_command_sent_again_keeps_its_place_and_stands_in_line_once(
    settings: Settings, event: EventRecord, redis_client: redis.Redis
) -> None:
    command = book(event.id, "ann")
    [first] = submit(settings, [command])
    [_, again] = submit(settings, [book(event.id, "bob"), command])
    assert again.position == first.position == 1
    assert queue_length(redis_client, event.id) == 2


def test_an_event_that_redis_does_not_know_takes_no_command(
    settings: Settings, redis_client: redis.Redis
) -> None:
    with pytest.raises(EventNotFound):
        submit(settings, [book(new_id(), "ann")])
    assert redis_client.keys("rq:*") == []


def test_a_full_line_refuses_and_keeps_what_it_has(
    settings: Settings, event: EventRecord, redis_client: redis.Redis
) -> None:
    async def use(producer: Producer) -> None:
        for index in range(3):
            await producer.submit(book(event.id, f"user{index}"))
        with pytest.raises(LineFull):
            await producer.submit(book(event.id, "late"))

    with_producer(settings, use, line_length_max=3)
    assert queue_length(redis_client, event.id) == 3


def test_a_refused_command_uses_up_no_position(settings: Settings, event: EventRecord) -> None:
    async def use(producer: Producer) -> list[Acceptance | BaseException]:
        """All five go in one call, which accepts three."""
        commands = [book(event.id, f"user{index}") for index in range(5)]
        return await asyncio.gather(*map(producer.submit, commands), return_exceptions=True)

    answers = with_producer(settings, use, line_length_max=3)
    assert [type(answer) for answer in answers] == [Acceptance] * 3 + [LineFull] * 2
    [following] = submit(settings, [book(event.id, "late")])
    assert following.position == 4


def test_seeding_again_never_takes_positions_back(
    settings: Settings, event: EventRecord, redis_client: redis.Redis
) -> None:
    submit(settings, [book(event.id, f"user{i}") for i in range(3)])
    redis_client.delete(f"onsale:event:{event.id}")
    seed(settings, event)
    [accepted] = submit(settings, [book(event.id, "next")])
    assert accepted.position == 4


def test_seeding_counts_the_line_when_its_records_are_gone_too(
    settings: Settings, event: EventRecord, redis_client: redis.Redis
) -> None:
    commands = [book(event.id, f"user{i}") for i in range(3)]
    submit(settings, commands)
    redis_client.delete(f"onsale:event:{event.id}", f"rq:job:{commands[-1].job_id}")
    seed(settings, event)
    [accepted] = submit(settings, [book(event.id, "next")])
    assert accepted.position == 4


@pytest.mark.parametrize("lost", [False, True])
def test_seeding_does_not_count_a_command_twice_that_is_applied_and_still_in_line(
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    event: EventRecord,
    consumer: Consumer,
    lost: bool,
) -> None:
    submit(settings, [book(event.id, "ann"), book(event.id, "bob")])
    claim = consumer.claim()
    assert claim is not None
    first = claim.peeked.commands[:1]
    batch = apply_to_database(database, SystemClock(), event.id, first, claim.token)
    if lost:
        redis_client.delete(f"onsale:event:{event.id}")
    with database.transaction() as connection:
        applied = statements.find_event(connection, event.id)
    assert applied is not None
    seed(settings, applied)
    complete(consumer, event.id, claim.token, batch)
    [acceptance] = submit(settings, [book(event.id, "cid")])
    assert acceptance.position == 3


def test_a_job_can_be_read_while_it_waits(settings: Settings, event: EventRecord) -> None:
    command = book(event.id, "ann")

    async def use(producer: Producer) -> None:
        acceptance: Acceptance = await producer.submit(command)
        job = await producer.read_job(command.job_id)
        assert job is not None
        assert job.position == acceptance.position
        assert job.payload == command.payload
        assert job.result is None
        assert await producer.read_job(new_id()) is None

    with_producer(settings, use)


def test_an_event_has_one_consumer_at_a_time(
    settings: Settings, event: EventRecord, consumer: Consumer, second: Consumer
) -> None:
    submit(settings, [book(event.id, "ann")])
    claim = consumer.claim()
    assert claim is not None
    assert claim.event_id == event.id
    assert second.claim() is None


def test_an_event_that_is_given_back_is_claimed_with_a_newer_token(
    settings: Settings, event: EventRecord, consumer: Consumer, second: Consumer
) -> None:
    submit(settings, [book(event.id, "ann")])
    first_claim = consumer.claim()
    assert first_claim is not None
    consumer.release(event.id, first_claim.token)
    claim = second.claim()
    assert claim is not None
    assert claim.token > first_claim.token
    assert claim.taken_from is None
    assert [command.command.id for command in claim.peeked.commands] == [
        command.command.id for command in first_claim.peeked.commands
    ]


def test_an_event_whose_consumer_is_silent_is_taken_over(
    settings: Settings, event: EventRecord, consumer: Consumer, second: Consumer
) -> None:
    submit(settings, [book(event.id, "ann")])
    assert consumer.claim() is not None
    time.sleep(settings.lease_seconds + 0.05)
    claim = second.claim()
    assert claim is not None
    assert claim.taken_from == "first"


def test_a_claim_made_before_the_clock_was_set_back_does_not_last(
    settings: Settings, event: EventRecord, consumer: Consumer, second: Consumer, redis_client: redis.Redis
) -> None:
    submit(settings, [book(event.id, "ann")])
    assert consumer.claim() is not None
    in_an_hour = (time.time() + 3600) * 1000
    redis_client.zadd("onsale:leased", {event.id: in_an_hour})
    assert second.claim() is not None


def test_a_consumer_that_lost_its_claim_completes_without_taking_it_back(
    settings: Settings, event: EventRecord, database: Database, consumer: Consumer, second: Consumer
) -> None:
    submit(settings, [book(event.id, "ann"), book(event.id, "bob")])
    stale = consumer.claim()
    assert stale is not None
    time.sleep(settings.lease_seconds + 0.05)
    claim = second.claim()
    assert claim is not None
    batch = apply_to_database(database, SystemClock(), event.id, stale.peeked.commands[:1], stale.token)
    assert complete(consumer, event.id, stale.token, batch) is None
    assert [command.position for command in second.peek(event.id).commands] == [2]


def test_completing_twice_changes_nothing(
    settings: Settings,
    event: EventRecord,
    database: Database,
    consumer: Consumer,
    redis_client: redis.Redis,
) -> None:
    submit(settings, [book(event.id, f"user{i}") for i in range(5)])
    claim = consumer.claim()
    assert claim is not None
    batch = apply_to_database(database, SystemClock(), event.id, claim.peeked.commands[:2], claim.token)
    complete(consumer, event.id, claim.token, batch)
    once = queue_length(redis_client, event.id)
    complete(consumer, event.id, claim.token, batch)
    assert queue_length(redis_client, event.id) == once == 3
    assert redis_client.xlen(f"rq:results:{claim.peeked.commands[0].command.id}") == 1
    assert [command.position for command in consumer.peek(event.id).commands] == [3, 4, 5]


def test_the_next_batch_comes_with_the_completion(
    settings: Settings, event: EventRecord, database: Database, consumer: Consumer
) -> None:
    submit(settings, [book(event.id, f"user{i}") for i in range(3)])
    claim = consumer.claim()
    assert claim is not None
    batch = apply_to_database(database, SystemClock(), event.id, claim.peeked.commands[:1], claim.token)
    peeked = complete(consumer, event.id, claim.token, batch)
    assert [command.position for command in peeked.commands] == [2, 3]  # type: ignore[attr-defined]


def test_an_event_given_back_with_work_left_goes_behind_the_others(
    settings: Settings, event: EventRecord, database: Database, consumer: Consumer, second: Consumer
) -> None:
    submit(settings, [book(event.id, f"user{i}") for i in range(3)])
    claim = consumer.claim()
    assert claim is not None
    other = create_event(database)
    seed(settings, other)
    submit(settings, [book(other.id, "ann")])
    time.sleep(0.005)
    batch = apply_to_database(database, SystemClock(), event.id, claim.peeked.commands[:1], claim.token)
    assert complete(consumer, event.id, claim.token, batch, GiveBack.ALWAYS) is None
    claims = [consumer.claim(), second.claim()]
    assert [each.event_id for each in claims if each] == [other.id, event.id]


@pytest.mark.parametrize("lease_seconds", [5.0, limits.LEASE_SECONDS_MAX])
def test_a_stretch_that_is_over_goes_on_where_no_other_event_needs_a_consumer(
    settings: Settings,
    event: EventRecord,
    database: Database,
    redis_client: redis.Redis,
    lease_seconds: float,
) -> None:
    patient = settings.model_copy(update={"lease_seconds": lease_seconds})
    consumer = Consumer(redis_client, patient, worker_name="patient")
    submit(settings, [book(event.id, f"user{i}") for i in range(3)])
    claim = consumer.claim()
    assert claim is not None
    later = create_event(database)
    seed(settings, later)
    submit(settings, [book(later.id, "ann")])
    redis_client.zadd("onsale:ready", {later.id: (time.time() + 10) * 1000})
    batch = apply_to_database(database, SystemClock(), event.id, claim.peeked.commands[:1], claim.token)
    peeked = complete(consumer, event.id, claim.token, batch, GiveBack.IF_OTHERS_WAIT)
    assert [command.position for command in peeked.commands] == [2, 3]  # type: ignore[attr-defined]
    assert redis_client.zscore("onsale:leased", event.id) is not None


@pytest.mark.parametrize("waits_in", ["onsale:ready", "onsale:leased"])
def test_a_stretch_that_is_over_ends_where_another_event_has_no_consumer_any_more_or_yet(
    settings: Settings,
    event: EventRecord,
    database: Database,
    consumer: Consumer,
    redis_client: redis.Redis,
    waits_in: str,
) -> None:
    submit(settings, [book(event.id, f"user{i}") for i in range(3)])
    claim = consumer.claim()
    assert claim is not None
    redis_client.zadd(waits_in, {new_id(): 1})
    batch = apply_to_database(database, SystemClock(), event.id, claim.peeked.commands[:1], claim.token)
    assert complete(consumer, event.id, claim.token, batch, GiveBack.IF_OTHERS_WAIT) is None
    assert redis_client.zscore("onsale:leased", event.id) is None
    assert redis_client.zscore("onsale:ready", event.id) is not None


@pytest.mark.parametrize("give_back", [GiveBack.IF_OTHERS_WAIT, GiveBack.ALWAYS])
def test_a_consumer_keeps_its_event_until_all_that_it_has_in_hand_is_done_but_gets_no_more(
    settings: Settings,
    event: EventRecord,
    database: Database,
    consumer: Consumer,
    redis_client: redis.Redis,
    give_back: GiveBack,
) -> None:
    submit(settings, [book(event.id, f"user{i}") for i in range(4)])
    claim = consumer.claim()
    assert claim is not None
    redis_client.zadd("onsale:ready", {new_id(): 1})
    commands = claim.peeked.commands
    first = apply_to_database(database, SystemClock(), event.id, commands[:1], claim.token)
    peeked = consumer.complete(event.id, claim.token, completion_of(first), give_back, skip=2)
    assert peeked is not None
    assert peeked.commands == []
    rest = apply_to_database(database, SystemClock(), event.id, commands[1:3], claim.token)
    assert complete(consumer, event.id, claim.token, rest, give_back) is None
    assert [command.position for command in consumer.peek(event.id).commands] == [4]


def test_a_command_whose_record_is_deleted_still_has_its_turn(
    settings: Settings, event: EventRecord, database: Database, consumer: Consumer, redis_client: redis.Redis
) -> None:
    commands = [book(event.id, f"user{i}") for i in range(3)]
    submit(settings, commands)
    Job.fetch(commands[1].job_id, connection=redis_client, serializer=JSONSerializer).delete()
    assert queue_length(redis_client, event.id) == 2
    claim = consumer.claim()
    assert claim is not None
    batch = apply_to_database(database, SystemClock(), event.id, claim.peeked.commands, claim.token)
    assert [result["status"] for _, result in batch.results] == ["succeeded", "failed", "succeeded"]
    complete(consumer, event.id, claim.token, batch)
    assert queue_length(redis_client, event.id) == 0


def test_a_job_popped_by_someone_else_is_applied_in_its_turn_all_the_same(
    settings: Settings, event: EventRecord, consumer: Consumer, redis_client: redis.Redis
) -> None:
    submit(settings, [book(event.id, f"user{i}") for i in range(3)])
    redis_client.lpop(f"rq:queue:event:{event.id}")
    claim = consumer.claim()
    assert claim is not None
    assert [command.position for command in claim.peeked.commands] == [1, 2, 3]
    assert not claim.peeked.has_stray


def test_a_completed_job_far_down_a_changed_queue_leaves_it_as_a_stray(
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    event: EventRecord,
    consumer: Consumer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Redis is not held up by a search through all of RQ's list."""
    commands = [book(event.id, f"user{i}") for i in range(3)]
    submit(settings, commands)
    queue = f"rq:queue:event:{event.id}"
    redis_client.delete(queue)
    foreign = [new_id() for _ in range(limits.QUEUE_SEARCH_MAX)]
    redis_client.rpush(queue, *foreign, commands[0].job_id)
    claim = consumer.claim()
    assert claim is not None
    batch = apply_to_database(database, SystemClock(), event.id, claim.peeked.commands, claim.token)
    complete(consumer, event.id, claim.token, batch, GiveBack.ALWAYS)
    assert redis_client.lpos(queue, commands[0].job_id) == limits.QUEUE_SEARCH_MAX
    while queue_length(redis_client, event.id):
        consumer.remove_strays(event.id)


def test_a_command_that_rq_failed_and_that_fails_here_too_is_told(
    settings: Settings, database: Database, redis_client: redis.Redis, event: EventRecord, consumer: Consumer
) -> None:
    command = book(event.id, "ann")
    submit(settings, [command])
    for field, value in (("status", "failed"), ("ended_at", "2026-01-01T00:00:00.000000Z"), ("data", "junk")):
        redis_client.hset(f"rq:job:{command.job_id}", field, value)
    waiting = consumer.peek(event.id).commands
    complete(
        consumer,
        event.id,
        NO_CLAIM,
        apply_to_database(database, SystemClock(), event.id, waiting, NO_CLAIM),
    )
    record = with_producer(settings, lambda producer: producer.read_job(command.job_id))
    assert record is not None
    assert record.result is not None
    assert record.result["outcome"] == "command-unreadable"
    assert redis_client.ttl(f"rq:job:{command.job_id}") > 0


def test_an_event_put_aside_before_the_clock_was_set_back_is_claimed(
    settings: Settings, redis_client: redis.Redis, event: EventRecord, consumer: Consumer
) -> None:
    submit(settings, [book(event.id, "ann")])
    seconds, _ = redis_client.time()
    redis_client.zadd("onsale:ready", {event.id: (seconds + 60) * 1000})
    claim = consumer.claim()
    assert claim is not None


def test_a_claim_on_what_is_no_event_leaves_nothing_for_ever(
    redis_client: redis.Redis, consumer: Consumer
) -> None:
    redis_client.zadd("onsale:ready", {"foo": 0})
    claim = consumer.claim()
    assert claim is not None
    consumer.release(claim.event_id, claim.token)
    assert redis_client.ttl("onsale:event:foo") > 0


def test_a_foreign_job_fails_and_the_line_moves_on(
    settings: Settings, event: EventRecord, database: Database, consumer: Consumer, redis_client: redis.Redis
) -> None:
    queue = Queue(f"event:{event.id}", connection=redis_client, serializer=JSONSerializer)
    foreign = queue.enqueue("os.system", "true")
    submit(settings, [book(event.id, "ann")])
    claim = consumer.claim()
    assert claim is not None
    assert claim.peeked.has_stray
    assert consumer.remove_strays(event.id) == 1
    assert foreign.get_status(refresh=True) == "failed"
    assert foreign.id in queue.failed_job_registry.get_job_ids()
    latest = foreign.latest_result()
    assert latest is not None
    assert "not accepted" in str(latest.exc_string)
    batch = apply_to_database(database, SystemClock(), event.id, claim.peeked.commands, claim.token)
    complete(consumer, event.id, claim.token, batch)
    assert queue.count == 0


def test_a_finished_job_that_is_requeued_is_not_applied_again(
    settings: Settings, event: EventRecord, database: Database, consumer: Consumer, redis_client: redis.Redis
) -> None:
    command = book(event.id, "ann")
    submit(settings, [command])
    claim = consumer.claim()
    assert claim is not None
    batch = apply_to_database(database, SystemClock(), event.id, claim.peeked.commands, claim.token)
    complete(consumer, event.id, claim.token, batch)
    job = Job.fetch(command.job_id, connection=redis_client, serializer=JSONSerializer)
    queue = Queue(f"event:{event.id}", connection=redis_client, serializer=JSONSerializer)
    queue.enqueue_job(job)
    assert queue.count == 1
    assert consumer.remove_strays(event.id) == 0
    assert queue.count == 0
    assert job.get_status(refresh=True) == "finished"


def test_a_requeued_job_does_not_keep_workers_busy_when_its_event_is_forgotten(
    settings: Settings, event: EventRecord, database: Database, consumer: Consumer, redis_client: redis.Redis
) -> None:
    command = book(event.id, "ann")
    submit(settings, [command])
    claim = consumer.claim()
    assert claim is not None
    batch = apply_to_database(database, SystemClock(), event.id, claim.peeked.commands, claim.token)
    complete(consumer, event.id, claim.token, batch)
    redis_client.delete(f"onsale:event:{event.id}")
    redis_client.rpush(f"rq:queue:event:{event.id}", command.job_id)
    consumer.sweep()
    again = consumer.claim()
    assert again is not None
    assert again.peeked.has_stray
    consumer.remove_strays(event.id)
    consumer.release(event.id, again.token)
    assert consumer.claim() is None


def test_the_sweep_finds_an_event_that_the_index_has_forgotten(
    settings: Settings, event: EventRecord, consumer: Consumer, redis_client: redis.Redis
) -> None:
    submit(settings, [book(event.id, "ann")])
    redis_client.delete("onsale:ready", "onsale:wake")
    assert consumer.claim() is None
    assert consumer.sweep() == 1
    assert consumer.claim() is not None


def test_a_queue_leaves_the_list_when_its_results_have_expired(
    settings: Settings, event: EventRecord, database: Database, redis_client: redis.Redis
) -> None:
    consumer = Consumer(
        redis_client, settings.model_copy(update={"result_ttl_seconds": 1}), worker_name="first"
    )
    submit(settings, [book(event.id, "ann")])
    claim = consumer.claim()
    assert claim is not None
    batch = apply_to_database(database, SystemClock(), event.id, claim.peeked.commands, claim.token)
    complete(consumer, event.id, claim.token, batch)
    assert redis_client.smembers("rq:queues") == {f"rq:queue:event:{event.id}".encode()}
    time.sleep(1.1)
    consumer.sweep()
    assert redis_client.smembers("rq:queues") == set()
    assert redis_client.keys("rq:*") == []


def test_scripts_survive_a_flush(
    settings: Settings, event: EventRecord, consumer: Consumer, redis_client: redis.Redis
) -> None:
    submit(settings, [book(event.id, "ann")])
    redis_client.script_flush()
    assert consumer.claim() is not None
    redis_client.script_flush()
    submit(settings, [book(event.id, "bob")])
    assert queue_length(redis_client, event.id) == 2


def test_an_event_put_aside_waits_while_others_go_on(
    settings: Settings,
    event: EventRecord,
    database: Database,
    consumer: Consumer,
    second: Consumer,
    redis_client: redis.Redis,
) -> None:
    submit(settings, [book(event.id, "ann")])
    claim = consumer.claim()
    assert claim is not None
    consumer.release(event.id, claim.token, delay_seconds=10.0)
    other = create_event(database)
    seed(settings, other)
    submit(settings, [book(other.id, "ann")])
    submit(settings, [book(event.id, "bob")])
    other_claim = second.claim()
    assert other_claim is not None
    assert other_claim.event_id == other.id
    assert consumer.claim() is None
    redis_client.zincrby("onsale:ready", -10_000, event.id)
    again = consumer.claim()
    assert again is not None
    assert again.event_id == event.id


def test_emptying_a_queue_fails_its_commands_one_by_one_and_loses_none(
    settings: Settings, event: EventRecord, database: Database, consumer: Consumer, redis_client: redis.Redis
) -> None:
    submit(settings, [book(event.id, f"user{i}") for i in range(5)])
    # What Queue.empty() does: every job and the list itself.
    queue = Queue(f"event:{event.id}", connection=redis_client, serializer=JSONSerializer)
    for job in queue.get_jobs():
        job.delete()
    submit(settings, [book(event.id, "late")])
    claim = consumer.claim()
    assert claim is not None
    batch = apply_to_database(database, SystemClock(), event.id, claim.peeked.commands, claim.token)
    assert [result["status"] for _, result in batch.results] == ["failed"] * 5 + ["succeeded"]
    complete(consumer, event.id, claim.token, batch)
    assert queue_length(redis_client, event.id) == 0
    assert_books_balance(database, event.id)
