"""GET /jobs/{id}/events: what a client is told, and that a stream costs little and is forgotten."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import httpx
import pytest
import redis

from api.job_stream import JobStream
from api.jobs import KnownJob
from api.main import create_app
from local.servers import ValkeyServer
from shared import limits
from shared.clock import SystemClock
from shared.database.engine import Database
from shared.line import keys
from shared.line.consumer import NO_CLAIM, Consumer
from shared.settings import Settings
from tests.builders import UNKNOWN_ID, complete, create_event, own_client, wait_until
from tests.conftest import StartWorker
from tests.serving import ONE_WRITE, Serving, serving, told
from worker.batch import apply_to_database

QUICK: dict[str, Any] = {"stream_position_seconds": 0.05, "stream_heartbeat_seconds": 0.2}
OPENING_AT_ONCE = 20
"""Two hundred would be more than a slow machine looks up in time; it would answer some 503."""


def submit_many(client: httpx.Client, event_id: str, count: int) -> list[str]:
    answers = [
        client.post(f"/events/{event_id}/bookings", json={"user_id": f"user{i}", "ticket_count": 1})
        for i in range(count)
    ]
    return [answer.json()["id"] for answer in answers]


def apply(settings: Settings, database: Database, client: redis.Redis, event_id: str, count: int) -> None:
    """Apply so many commands, as a worker would."""
    consumer = Consumer(client, settings, worker_name="w")
    waiting = consumer.peek(event_id).commands[:count]
    batch = apply_to_database(database, SystemClock(), event_id, waiting, NO_CLAIM)
    complete(consumer, event_id, NO_CLAIM, batch)


def nothing_is_held(api: Serving) -> bool:
    return api.context.streams.taken == api.context.replies.waiting == api.context.progress.watched == 0


@pytest.mark.parametrize("http", ["auto", "h11", ONE_WRITE])
def test_a_client_is_told_how_its_turn_comes_and_what_came_of_it(
    settings: Settings, database: Database, redis_client: redis.Redis, http: str
) -> None:
    event = create_event(database)
    with serving(settings, http=http, **QUICK) as api:
        job_id = submit_many(api.client, event.id, 4)[-1]
        with api.client.stream("GET", f"/jobs/{job_id}/events") as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["cache-control"] == "no-store"
            events = (each for each in told(answer) if each.name)
            first = next(events)
            assert (first.name, first.job["ahead"], first.id) == ("snapshot", 3, "0")
            assert first.retry is not None
            assert limits.STREAM_RETRY_MS[0] <= first.retry <= limits.STREAM_RETRY_MS[1]
            for applied in (1, 2):
                apply(settings, database, redis_client, event.id, 1)
                moved = next(events)
                assert (moved.name, moved.job["ahead"], moved.id) == ("position", 3 - applied, str(applied))
                assert moved.job["estimated_wait_seconds"] > 0
            apply(settings, database, redis_client, event.id, 2)
            last = list(events)[-1]
        assert (last.name, last.job["status"], last.id) == ("result", "succeeded", "done")
        with own_client(api.client) as other:
            assert last.job == other.get(f"/jobs/{job_id}").json()
        wait_until(lambda: nothing_is_held(api))


def test_a_job_that_is_done_is_told_at_once(
    settings: Settings, database: Database, redis_client: redis.Redis
) -> None:
    event = create_event(database, total_tickets=1)
    with serving(settings) as api:
        jobs = submit_many(api.client, event.id, 2)
        apply(settings, database, redis_client, event.id, 2)
        for forgotten in (False, True):
            if forgotten:
                redis_client.flushdb()
            for job_id, status in zip(jobs, ("succeeded", "rejected"), strict=True):
                with api.client.stream("GET", f"/jobs/{job_id}/events") as answer:
                    events = list(told(answer))
                assert [each.name for each in events] == ["snapshot", "result"]
                assert [each.job["status"] for each in events] == [status] * 2
        wait_until(lambda: nothing_is_held(api))


def test_who_comes_again_is_told_the_newest_state(
    settings: Settings, database: Database, redis_client: redis.Redis
) -> None:
    event = create_event(database)
    with serving(settings, **QUICK) as api:
        path = f"/jobs/{submit_many(api.client, event.id, 4)[-1]}/events"
        with api.client.stream("GET", path) as answer:
            seen = next(told(answer)).id
        apply(settings, database, redis_client, event.id, 2)
        with api.client.stream("GET", path, headers={"Last-Event-ID": seen}) as answer:
            again = next(told(answer))
        assert (again.name, again.job["ahead"], again.id) == ("snapshot", 1, "2")
        apply(settings, database, redis_client, event.id, 2)
        with api.client.stream("GET", path, headers={"Last-Event-ID": again.id}) as answer:
            assert [each.name for each in told(answer)] == ["snapshot", "result"]
        # A browser that gets 204 comes no more.
        assert api.client.get(path, headers={"Last-Event-ID": "done"}).status_code == 204
        wait_until(lambda: nothing_is_held(api))


def test_a_silent_stream_has_heartbeats(
    settings: Settings, database: Database, redis_client: redis.Redis
) -> None:
    event = create_event(database)
    with serving(settings, **QUICK) as api:
        job_id = submit_many(api.client, event.id, 1)[0]
        with api.client.stream("GET", f"/jobs/{job_id}/events") as answer:
            events = told(answer)
            assert [next(events).name for _ in range(4)] == ["snapshot", "", "", ""]


def test_who_watches_a_line_that_stands_still_is_told_that_nobody_can_tell(
    settings: Settings, database: Database, redis_client: redis.Redis
) -> None:
    event = create_event(database)
    with serving(settings, **QUICK) as api:
        job_id = submit_many(api.client, event.id, 3)[-1]
        apply(settings, database, redis_client, event.id, 1)
        with api.client.stream("GET", f"/jobs/{job_id}/events") as answer:
            events = (each for each in told(answer) if each.name)
            assert next(events).job["estimated_wait_seconds"] is not None
            redis_client.hset(keys.EVENT + event.id, "moved", 1)
            still = next(events)
        assert (still.name, still.job["ahead"]) == ("position", 1)
        assert still.job["estimated_wait_seconds"] is None


def test_lines_that_do_not_fit_in_one_call_are_all_looked_at(
    settings: Settings, database: Database, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PROGRESS_READ_AT_ONCE_MAX", 2)
    lines = [create_event(database).id for _ in range(5)]
    with serving(settings, **QUICK) as api, ExitStack() as stack:
        streams = []
        for event_id in lines:
            job_id = submit_many(api.client, event_id, 3)[-1]
            client = stack.enter_context(own_client(api.client))
            answer = stack.enter_context(client.stream("GET", f"/jobs/{job_id}/events"))
            events = (each for each in told(answer) if each.name)
            assert next(events).job["ahead"] == 2
            streams.append(events)
        for event_id, events in zip(lines, streams, strict=True):
            apply(settings, database, redis_client, event_id, 1)
            moved = next(events)
            assert (moved.job["event_id"], moved.job["ahead"]) == (event_id, 1)


def test_without_redis_no_stream_is_opened(
    settings: Settings, database: Database, valkey: ValkeyServer, redis_client: redis.Redis
) -> None:
    event = create_event(database)
    with serving(settings) as api:
        job_id = submit_many(api.client, event.id, 1)[0]
        valkey.stop()
        try:
            answer = api.client.get(f"/jobs/{job_id}/events")
        finally:
            valkey.start()
        assert (answer.status_code, answer.json()["type"]) == (503, "temporarily-unavailable")
        assert nothing_is_held(api)


@pytest.mark.parametrize("job_id", ["nonsense", UNKNOWN_ID])
def test_an_unknown_job_has_no_stream(api: httpx.Client, job_id: str) -> None:
    answer = api.get(f"/jobs/{job_id}/events")
    assert (answer.status_code, answer.json()["type"]) == (404, "job-not-found")


def test_past_the_bound_a_stream_is_refused(
    settings: Settings, database: Database, redis_client: redis.Redis
) -> None:
    event = create_event(database)
    with serving(settings, streams_max=1) as api:
        first, second = submit_many(api.client, event.id, 2)
        with api.client.stream("GET", f"/jobs/{first}/events") as answer:
            events = told(answer)
            next(events)
            with own_client(api.client) as other:
                refused = other.get(f"/jobs/{second}/events")
        assert (refused.status_code, refused.json()["type"]) == (503, "temporarily-unavailable")
        assert "streams" in refused.json()["detail"]
        assert int(refused.headers["retry-after"]) >= 1
        wait_until(lambda: nothing_is_held(api))
        with own_client(api.client) as other, other.stream("GET", f"/jobs/{second}/events") as answer:
            assert next(told(answer)).name == "snapshot"


def test_two_hundred_streams_on_one_line_get_their_results_from_one_reader(
    settings: Settings, database: Database, start_worker: StartWorker
) -> None:
    event = create_event(database, total_tickets=1_000)
    opening = asyncio.Semaphore(OPENING_AT_ONCE)

    async def follow(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
        await opening.acquire()
        async with client.stream("GET", f"/jobs/{job_id}/events") as answer:
            opening.release()
            lines = [line async for line in answer.aiter_lines()]
        assert "event: result" in lines
        return dict(httpx.Response(200, text=lines[-3].removeprefix("data: ")).json())

    async def follow_all(api: Serving, jobs: list[str]) -> list[dict[str, Any]]:
        bounds = httpx.Limits(max_connections=250)
        async with httpx.AsyncClient(
            base_url=api.client.base_url, timeout=60, limits=bounds, verify=False
        ) as client:
            following = [asyncio.create_task(follow(client, job_id)) for job_id in jobs]
            while api.context.streams.taken < len(jobs) or not api.context.progress.watched:
                assert not any(each.done() for each in following)
                await asyncio.sleep(0.01)
            assert api.context.progress.watched == 1
            await asyncio.to_thread(start_worker)
            return await asyncio.gather(*following)

    with serving(settings, **QUICK) as api:
        jobs = submit_many(api.client, event.id, 200)
        results = asyncio.run(follow_all(api, jobs))
        assert [result["id"] for result in results] == jobs
        assert Counter(result["status"] for result in results) == {"succeeded": 200}
        wait_until(lambda: nothing_is_held(api))


def test_a_stream_survives_a_restart_of_redis(
    settings: Settings, database: Database, valkey: ValkeyServer, redis_client: redis.Redis
) -> None:
    event = create_event(database)
    with serving(settings, **QUICK) as api:
        job_id = submit_many(api.client, event.id, 3)[-1]
        with api.client.stream("GET", f"/jobs/{job_id}/events") as answer:
            events = told(answer)
            assert next(events).name == "snapshot"
            valkey.stop()
            assert [next(events).name for _ in range(3)] == [""] * 3
            valkey.start()
            apply(settings, database, redis_client, event.id, 3)
            rest = [each for each in events if each.name]
        assert (rest[-1].name, rest[-1].job["status"]) == ("result", "succeeded")
        assert all(each.job["ahead"] < 2 for each in rest)


def test_a_stream_of_a_job_that_redis_has_lost_ends_and_nothing_wrong_is_told(
    settings: Settings, database: Database, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STREAM_RESULT_SECONDS_MAX", 0.2)
    event = create_event(database)
    with serving(settings, **QUICK) as api:
        job_id = submit_many(api.client, event.id, 3)[-1]
        with api.client.stream("GET", f"/jobs/{job_id}/events") as answer:
            events = told(answer)
            assert next(events).name == "snapshot"
            redis_client.flushdb()
            assert {each.name for each in events} <= {""}
        assert api.client.get(f"/jobs/{job_id}/events").status_code == 404


def test_a_result_that_nobody_sends_is_asked_for(
    settings: Settings, database: Database, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STREAM_RESULT_SECONDS_MAX", 0.2)
    event = create_event(database)
    with serving(settings, **QUICK) as api:
        job_id = submit_many(api.client, event.id, 1)[0]
        with api.client.stream("GET", f"/jobs/{job_id}/events") as answer:
            events = told(answer)
            assert next(events).name == "snapshot"
            redis_client.hdel(f"rq:job:{job_id}", "reply_to")
            apply(settings, database, redis_client, event.id, 1)
            assert [each.name for each in events if each.name] == ["result"]


@pytest.mark.parametrize("http", ["auto", ONE_WRITE])
def test_a_stream_that_hangs_up_is_forgotten(
    settings: Settings, database: Database, redis_client: redis.Redis, http: str
) -> None:
    event = create_event(database)
    with serving(settings, http=http) as api:
        for job_id in submit_many(api.client, event.id, 5):
            with own_client(api.client) as own, own.stream("GET", f"/jobs/{job_id}/events") as answer:
                events = told(answer)
                next(events)
                assert api.context.streams.taken
        wait_until(lambda: nothing_is_held(api))


def test_a_stream_that_is_not_read_is_given_up(
    settings: Settings, database: Database, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`send` of the server waits for ever where the client leaves everything unread."""
    monkeypatch.setattr(limits, "STREAM_SEND_SECONDS_MAX", 0.1)
    event = create_event(database)
    app = create_app(settings)
    scope = {"type": "http", "method": "GET", "headers": [], "asgi": {"spec_version": "2.3"}}

    async def wait_for_ever(*_: object) -> Any:
        await asyncio.Event().wait()

    async def run() -> tuple[int, int]:
        async with app.router.lifespan_context(app):
            context = app.state.context
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://onsale") as client:
                job = (
                    await client.post(
                        f"/events/{event.id}/bookings", json={"user_id": "ann", "ticket_count": 1}
                    )
                ).json()
            async with AsyncExitStack() as held:
                held.enter_context(context.streams.take())
                reply = held.enter_context(context.replies.expect(job["id"]))
                known = KnownJob(document=job, payload=None)
                stream = JobStream(context, known, reply, held.pop_all())
                await stream(scope, wait_for_ever, wait_for_ever)
            return context.streams.taken, context.replies.waiting

    assert asyncio.run(run()) == (0, 0)


def test_a_stream_ends_after_a_while_so_that_its_client_comes_again(
    settings: Settings, database: Database, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STREAM_SECONDS_MAX", 0.3)
    event = create_event(database)
    with serving(settings) as api:
        job_id = submit_many(api.client, event.id, 1)[0]
        with api.client.stream("GET", f"/jobs/{job_id}/events") as answer:
            assert [each.name for each in told(answer)] == ["snapshot"]
        wait_until(lambda: nothing_is_held(api))
