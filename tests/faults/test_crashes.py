"""A process that ends at any of its I/O boundaries, or loses its connection there, costs no invariant."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.context import ForkServerContext, ForkServerProcess

import httpx
import pytest
import redis

from shared.database.engine import Database
from shared.domain import OutcomeCode
from shared.settings import Settings
from tests.builders import (
    assert_books_balance,
    create_event,
    outcomes_in_ledger,
    tamper,
    wait_until,
)
from tests.conftest import StartWorker
from tests.faults.boundaries import FROM_MEMORY, cut_at, no_action
from tests.faults.checks import assert_all_is_well, expire_claims, renew
from tests.faults.roads import run_api, run_worker, run_worker_until_killed


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"batch_commands_max": 4, "lock_timeout_ms": 50, "redis_timeout_seconds": 5}
    )


def test_a_worker_that_is_killed_at_any_boundary_is_made_up_for(
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    processes: ForkServerContext,
) -> None:
    renew(settings, database, redis_client)
    names = run_worker(settings, no_action)
    assert set(names) >= {
        "before claim",
        "after remove_strays",
        "before EXECUTE onsale_insert_bookings",
        "after EXECUTE onsale_insert_bookings",
        f"before {FROM_MEMORY}",
        f"after {FROM_MEMORY}",
    }
    for number, name in enumerate(names):
        event_id, commands = renew(settings, database, redis_client)
        process = processes.Process(target=run_worker_until_killed, args=(settings, number))
        process.start()
        process.join(30)
        assert process.exitcode == -9, name
        expire_claims(redis_client)
        run_worker(settings, no_action)
        assert_all_is_well(settings, database, redis_client, event_id, commands)


def test_a_worker_whose_connection_is_cut_at_any_boundary_goes_on(
    settings: Settings, database: Database, redis_client: redis.Redis
) -> None:
    renew(settings, database, redis_client)
    names = run_worker(settings, no_action)
    for number in range(len(names)):
        event_id, commands = renew(settings, database, redis_client)
        run_worker(settings, cut_at(number))
        expire_claims(redis_client)
        run_worker(settings, no_action)
        assert_all_is_well(settings, database, redis_client, event_id, commands)


@contextmanager
def api_process(
    processes: ForkServerContext, settings: Settings, number: int | None
) -> Iterator[tuple[ForkServerProcess, str]]:
    mine, theirs = multiprocessing.Pipe()
    process = processes.Process(target=run_api, args=(settings, number, theirs))
    process.start()
    base_url = f"http://127.0.0.1:{mine.recv()}"
    wait_until(lambda: _answers(base_url))
    try:
        yield process, base_url
    finally:
        process.terminate()
        process.join(30)


def _answers(base_url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"{base_url}/health", verify=False).status_code == 200
    return False


def post(base_url: str, event_id: str) -> httpx.Response | None:
    """Book; None if the server ended before it answered."""
    headers = {"Idempotency-Key": "k1", "Prefer": "wait=10"}
    body = {"user_id": "ann", "ticket_count": 1}
    with httpx.Client(base_url=base_url, timeout=30, verify=False) as client, suppress(httpx.TransportError):
        return client.post(f"/events/{event_id}/bookings", json=body, headers=headers)
    return None


def test_an_api_process_that_is_killed_at_any_boundary_is_made_up_for(
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    start_worker: StartWorker,
    api: httpx.Client,
    processes: ForkServerContext,
) -> None:
    start_worker()
    event = create_event(database)
    redis_client.script_flush()
    with api_process(processes, settings, None) as (_, base_url):
        answer = post(base_url, event.id)
        assert answer is not None
        assert answer.status_code == 201
        names = httpx.get(f"{base_url}/boundaries", verify=False).json()
    boundaries = {"after a request", "before enqueue", "after seed_event", "after COMMIT", "before an answer"}
    assert set(names) >= boundaries
    for number, name in enumerate(names):
        redis_client.flushdb()
        redis_client.script_flush()
        tamper(database, "TRUNCATE events, bookings, ledger")
        event = create_event(database)
        with api_process(processes, settings, number) as (process, base_url):
            told = post(base_url, event.id)
            process.join(10)
            assert process.exitcode == -9, name
        again = post(str(api.base_url), event.id)
        assert again is not None
        assert again.status_code == 201, name
        assert told is None or told.json() == again.json()
        assert [outcome for _, _, outcome in outcomes_in_ledger(database, event.id)] == [OutcomeCode.BOOKED]
        assert_books_balance(database, event.id)
