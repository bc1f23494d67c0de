"""Prefer: wait and respond-async, and that a waiter costs little and is forgotten."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx
import pytest
import redis

from shared import limits
from shared.database.engine import Database
from shared.metrics import ENQUEUE_SECONDS
from shared.records import EventRecord
from shared.settings import Settings
from tests.builders import create_event, outcomes_in_ledger, own_client, wait_until
from tests.conftest import StartWorker
from tests.serving import ONE_WRITE, Serving, serving

BODY = b'{"user_id": "ann", "ticket_count": 1}'
LONG_SECONDS = 300
"""Longer than a slow machine takes to let a thousand clients wait."""


@pytest.fixture
def served(settings: Settings, database: Database, redis_client: redis.Redis) -> Iterator[Serving]:
    with serving(settings, waiters_max=2) as api:
        yield api


def book(api: httpx.Client, event_id: str, prefer: str, user_id: str = "ann") -> httpx.Response:
    with own_client(api) as own:
        return own.post(
            f"/events/{event_id}/bookings",
            json={"user_id": user_id, "ticket_count": 1},
            headers={"Prefer": prefer},
        )


def known_event(api: Serving, database: Database) -> EventRecord:
    """An event that Redis knows: where it does not, who books lets go of their slot until it is found."""
    event = create_event(database)
    assert api.client.get(f"/events/{event.id}").status_code == 200
    return event


def hanging_up(address: tuple[str, int], request: str, body: bytes = b"") -> closing[socket.socket]:
    """Send a request, and hang up at the end of the block."""
    connection = socket.create_connection(address, timeout=10)
    head = f"{request} HTTP/1.1\r\nHost: onsale\r\nPrefer: wait=30\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return closing(connection)


def nobody_waits(api: Serving) -> bool:
    return api.context.waiters.taken == api.context.replies.waiting == 0


def wait_until_nobody_waits(api: Serving) -> None:
    """Long before anybody's time is over."""
    wait_until(lambda: nobody_waits(api), seconds=10)


@pytest.mark.parametrize("http", ["auto", ONE_WRITE])
def test_a_waiter_that_hangs_up_is_forgotten_and_its_command_is_not(
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    start_worker: StartWorker,
    http: str,
) -> None:
    event = create_event(database)
    with serving(settings, http=http) as api:
        for _ in range(2):
            with hanging_up(api.address, f"POST /events/{event.id}/bookings", BODY):
                wait_until(lambda: api.context.replies.waiting)
            wait_until_nobody_waits(api)
        wait_until(lambda: redis_client.llen(f"rq:queue:event:{event.id}") == 2)
        [job_id, _] = redis_client.lrange(f"rq:queue:event:{event.id}", 0, -1)
        assert isinstance(job_id, bytes)
        for request in (f"GET /jobs/{job_id.decode()}", f"DELETE /jobs/{job_id.decode()}"):
            with hanging_up(api.address, request):
                wait_until(lambda: api.context.replies.waiting)
            wait_until_nobody_waits(api)
        with hanging_up(api.address, f"DELETE /bookings/{job_id.decode()}"):
            wait_until(lambda: api.context.replies.waiting)
        wait_until_nobody_waits(api)
        start_worker()
        wait_until(lambda: len(outcomes_in_ledger(database, event.id)) == 3)


def test_who_hangs_up_while_redis_has_the_command_is_not_waited_for(
    served: Serving, database: Database, redis_client: redis.Redis
) -> None:
    event = known_event(served, database)
    redis_client.client_pause(60_000, all=False)
    try:
        with hanging_up(served.address, f"POST /events/{event.id}/bookings", BODY):
            wait_until(lambda: served.context.replies.waiting)
        assert served.client.get("/health").status_code == 200
        assert not nobody_waits(served)
    finally:
        redis_client.client_unpause()
    wait_until_nobody_waits(served)
    assert redis_client.llen(f"onsale:order:{event.id}") == 1


def test_who_hangs_up_while_the_result_is_waited_for_is_not_waited_for(
    served: Serving, database: Database
) -> None:
    event = known_event(served, database)
    accepted = enqueued()
    with hanging_up(served.address, f"POST /events/{event.id}/bookings", BODY):
        wait_until(lambda: enqueued() == accepted + 1)
        # Behind the booking, which waits for its result by the time this is answered.
        assert served.client.get("/health").status_code == 200
        assert served.context.waiters.taken == 1
    wait_until_nobody_waits(served)


def enqueued() -> float:
    [metric] = ENQUEUE_SECONDS.collect()
    return next(sample.value for sample in metric.samples if sample.name.endswith("_count"))


def test_respond_async_is_answered_at_once_and_with_wait_after_it(
    served: Serving, database: Database
) -> None:
    event = create_event(database)
    at_once = book(served.client, event.id, "respond-async")
    assert (at_once.status_code, at_once.headers["preference-applied"]) == (202, "respond-async")
    after = book(served.client, event.id, "respond-async, wait=1")
    assert (after.status_code, after.headers["preference-applied"]) == (202, "respond-async, wait=1")
    for answer in (at_once, after, served.client.get(f"/jobs/{after.json()['id']}")):
        assert answer.headers["vary"] == "Prefer"
    assert nobody_waits(served)


def test_past_the_bound_a_submit_is_accepted_and_answered_at_once_and_a_question_is_refused(
    served: Serving, database: Database, start_worker: StartWorker
) -> None:
    event = known_event(served, database)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(book, served.client, event.id, "wait=20", f"user{i}") for i in range(2)]
        wait_until(lambda: served.context.waiters.taken == 2)
        accepted = book(served.client, event.id, "wait=20", "late")
        assert accepted.status_code == 202
        assert "preference-applied" not in accepted.headers
        job = f"/jobs/{accepted.json()['id']}"
        refused = served.client.get(job, headers={"Prefer": "wait=20"})
        assert (refused.status_code, refused.json()["type"]) == (503, "temporarily-unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        withdrawn = served.client.delete(job, headers={"Prefer": "wait=20"})
        assert withdrawn.status_code == 202
        assert served.client.get(job).status_code == 200
        start_worker()
        assert [answer.result().status_code for answer in waiting] == [201, 201]
    decided = served.client.get(job, headers={"Prefer": "wait=20"}).json()
    assert decided["status"] == "withdrawn"
    assert nobody_waits(served)


def test_all_who_wait_are_asked_about_when_the_subscription_was_lost(
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "JOBS_READ_AT_ONCE_MAX", 2)
    event = create_event(database)
    with serving(settings) as api, ThreadPoolExecutor(5) as pool:
        waiting = [pool.submit(book, api.client, event.id, "wait=20", f"user{i}") for i in range(5)]
        wait_until(lambda: redis_client.llen(f"rq:queue:event:{event.id}") == 5)
        redis_client.client_kill_filter(_type="pubsub")
        start_worker()
        assert [answer.result().status_code for answer in waiting] == [201] * 5


def test_a_thousand_waiters_share_one_subscription(
    settings: Settings, database: Database, redis_client: redis.Redis, start_worker: StartWorker
) -> None:
    event = create_event(database, total_tickets=2_000)

    async def wait_all(api: Serving) -> Counter[int]:
        bounds = httpx.Limits(max_connections=1_100)
        async with httpx.AsyncClient(
            base_url=api.client.base_url, timeout=LONG_SECONDS, limits=bounds, verify=False
        ) as client:
            answers = [
                asyncio.create_task(
                    client.post(
                        f"/events/{event.id}/bookings",
                        json={"user_id": f"user{i}", "ticket_count": 1},
                        headers={"Prefer": f"wait={LONG_SECONDS}"},
                    )
                )
                for i in range(1_000)
            ]
            while api.context.replies.waiting < len(answers):
                assert not any(each.done() for each in answers)
                await asyncio.sleep(0.01)
            assert len(redis_client.pubsub_channels("onsale:replies:*")) == 1
            connections = len(redis_client.client_list())
            await asyncio.to_thread(start_worker)
            assert connections < 100
            return Counter(answer.status_code for answer in await asyncio.gather(*answers))

    with serving(settings, wait_seconds_max=LONG_SECONDS) as api:
        assert asyncio.run(wait_all(api)) == {201: 1_000}
        assert nobody_waits(api)
