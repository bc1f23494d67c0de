"""Withdrawing a command that waits: it is withdrawn or applied, never both, and the answer says which."""

from __future__ import annotations

import httpx
import pytest
import redis

from shared.clock import SystemClock
from shared.database.engine import Database
from shared.line.consumer import NO_CLAIM, Consumer
from shared.settings import Settings
from tests.builders import (
    UNKNOWN_ID,
    assert_books_balance,
    book,
    complete,
    create_event,
    outcomes_in_ledger,
    seed,
    submit,
    violations,
    wait_until,
    with_producer,
)
from tests.conftest import StartWorker
from worker.batch import apply_to_database

WAIT = {"Prefer": "wait=10"}


def post(api: httpx.Client, event_id: str, user_id: str) -> str:
    answer = api.post(f"/events/{event_id}/bookings", json={"user_id": user_id, "ticket_count": 2})
    assert answer.status_code == 202
    return str(answer.json()["id"])


def test_who_waits_for_a_command_that_was_withdrawn_is_answered_as_the_document_says(
    api: httpx.Client, database: Database, start_worker: StartWorker
) -> None:
    event = create_event(database)
    booking_id = post(api, event.id, "ann")
    calls = [
        ("POST", "/events/{event_id}/bookings", {"user_id": "bob", "ticket_count": 1}),
        ("DELETE", "/bookings/{booking_id}", None),
    ]
    filled = {"event_id": event.id, "booking_id": booking_id}
    document = api.get("/openapi.json").json()
    for number, (method, path, body) in enumerate(calls):
        key = {"Idempotency-Key": f"k{number}"}
        sent = api.request(method, path.format(**filled), json=body, headers=key)
        assert sent.status_code == 202
        api.delete(sent.headers["Location"])
    start_worker()
    for number, (method, path, body) in enumerate(calls):
        key = {"Idempotency-Key": f"k{number}"}
        answer = api.request(method, path.format(**filled), json=body, headers={**key, **WAIT})
        assert (answer.status_code, answer.json()["type"]) == (409, "withdrawn")
        assert "409" in document["paths"][path][method.lower()]["responses"]


def test_a_command_withdrawn_while_it_waits_changes_nothing(
    api: httpx.Client, database: Database, start_worker: StartWorker
) -> None:
    event = create_event(database, total_tickets=4)
    jobs = [post(api, event.id, user_id) for user_id in ("ann", "bob", "cid")]
    noted = api.delete(f"/jobs/{jobs[1]}")
    assert (noted.status_code, noted.json()["status"]) == (202, "queued")
    start_worker()
    wait_until(lambda: api.get(f"/jobs/{jobs[2]}").json()["done"])
    assert [api.get(f"/jobs/{job}").json()["status"] for job in jobs] == [
        "succeeded",
        "withdrawn",
        "succeeded",
    ]
    assert api.get(f"/jobs/{jobs[1]}").json()["error"]["type"] == "withdrawn"
    assert api.get(f"/bookings/{jobs[1]}").status_code == 404
    assert [outcome for _, _, outcome in outcomes_in_ledger(database, event.id)] == [
        "booked",
        "withdrawn",
        "booked",
    ]
    assert_books_balance(database, event.id)
    assert violations(database) == []


def test_a_command_that_was_applied_stays_applied(
    api: httpx.Client, database: Database, start_worker: StartWorker
) -> None:
    event = create_event(database)
    job = post(api, event.id, "ann")
    start_worker()
    wait_until(lambda: api.get(f"/jobs/{job}").json()["done"])
    late = api.delete(f"/jobs/{job}", headers=WAIT)
    assert (late.status_code, late.json()["status"]) == (200, "succeeded")


def test_who_waits_is_told_what_became_of_it(
    api: httpx.Client, database: Database, start_worker: StartWorker
) -> None:
    event = create_event(database)
    job = post(api, event.id, "ann")
    api.delete(f"/jobs/{job}")
    start_worker()
    decided = api.delete(f"/jobs/{job}", headers=WAIT)
    assert (decided.status_code, decided.json()["status"]) == (200, "withdrawn")
    assert decided.headers["preference-applied"] == "wait=10"


@pytest.mark.parametrize("job_id", ["nonsense", UNKNOWN_ID])
def test_an_unknown_job_is_not_found(api: httpx.Client, job_id: str) -> None:
    answer = api.delete(f"/jobs/{job_id}")
    assert (answer.status_code, answer.json()["type"]) == (404, "job-not-found")


def test_a_consumer_that_has_looked_before_decides(
    settings: Settings, database: Database, redis_client: redis.Redis
) -> None:
    event = create_event(database)
    seed(settings, event)
    command = book(event.id, "ann")
    submit(settings, [command])
    consumer = Consumer(redis_client, settings, worker_name="w")
    before = consumer.peek(event.id).commands
    assert with_producer(settings, lambda producer: producer.withdraw(command.job_id))
    after = consumer.peek(event.id).commands
    batch = apply_to_database(database, SystemClock(), event.id, before, NO_CLAIM)
    assert batch.results[0][1]["outcome"] == "booked"
    assert apply_to_database(database, SystemClock(), event.id, after, NO_CLAIM).results == batch.results
    complete(consumer, event.id, NO_CLAIM, batch)
    assert not with_producer(settings, lambda producer: producer.withdraw(command.job_id))
