"""Workers and API processes that come and go under load: fair shares, nothing lost, no request refused."""

from __future__ import annotations

import asyncio
from pathlib import Path

import redis

from shared.database.engine import Database
from shared.line.producer import Producer
from shared.records import EventRecord
from shared.settings import Settings
from tests.builders import (
    book,
    create_event,
    outcomes_in_ledger,
    queue_length,
    seed,
    submit,
    violations,
    wait_until,
    with_producer,
)
from tests.e2e.fleet import Buyers, await_less, await_more, buying, fleet, free_ports, retire

HOT_LINE = 100_000
SUBMITTED_AT_ONCE = 1_000
SMALL_EVENTS = 20
EVENTS = 16
BUYERS = 8


def on_sale(settings: Settings, database: Database, tickets: int = 1_000_000) -> EventRecord:
    event = create_event(database, total_tickets=tickets)
    seed(settings, event)
    return event


def fill(settings: Settings, event: EventRecord, commands: int) -> None:
    """A long line, in the order of the users' numbers."""

    async def use(producer: Producer) -> None:
        for start in range(0, commands, SUBMITTED_AT_ONCE):
            numbers = range(start, start + SUBMITTED_AT_ONCE)
            await asyncio.gather(*(producer.submit(book(event.id, f"user{number}")) for number in numbers))

    with_producer(settings, use, line_length_max=commands)


def test_a_hot_event_starves_nobody_however_many_workers_there_are(
    settings: Settings, logins: dict[str, str], database: Database, redis_client: redis.Redis, tmp_path: Path
) -> None:
    hot = on_sale(settings, database)
    small = [on_sale(settings, database) for _ in range(SMALL_EVENTS)]
    fill(settings, hot, HOT_LINE)
    with fleet(settings, logins, tmp_path) as processes:
        for round_, more_workers in enumerate((1, 2), start=1):
            for _ in range(more_workers):
                processes.start_worker()
            hot_before = queue_length(redis_client, hot.id)
            await_less(lambda: queue_length(redis_client, hot.id))
            submit(settings, [book(event.id, f"user{round_}") for event in small])
            wait_until(lambda: all(queue_length(redis_client, event.id) == 0 for event in small))
            # All small events had their turn while the hot one went through less than half of its line.
            assert queue_length(redis_client, hot.id) > hot_before / 2
            assert {len(outcomes_in_ledger(database, event.id)) for event in small} == {round_}
    assert violations(database) == []


def applied_by(client: redis.Redis, jobs: list[str]) -> set[str]:
    """The workers that have applied these jobs, as RQ shows them."""
    with client.pipeline(transaction=False) as pipeline:
        for job in jobs:
            pipeline.hget(f"rq:job:{job}", "worker_name")
        return {name.decode() for name in pipeline.execute() if name}


def await_spread(client: redis.Redis, buyers: Buyers, workers: int) -> None:
    """Wait until so many workers share what is accepted from now on."""
    since = len(buyers.accepted)
    wait_until(lambda: len(applied_by(client, buyers.accepted[since:])) == workers)


def test_workers_come_and_go_under_load_and_nothing_is_lost(
    settings: Settings, logins: dict[str, str], database: Database, redis_client: redis.Redis, tmp_path: Path
) -> None:
    events = [on_sale(settings, database).id for _ in range(EVENTS)]
    ports = free_ports(1)
    with fleet(settings, logins, tmp_path) as processes:
        processes.start_api(ports[0])
        workers = [processes.start_worker()]
        with buying(ports, events, clients=BUYERS) as buyers:
            for wanted in (8, 1, 4):
                while len(workers) > wanted:
                    retire(workers.pop())
                while len(workers) < wanted:
                    workers.append(processes.start_worker())
                await_spread(redis_client, buyers, wanted)
        assert buyers.failures == []
        accepted = buyers.accepted
        wait_until(lambda: not any(queue_length(redis_client, event) for event in events))
    jobs = {job for event in events for _, job, _ in outcomes_in_ledger(database, event)}
    assert len(accepted) == len(set(accepted))
    assert jobs == set(accepted)
    assert violations(database) == []


def test_every_process_is_replaced_under_load_without_a_request_that_fails(
    settings: Settings, logins: dict[str, str], database: Database, redis_client: redis.Redis, tmp_path: Path
) -> None:
    events = [on_sale(settings, database).id for _ in range(4)]
    ports = free_ports(2)
    with fleet(settings, logins, tmp_path, ONSALE_DRAIN_SECONDS="1") as processes:
        apis = [processes.start_api(port) for port in ports]
        workers = [processes.start_worker() for _ in range(2)]
        with buying(ports, events, clients=BUYERS, prefer="wait=10") as buyers:
            await_more(lambda: len(buyers.accepted), 50)
            for index, port in enumerate(ports):
                retire(apis[index])
                apis[index] = processes.start_api(port)
                await_more(lambda: len(buyers.accepted), 50)
            for index in range(len(workers)):
                retire(workers[index])
                workers[index] = processes.start_worker()
                await_more(lambda: len(buyers.accepted), 50)
        assert buyers.failures == []
        wait_until(lambda: not any(queue_length(redis_client, event) for event in events))
    booked = [job for event in events for _, job, _ in outcomes_in_ledger(database, event)]
    assert sorted(booked) == sorted(buyers.accepted)
    assert violations(database) == []
