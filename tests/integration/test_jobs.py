"""GET /jobs/{id}: how long it will take, what may be kept, and what has not changed."""

from __future__ import annotations

import httpx
import pytest
import redis

from shared import limits
from shared.clock import SystemClock
from shared.database.engine import Database
from shared.line import keys
from shared.line.consumer import NO_CLAIM, Consumer
from shared.settings import Settings
from tests.builders import complete, create_event, wait_until
from tests.conftest import StartWorker
from worker.batch import apply_to_database

PENDING = "private, no-cache"
DONE = "private, max-age=31536000, immutable"


def submit(api: httpx.Client, event_id: str, count: int = 1) -> list[dict[str, object]]:
    return [
        api.post(f"/events/{event_id}/bookings", json={"user_id": f"user{i}", "ticket_count": 1}).json()
        for i in range(count)
    ]


def apply(settings: Settings, database: Database, client: redis.Redis, event_id: str, count: int) -> None:
    consumer = Consumer(client, settings, worker_name="w")
    waiting = consumer.peek(event_id).commands[:count]
    batch = apply_to_database(database, SystemClock(), event_id, waiting, NO_CLAIM)
    complete(consumer, event_id, NO_CLAIM, batch)


def move_back(client: redis.Redis, event_id: str, seconds: float) -> None:
    """As if the line had moved so much earlier."""
    moved = client.hget(keys.EVENT + event_id, "moved")
    assert isinstance(moved, bytes)
    client.hset(keys.EVENT + event_id, "moved", int(float(moved) - seconds * 1000))


def test_before_a_line_has_moved_nobody_knows_how_long_it_takes(
    api: httpx.Client, database: Database
) -> None:
    event = create_event(database)
    submitted = submit(api, event.id, 3)[-1]
    polled = api.get(f"/jobs/{submitted['id']}")
    assert submitted["estimated_wait_seconds"] is None
    assert polled.json()["estimated_wait_seconds"] is None
    assert int(polled.headers["retry-after"]) >= limits.RETRY_AFTER_UNKNOWN_SECONDS


def test_the_estimate_grows_with_what_is_ahead_and_shrinks_as_the_line_moves(
    settings: Settings, api: httpx.Client, database: Database, redis_client: redis.Redis
) -> None:
    event = create_event(database, total_tickets=1_000)
    first = submit(api, event.id, 40)
    apply(settings, database, redis_client, event.id, 20)
    # Ten commands a second, said by the line itself.
    redis_client.hset(keys.EVENT + event.id, mapping={"drained": 20, "draining_ms": 2_000})
    move_back(redis_client, event.id, 0)
    near, far = (api.get(f"/jobs/{first[index]['id']}").json() for index in (20, 39))
    assert (near["ahead"], far["ahead"]) == (0, 19)
    assert 0.1 <= near["estimated_wait_seconds"] < far["estimated_wait_seconds"]
    assert far["estimated_wait_seconds"] >= 2.0
    apply(settings, database, redis_client, event.id, 19)
    assert api.get(f"/jobs/{first[39]['id']}").json()["ahead"] == 0


def test_a_line_that_slows_down_promises_less_and_one_that_stands_still_nothing(
    settings: Settings, api: httpx.Client, database: Database, redis_client: redis.Redis
) -> None:
    event = create_event(database, total_tickets=1_000)
    job = f"/jobs/{submit(api, event.id, 20)[-1]['id']}"
    apply(settings, database, redis_client, event.id, 5)
    fast = api.get(job).json()["estimated_wait_seconds"]
    move_back(redis_client, event.id, limits.STANDSTILL_SECONDS / 2)
    slow = api.get(job).json()["estimated_wait_seconds"]
    assert slow > fast
    move_back(redis_client, event.id, limits.STANDSTILL_SECONDS / 2)
    assert api.get(job).json()["estimated_wait_seconds"] is None
    assert submit(api, event.id)[0]["estimated_wait_seconds"] is None
    # It moves again: the stop is forgotten soon.
    for _ in range(3):
        apply(settings, database, redis_client, event.id, 4)
    assert api.get(job).json()["estimated_wait_seconds"] is not None


def test_the_time_in_which_nobody_waits_is_not_counted(
    settings: Settings, api: httpx.Client, database: Database, redis_client: redis.Redis
) -> None:
    event = create_event(database, total_tickets=1_000)
    submit(api, event.id, 5)
    apply(settings, database, redis_client, event.id, 5)
    before = redis_client.hget(keys.EVENT + event.id, "draining_ms")
    assert isinstance(before, bytes)
    move_back(redis_client, event.id, 3_600)
    assert submit(api, event.id)[0]["estimated_wait_seconds"] is not None
    apply(settings, database, redis_client, event.id, 1)
    after = redis_client.hget(keys.EVENT + event.id, "draining_ms")
    assert isinstance(after, bytes)
    assert float(after) < float(before) + limits.STANDSTILL_SECONDS * 1000


def test_a_worker_measures_its_line(
    api: httpx.Client, database: Database, start_worker: StartWorker, redis_client: redis.Redis
) -> None:
    event = create_event(database, total_tickets=1_000)
    jobs = submit(api, event.id, 20)
    start_worker()
    wait_until(lambda: api.get(f"/jobs/{jobs[-1]['id']}").json()["done"])
    drained = redis_client.hget(keys.EVENT + event.id, "drained")
    assert isinstance(drained, bytes)
    assert 0 < float(drained) <= 20
    assert isinstance(submit(api, event.id)[0]["estimated_wait_seconds"], float)


def test_a_job_that_waits_is_asked_for_again_and_one_that_is_done_is_kept(
    settings: Settings, api: httpx.Client, database: Database, redis_client: redis.Redis
) -> None:
    event = create_event(database, total_tickets=1)
    jobs = [f"/jobs/{job['id']}" for job in submit(api, event.id, 2)]
    waiting = api.get(jobs[1])
    assert waiting.headers["cache-control"] == PENDING
    assert waiting.headers["vary"] == "Prefer"
    etag = waiting.headers["etag"]
    same = api.get(jobs[1], headers={"If-None-Match": etag})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    assert "retry-after" in same.headers
    apply(settings, database, redis_client, event.id, 2)
    done = [api.get(job, headers={"If-None-Match": etag}) for job in jobs]
    assert [answer.status_code for answer in done] == [200, 200]
    assert {answer.headers["cache-control"] for answer in done} == {DONE}
    assert all("retry-after" not in answer.headers for answer in done)
    redis_client.flushdb()
    for job, answer in zip(jobs, done, strict=True):
        kept = api.get(job, headers=[("If-None-Match", '"other"'), ("If-None-Match", answer.headers["etag"])])
        assert (kept.status_code, kept.headers["cache-control"]) == (304, DONE)


@pytest.mark.parametrize("what", ["jobs", "events"])
def test_head_is_get_without_the_body(api: httpx.Client, database: Database, what: str) -> None:
    event = create_event(database)
    path = f"/jobs/{submit(api, event.id)[0]['id']}" if what == "jobs" else f"/events/{event.id}"
    head, get = api.head(path), api.get(path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("etag", "content-length", "content-type", "cache-control"):
        assert head.headers[name] == get.headers[name]
    assert api.head(path, headers={"If-None-Match": "*"}).status_code == 304
    assert api.head(f"/{what}/nonsense").status_code == 404


def test_the_event_has_changed_when_a_batch_was_applied(
    settings: Settings, api: httpx.Client, database: Database, redis_client: redis.Redis
) -> None:
    event = create_event(database)
    submit(api, event.id)
    etag = api.get(f"/events/{event.id}").headers["etag"]
    for known in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        assert api.get(f"/events/{event.id}", headers={"If-None-Match": known}).status_code == 304
    apply(settings, database, redis_client, event.id, 1)
    changed = api.get(f"/events/{event.id}", headers={"If-None-Match": etag})
    assert (changed.status_code, changed.json()["available_tickets"]) == (200, 9)
