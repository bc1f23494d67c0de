"""A request's id and trace context: on every answer, in the worker's log and in the ledger."""

from __future__ import annotations

import io
import json
import logging

import httpx
import pytest
import redis
from sqlalchemy import text

from shared import limits
from shared.database.engine import Database
from shared.identifiers import canonical_id
from shared.log import JsonFormatter
from shared.settings import Settings
from tests.builders import apply_waiting, book, create_event, seed, submit, tamper, violations, wait_until
from tests.conftest import StartWorker

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def trace_in_ledger(database: Database, job_id: str) -> str | None:
    with database.transaction() as connection:
        found: str | None = connection.execute(
            text("SELECT trace FROM ledger WHERE job_id = :id"), {"id": job_id}
        ).scalar_one()
    return found


def logged_lines(caplog: pytest.LogCaptureFixture, action: str) -> list[dict[str, object]]:
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    return [line for line in lines if line["action"] == action]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/health"),
        ("GET", "/events"),
        ("GET", "/events/none"),
        ("GET", "/nothing/here"),
        ("PUT", "/events"),
        ("POST", "/events"),
        ("POST", "/events/none/bookings"),
        ("GET", "/metrics"),
    ],
)
def test_every_answer_has_the_id_of_its_request(api: httpx.Client, method: str, path: str) -> None:
    assert api.request(method, path, headers={"X-Request-ID": "mine"}).headers["X-Request-ID"] == "mine"
    assert canonical_id(api.request(method, path).headers["X-Request-ID"])


def test_an_id_that_is_not_well_formed_is_replaced(api: httpx.Client) -> None:
    answer = api.get("/health", headers={"X-Request-ID": "a b,c"})
    assert canonical_id(answer.headers["X-Request-ID"])


def test_the_trace_of_a_request_follows_its_command_to_the_log_and_the_ledger(
    api: httpx.Client, database: Database, start_worker: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    event = create_event(database)
    start_worker()
    headers = {"X-Request-ID": "order-4711", "traceparent": PARENT, "Prefer": "wait=20"}
    booking = {"user_id": "ann", "ticket_count": 1}
    answer = api.post(f"/events/{event.id}/bookings", json=booking, headers=headers)
    assert answer.status_code == 201
    job_id = answer.json()["id"]
    assert trace_in_ledger(database, job_id) == f"order-4711 {PARENT}"
    wait_until(lambda: logged_lines(caplog, "command applied"))
    (line,) = logged_lines(caplog, "command applied")
    assert canonical_id(str(line.pop("batch_id")))
    line.pop("time")
    assert line == {
        "level": "info",
        "logger": "worker.watch",
        "action": "command applied",
        "event_id": event.id,
        "job_id": job_id,
        "position": 1,
        "outcome": "booked",
        "request_id": "order-4711",
        "traceparent": PARENT,
    }
    cancelled = api.delete(f"/bookings/{job_id}", headers={"X-Request-ID": "back", "Prefer": "wait=20"})
    assert cancelled.status_code == 200
    with database.transaction() as connection:
        traces = connection.execute(text("SELECT trace FROM ledger ORDER BY position")).scalars().all()
    assert traces == [f"order-4711 {PARENT}", "back"]
    assert violations(database) == []


def test_nothing_is_carried_for_a_client_that_sent_nothing(
    api: httpx.Client, database: Database, redis_client: redis.Redis
) -> None:
    event = create_event(database)
    for headers in ({}, {"X-Request-ID": "not well formed"}):
        answer = api.post(
            f"/events/{event.id}/bookings", json={"user_id": "ann", "ticket_count": 1}, headers=headers
        )
        assert redis_client.hget(f"rq:job:{answer.json()['id']}", "trace") is None


def test_the_first_trace_of_a_repeated_command_stays(
    api: httpx.Client, database: Database, settings: Settings, redis_client: redis.Redis
) -> None:
    event = create_event(database)
    answers = [
        api.post(
            f"/events/{event.id}/bookings",
            json={"user_id": "ann", "ticket_count": 1},
            headers={"X-Request-ID": id, "Idempotency-Key": "once"},
        )
        for id in ("first", "second")
    ]
    assert [answer.headers["X-Request-ID"] for answer in answers] == ["first", "second"]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    apply_waiting(settings, database, redis_client, event.id)
    assert trace_in_ledger(database, answers[0].json()["id"]) == "first"


def test_traced_and_untraced_commands_stand_in_one_batch_and_verify_sees_each_change(
    settings: Settings, database: Database, redis_client: redis.Redis
) -> None:
    event = create_event(database)
    seed(settings, event)
    first, second = book(event.id, "ann"), book(event.id, "bob")
    submit(settings, [first, second])
    redis_client.hset(f"rq:job:{first.job_id}", "trace", "mine")
    apply_waiting(settings, database, redis_client, event.id)
    assert trace_in_ledger(database, first.job_id) == "mine"
    assert trace_in_ledger(database, second.job_id) is None
    assert violations(database) == []
    for job_id, changed in ((first.job_id, "'other'"), (second.job_id, "''"), (second.job_id, "'mine'")):
        before = trace_in_ledger(database, job_id)
        tamper(database, f"UPDATE ledger SET trace = {changed} WHERE job_id = '{job_id}'")
        assert violations(database) != []
        restored = "NULL" if before is None else f"'{before}'"
        tamper(database, f"UPDATE ledger SET trace = {restored} WHERE job_id = '{job_id}'")
        assert violations(database) == []


def test_the_log_of_a_batch_is_bounded(
    api: httpx.Client,
    database: Database,
    start_worker: StartWorker,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(limits, "TRACED_COMMANDS_LOGGED_MAX", 2)
    event = create_event(database)
    for number in range(5):
        api.post(
            f"/events/{event.id}/bookings",
            json={"user_id": f"user{number}", "ticket_count": 1},
            headers={"X-Request-ID": f"request-{number}"},
        )
    start_worker()
    wait_until(lambda: logged_lines(caplog, "more commands applied; the ledger has their traces"))
    assert len(logged_lines(caplog, "command applied")) == 2
    (more,) = logged_lines(caplog, "more commands applied; the ledger has their traces")
    assert more["commands"] == 3


def test_an_error_is_logged_with_the_id_of_its_request(
    api: httpx.Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    handler.setFormatter(JsonFormatter())
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("api.submit.book_payload", broken)
    event = create_event(database)
    answer = api.post(
        f"/events/{event.id}/bookings",
        json={"user_id": "ann", "ticket_count": 1},
        headers={"X-Request-ID": "mine"},
    )
    assert answer.status_code == 500
    assert answer.headers["X-Request-ID"] == "mine"
    line = json.loads(log.getvalue())
    assert line["action"] == "unexpected error"
    assert line["request_id"] == "mine"
    assert "ZeroDivisionError" in line["exception"]
