"""How an idle worker waits: until it is woken, until something is due, until it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import redis

from shared.database.engine import Database
from shared.errors import LineUnavailable
from shared.line import keys
from shared.line.connections import connect
from shared.line.consumer import Claim, Consumer, Sleeper
from shared.records import EventRecord
from shared.settings import Settings
from tests.builders import book, build_worker, create_event, seed, submit, wait_until

LONG_SECONDS = 300.0
"""Longer than any test lasts: whoever still waits then was not woken."""

PATIENCE_SECONDS = 30.0

SECONDS_UNTIL_DUE = 2.0
"""Long enough for somebody to fall asleep meanwhile, on a busy machine too."""


@pytest.fixture
def event(settings: Settings, database: Database, redis_client: redis.Redis) -> EventRecord:
    event = create_event(database)
    seed(settings, event)
    return event


@pytest.fixture
def sluggish(settings: Settings) -> Settings:
    """Of a worker that looks around by itself only after the test."""
    return settings.model_copy(update={"idle_wait_seconds": LONG_SECONDS, "lease_seconds": LONG_SECONDS})


@pytest.fixture
def other(settings: Settings, redis_client: redis.Redis) -> Consumer:
    of_other = settings.model_copy(update={"lease_seconds": SECONDS_UNTIL_DUE})
    return Consumer(redis_client, of_other, worker_name="other")


@contextmanager
def sleeping(settings: Settings, redis_client: redis.Redis) -> Iterator[Future[Claim | None]]:
    """The claim of somebody who saw nothing to do and is asleep; woken at the end if nothing else did."""
    consumer = Consumer(redis_client, settings, worker_name="sleepy")
    assert consumer.claim() is None
    seconds = settings.idle_wait_seconds
    with ThreadPoolExecutor() as threads, connect(settings, blocking_seconds=seconds) as client:
        waiting = threads.submit(Sleeper(client, idle_wait_seconds=seconds).wait, consumer)
        try:
            wait_until(lambda: waiting.done() or redis_client.info("clients")["blocked_clients"] == 1)
            yield waiting
        finally:
            consumer.end_wait()


def test_a_worker_that_sleeps_wakes_with_a_claim(
    sluggish: Settings, event: EventRecord, redis_client: redis.Redis
) -> None:
    with sleeping(sluggish, redis_client) as waiting:
        submit(sluggish, [book(event.id, "ann")])
        claim = waiting.result(PATIENCE_SECONDS)
    assert claim is not None
    assert claim.event_id == event.id
    assert len(claim.peeked.commands) == 1


def test_a_worker_that_sleeps_long_enough_looks_around(
    settings: Settings, event: EventRecord, redis_client: redis.Redis
) -> None:
    with sleeping(settings, redis_client) as waiting:
        assert waiting.result(PATIENCE_SECONDS) is None
    submit(settings, [book(event.id, "ann")])
    redis_client.delete(keys.WAKE)
    consumer = Consumer(redis_client, settings, worker_name="sleepy")
    with connect(settings, blocking_seconds=settings.idle_wait_seconds) as client:
        claim = Sleeper(client, idle_wait_seconds=settings.idle_wait_seconds).wait(consumer)
    assert claim is not None
    assert claim.event_id == event.id


def put_off(other: Consumer) -> None:
    claim = other.claim()
    assert claim is not None
    other.release(claim.event_id, claim.token, delay_seconds=SECONDS_UNTIL_DUE)


def fall_silent(other: Consumer) -> None:
    assert other.claim() is not None


@pytest.mark.parametrize(("leave", "taken_from"), [(put_off, None), (fall_silent, "other")])
def test_a_worker_sleeps_no_longer_than_until_an_event_is_due(
    sluggish: Settings,
    event: EventRecord,
    redis_client: redis.Redis,
    other: Consumer,
    leave: Callable[[Consumer], None],
    taken_from: str | None,
) -> None:
    """One that was put off, or whose consumer is silent; nobody is woken for either."""
    submit(sluggish, [book(event.id, "ann")])
    leave(other)
    redis_client.delete(keys.WAKE)
    with sleeping(sluggish, redis_client) as waiting:
        claim = waiting.result(PATIENCE_SECONDS)
    assert claim is not None
    assert claim.event_id == event.id
    assert claim.taken_from == taken_from


def test_a_worker_sleeps_no_longer_than_a_claim_lasts(
    settings: Settings, event: EventRecord, redis_client: redis.Redis
) -> None:
    """One that is made while it sleeps, and never given back."""
    with sleeping(settings.model_copy(update={"idle_wait_seconds": LONG_SECONDS}), redis_client) as waiting:
        assert waiting.result(PATIENCE_SECONDS) is None


def test_an_idle_worker_that_is_stopped_does_not_wait_to_the_end(
    sluggish: Settings, database: Database, redis_client: redis.Redis
) -> None:
    worker = build_worker(sluggish, database, name="idle")
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    wait_until(lambda: redis_client.info("clients")["blocked_clients"] == 1)
    worker.stop()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()


def test_who_was_not_asleep_when_it_was_to_wake_leaves_nothing_behind_for_ever(
    settings: Settings, redis_client: redis.Redis, other: Consumer
) -> None:
    other.end_wait()
    [key] = redis_client.keys(f"{keys.WAKE_ONE}*")
    assert redis_client.ttl(key) > 0


def test_a_sleeper_claims_also_where_redis_has_forgotten_how(
    sluggish: Settings, event: EventRecord, redis_client: redis.Redis
) -> None:
    with sleeping(sluggish, redis_client) as waiting:
        redis_client.script_flush()
        submit(sluggish, [book(event.id, "ann")])
        claim = waiting.result(PATIENCE_SECONDS)
    assert claim is not None
    assert claim.event_id == event.id


def test_a_sleep_that_redis_refuses_is_told(settings: Settings, redis_client: redis.Redis) -> None:
    redis_client.set(keys.WAKE, "no list")
    with (
        sleeping(settings, redis_client) as waiting,
        pytest.raises(LineUnavailable, match="WRONGTYPE"),
    ):
        waiting.result(PATIENCE_SECONDS)
