"""The HTTP API against real servers and a worker."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import redis

from local.servers import ValkeyServer
from shared.database.engine import Database
from shared.identifiers import new_id
from shared.settings import Settings
from tests.builders import assert_books_balance, create_event, own_client, wait_until
from tests.conftest import StartWorker

PROBLEM = "application/problem+json"


def make_event(api: httpx.Client, total_tickets: int = 10) -> str:
    answer = api.post("/events", json={"name": "Test Event", "total_tickets": total_tickets})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def book(
    api: httpx.Client, event_id: str, user_id: str = "ann", ticket_count: int = 1, wait: int | None = 10
) -> httpx.Response:
    headers = {"Prefer": f"wait={wait}"} if wait is not None else {}
    return api.post(
        f"/events/{event_id}/bookings",
        json={"user_id": user_id, "ticket_count": ticket_count},
        headers=headers,
    )


def book_alone(api: httpx.Client, event_id: str, user_id: str, wait: int | None = 10) -> httpx.Response:
    """From a thread of its own."""
    with own_client(api) as own:
        return book(own, event_id, user_id, wait=wait)


def cancel(api: httpx.Client, booking_id: str) -> httpx.Response:
    return api.delete(f"/bookings/{booking_id}", headers={"Prefer": "wait=10"})


def problem_of(answer: httpx.Response, status: int, type_name: str) -> dict[str, object]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    document: dict[str, object] = answer.json()
    assert document["type"] == type_name
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    return document


def test_an_event_is_made_and_read(api: httpx.Client) -> None:
    made = api.post("/events", json={"name": "Test Event", "total_tickets": 10})
    assert made.status_code == 201
    assert made.headers["location"] == f"/events/{made.json()['id']}"
    assert (
        made.json().items()
        >= {
            "name": "Test Event",
            "total_tickets": 10,
            "available_tickets": 10,
        }.items()
    )
    read = api.get(made.headers["location"])
    assert read.json() == made.json()
    same = api.get(made.headers["location"], headers={"If-None-Match": read.headers["etag"]})
    assert same.status_code == 304


def test_a_submit_is_answered_with_a_job_that_can_be_polled(
    api: httpx.Client, start_worker: StartWorker
) -> None:
    event_id = make_event(api)
    answer = book(api, event_id, wait=None)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/jobs/{job['id']}"
    assert int(answer.headers["retry-after"]) >= 1
    assert job["status"] == "queued"
    assert job["done"] is False
    assert job["position"] == 1
    assert job["ahead"] == 0
    assert job["booking_id"] == job["id"]
    waiting = api.get(f"/jobs/{job['id']}")
    assert waiting.status_code == 200
    assert "retry-after" in waiting.headers
    start_worker()
    done = api.get(f"/jobs/{job['id']}", headers={"Prefer": "wait=10"})
    assert done.status_code == 200
    assert done.headers["preference-applied"] == "wait=10"
    assert "retry-after" not in done.headers
    assert done.json()["status"] == "succeeded"
    assert (
        done.json()["booking"].items()
        >= {
            "id": job["id"],
            "event_id": event_id,
            "user_id": "ann",
            "ticket_count": 1,
            "status": "active",
        }.items()
    )
    assert api.get(f"/bookings/{job['id']}").json() == done.json()["booking"]


def test_who_waits_gets_the_booking_itself(api: httpx.Client, start_worker: StartWorker) -> None:
    start_worker()
    event_id = make_event(api)
    answer = book(api, event_id, ticket_count=2)
    assert answer.status_code == 201
    assert answer.headers["preference-applied"] == "wait=10"
    assert answer.headers["location"] == f"/bookings/{answer.json()['id']}"
    assert set(answer.json()) == {
        "id",
        "event_id",
        "user_id",
        "ticket_count",
        "status",
        "created_at",
        "updated_at",
    }
    assert api.get(f"/events/{event_id}").json()["available_tickets"] == 8


def test_who_waits_in_vain_gets_the_job(api: httpx.Client) -> None:
    answer = book(api, make_event(api), wait=1)
    assert answer.status_code == 202
    assert answer.json()["status"] == "queued"


def test_ten_of_fifteen_get_a_ticket(api: httpx.Client, start_worker: StartWorker) -> None:
    start_worker()
    event_id = make_event(api, 10)
    with ThreadPoolExecutor(15) as pool:
        answers = list(pool.map(lambda i: book_alone(api, event_id, f"user{i}", wait=None), range(15)))
    jobs = [api.get(answer.headers["location"], headers={"Prefer": "wait=10"}).json() for answer in answers]
    assert [answer.status_code for answer in answers] == [202] * 15
    assert sorted(job["position"] for job in jobs) == list(range(1, 16))
    assert sorted(job["status"] for job in jobs) == ["rejected"] * 5 + ["succeeded"] * 10
    assert {job["error"]["type"] for job in jobs if job["error"]} == {"not-enough-tickets"}
    late = [job["position"] for job in jobs if job["status"] == "rejected"]
    assert sorted(late) == [11, 12, 13, 14, 15]
    assert api.get(f"/events/{event_id}").json()["available_tickets"] == 0


def test_refusals_by_the_rules(api: httpx.Client, start_worker: StartWorker) -> None:
    start_worker()
    event_id = make_event(api, 3)
    booked = book(api, event_id, "ann", 2).json()
    limit = problem_of(book(api, event_id, "ann", 1), 400, "user-limit-exceeded")
    assert limit["held_tickets"] == 2
    few = problem_of(book(api, event_id, "bob", 2), 400, "not-enough-tickets")
    assert few["available_tickets"] == 1
    cancelled = cancel(api, booked["id"])
    assert cancelled.status_code == 200
    assert cancelled.json()["status"] == "cancelled"
    assert cancelled.json()["created_at"] == booked["created_at"]
    problem_of(cancel(api, booked["id"]), 400, "already-cancelled")
    assert book(api, event_id, "ann", 2).status_code == 201


def test_what_is_unknown_is_not_found(api: httpx.Client, redis_client: redis.Redis) -> None:
    for unknown in (new_id(), "not-an-id"):
        problem_of(api.get(f"/events/{unknown}"), 404, "event-not-found")
        problem_of(book(api, unknown), 404, "event-not-found")
        problem_of(api.get(f"/bookings/{unknown}"), 404, "booking-not-found")
        problem_of(api.delete(f"/bookings/{unknown}"), 404, "booking-not-found")
        problem_of(api.get(f"/jobs/{unknown}"), 404, "job-not-found")
    assert redis_client.keys("rq:*") == []


def test_a_booking_that_still_waits_can_be_cancelled(api: httpx.Client, start_worker: StartWorker) -> None:
    event_id = make_event(api)
    booked = book(api, event_id, wait=None).json()
    cancelled = api.delete(f"/bookings/{booked['booking_id']}")
    assert cancelled.status_code == 202
    assert cancelled.json()["position"] == 2
    assert cancelled.json()["kind"] == "cancel"
    start_worker()
    job = api.get(cancelled.headers["location"], headers={"Prefer": "wait=10"}).json()
    assert job["status"] == "succeeded"
    assert job["booking"]["status"] == "cancelled"


def test_a_refused_booking_cannot_be_cancelled(api: httpx.Client, start_worker: StartWorker) -> None:
    start_worker()
    event_id = make_event(api, 1)
    refused = book(api, event_id, "ann", 2, wait=None).json()
    api.get(f"/jobs/{refused['id']}", headers={"Prefer": "wait=10"})
    problem_of(api.delete(f"/bookings/{refused['id']}"), 404, "booking-not-found")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"user_id": "ann", "ticket_count": 0}, "ticket_count"),
        ({"user_id": "ann", "ticket_count": 3}, "ticket_count"),
        ({"user_id": "ann", "ticket_count": "1"}, "ticket_count"),
        ({"user_id": "ann", "ticket_count": True}, "ticket_count"),
        ({"user_id": "ann", "ticket_count": 1.5}, "ticket_count"),
        ({"user_id": "", "ticket_count": 1}, "user_id"),
        ({"user_id": "a" * 129, "ticket_count": 1}, "user_id"),
        ({"user_id": "a\nb", "ticket_count": 1}, "user_id"),
        ({"user_id": 7, "ticket_count": 1}, "user_id"),
        ({"ticket_count": 1}, "user_id"),
        ({"user_id": "ann", "ticket_count": 1, "price": 0}, "price"),
        ([], "body"),
    ],
)
def test_a_wrong_field_is_named(
    api: httpx.Client, redis_client: redis.Redis, body: object, field: str
) -> None:
    event_id = make_event(api)
    document = problem_of(api.post(f"/events/{event_id}/bookings", json=body), 422, "invalid-request")
    errors = document["errors"]
    assert isinstance(errors, list)
    assert field in [error["field"] for error in errors]
    assert redis_client.keys("rq:*") == []


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"user_id": "\\ud800", "ticket_count": 1}'])
def test_a_body_that_is_no_json_is_refused(api: httpx.Client, content: bytes) -> None:
    answer = api.post(
        f"/events/{make_event(api)}/bookings",
        content=content,
        headers={"Content-Type": "application/json"},
    )
    problem_of(answer, 422, "invalid-request")


@pytest.mark.parametrize(
    "path", ["/events", "/events/{id}", "/events/{id}/bookings", "/events/{id}/webhooks"]
)
def test_a_body_is_taken_if_it_is_said_to_be_json_and_nothing_else(api: httpx.Client, path: str) -> None:
    path = path.replace("{id}", make_event(api))
    method = "PATCH" if path.count("/") == 2 else "POST"

    def answer_to(headers: dict[str, str]) -> httpx.Response:
        return api.request(method, path, content=b"{}", headers=headers)

    for media_type in (
        "text/plain",
        "application/jsonx",
        "application/vnd.api+json",
        "multipart/form-data",
        "",
    ):
        problem_of(answer_to({"Content-Type": media_type}), 415, "unsupported-media-type")
    problem_of(answer_to({}), 415, "unsupported-media-type")
    for media_type in ("application/json", "Application/JSON ; charset=utf-8"):
        problem_of(answer_to({"Content-Type": media_type}), 422, "invalid-request")


def test_a_body_that_is_json_but_can_not_be_taken_is_not_said_to_be_none(api: httpx.Client) -> None:
    for content, reason in (
        (b'{"name": "a", "total_tickets": ' + b"9" * 6_000 + b"}", "number out of range"),
        (b'{"name": ' + b"[" * 6_000 + b"]" * 6_000 + b"}", "recursion limit exceeded"),
    ):
        answer = api.post("/events", content=content, headers={"Content-Type": "application/json"})
        problem_of(answer, 422, "invalid-request")
        assert reason in answer.text


def test_errors_of_the_framework_are_problems_too(api: httpx.Client) -> None:
    problem_of(api.get("/nowhere"), 404, "not-found")
    problem_of(api.put("/events", json={}), 405, "method-not-allowed")
    large = b'{"name": "' + b"x" * 20_000 + b'", "total_tickets": 1}'
    problem_of(
        api.post("/events", content=large, headers={"Content-Type": "application/json"}),
        413,
        "body-too-large",
    )
    problem_of(
        api.post("/events", content=iter([large]), headers={"Content-Type": "application/json"}),
        413,
        "body-too-large",
    )


def test_head_says_what_get_would(api: httpx.Client, start_worker: StartWorker) -> None:
    start_worker()
    event_id = make_event(api)
    booking_id = book(api, event_id).json()["id"]
    paths = ["/health", "/ready", "/events", f"/events/{event_id}/bookings", f"/bookings/{booking_id}"]
    for path in paths:
        head, get = api.head(path), api.get(path)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-type", "content-length"):
            assert head.headers[name] == get.headers[name]
    refused = api.put("/bookings/x")
    problem_of(refused, 405, "method-not-allowed")
    assert refused.headers["allow"] == "DELETE, GET, HEAD"


def test_a_path_is_taken_to_the_letter(api: httpx.Client, redis_client: redis.Redis) -> None:
    event_id = make_event(api)
    body = {"user_id": "ann", "ticket_count": 1}
    for path in ("/events/", f"/events/{event_id}/", "/health%0A"):
        problem_of(api.get(path), 404, "not-found")
    for end in ("/", "%0A", "%0D%0A"):
        problem_of(api.post(f"/events/{event_id}/bookings{end}", json=body), 404, "not-found")
    assert redis_client.keys("rq:*") == []


def test_a_job_is_answered_from_the_ledger_when_redis_has_forgotten_it(
    api: httpx.Client, start_worker: StartWorker, redis_client: redis.Redis
) -> None:
    start_worker()
    event_id = make_event(api, 2)
    jobs = []
    for user_id, ticket_count in (("ann", 2), ("bob", 1)):
        submitted = book(api, event_id, user_id, ticket_count, wait=None)
        jobs.append(api.get(submitted.headers["location"], headers={"Prefer": "wait=10"}).json())
    submitted = api.delete(f"/bookings/{jobs[0]['id']}")
    jobs.append(api.get(submitted.headers["location"], headers={"Prefer": "wait=10"}).json())
    assert [job["status"] for job in jobs] == ["succeeded", "rejected", "succeeded"]
    redis_client.flushdb()
    for job in jobs:
        assert api.get(f"/jobs/{job['id']}").json() == job


def test_a_job_whose_result_was_deleted_is_answered_from_the_ledger(
    api: httpx.Client, start_worker: StartWorker, redis_client: redis.Redis
) -> None:
    start_worker()
    job_id = book(api, make_event(api)).json()["id"]
    known = api.get(f"/jobs/{job_id}").json()
    redis_client.delete(f"rq:results:{job_id}")
    assert api.get(f"/jobs/{job_id}").json() == known
    assert api.get(f"/jobs/{job_id}", headers={"Prefer": "wait=10"}).json() == known


def test_positions_go_on_when_redis_has_lost_everything(
    api: httpx.Client, start_worker: StartWorker, redis_client: redis.Redis, database: Database
) -> None:
    start_worker()
    event_id = make_event(api)
    for user in range(3):
        assert book(api, event_id, f"user{user}").status_code == 201
    redis_client.flushdb()
    assert api.get(f"/events/{event_id}").json()["available_tickets"] == 7
    next_job = book(api, event_id, "next", wait=None).json()
    assert next_job["position"] == 4
    done = api.get(f"/jobs/{next_job['id']}", headers={"Prefer": "wait=10"}).json()
    assert done["status"] == "succeeded"
    assert_books_balance(database, event_id)


def test_many_clients_few_tickets_and_cancellations_keep_the_books(
    api: httpx.Client, start_worker: StartWorker, database: Database
) -> None:
    for name in ("first", "second", "third"):
        start_worker(name)
    event_id = make_event(api, 50)

    def visit(user: int) -> list[int]:
        with own_client(api) as own:
            booked = book(own, event_id, f"user{user % 150}", 1 + user % 2)
            statuses = [booked.status_code]
            if booked.status_code == 201 and user % 3 == 0:
                statuses.append(cancel(own, booked.json()["id"]).status_code)
            return statuses

    with ThreadPoolExecutor(50) as pool:
        statuses = [status for each in pool.map(visit, range(200)) for status in each]
    assert set(statuses) <= {200, 201, 400}
    assert_books_balance(database, event_id)


def test_an_event_that_only_postgresql_knows_takes_bookings(
    api: httpx.Client, start_worker: StartWorker, database: Database
) -> None:
    start_worker()
    event = create_event(database)
    assert book(api, event.id).status_code == 201


def test_health_and_readiness(api: httpx.Client) -> None:
    assert api.get("/health").json() == {"status": "ok"}
    ready = api.get("/ready")
    assert ready.status_code == 200
    assert ready.json() == {
        "status": "ready",
        "redis": "ok",
        "postgresql": "ok",
        "durability": "always",
        "durability_required": "always",
        "replicas": 0,
        "replicas_required": 0,
    }


def test_less_durability_than_required_is_not_ready(api: httpx.Client, redis_client: redis.Redis) -> None:
    redis_client.config_set("appendfsync", "everysec")
    try:
        answer = api.get("/ready")
    finally:
        redis_client.config_set("appendfsync", "always")
    assert answer.status_code == 503
    assert answer.json()["durability"] == "everysec"


def test_the_documents_are_served(api: httpx.Client) -> None:
    for path in ("/docs", "/redoc"):
        assert api.get(path).status_code == 200
    document = api.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/events",
        "/events/{event_id}",
        "/events/{event_id}/bookings",
        "/events/{event_id}/box-office",
        "/events/{event_id}/ledger",
        "/bookings/{booking_id}",
        "/events/{event_id}/webhooks",
        "/jobs/{job_id}",
        "/jobs/{job_id}/events",
        "/webhooks/{webhook_id}",
        "/webhooks/{webhook_id}/enable",
        "/webhooks/{webhook_id}/messages",
        "/webhooks/{webhook_id}/messages/{message_id}",
        "/webhooks/{webhook_id}/messages/{message_id}/redeliver",
        "/webhooks/{webhook_id}/secret",
        "/health",
        "/metrics",
        "/ready",
    }
    assert "202" in document["paths"]["/events/{event_id}/bookings"]["post"]["responses"]


def test_the_document_says_what_can_be_done_with_a_job(api: httpx.Client) -> None:
    paths = api.get("/openapi.json").json()["paths"]
    operations = {
        operation["operationId"]: operation for path in paths.values() for operation in path.values()
    }
    submit = paths["/events/{event_id}/bookings"]["post"]["responses"]["202"]
    assert {"Location", "Retry-After", "Preference-Applied", "Vary"} <= set(submit["headers"])
    for responses in (submit, operations["withdraw_job"]["responses"]["202"]):
        assert {link["operationId"] for link in responses["links"].values()} == {
            "get_job",
            "stream_job",
            "withdraw_job",
        }
        assert {str(link["parameters"]) for link in responses["links"].values()} == {
            str({"job_id": "$response.body#/id"})
        }
    read = operations["get_job"]["responses"]
    assert set(read) == {"200", "304", "401", "404", "422", "429", "503"}
    assert {"ETag", "Cache-Control", "Retry-After", "Vary"} <= set(read["200"]["headers"])
    assert set(operations["withdraw_job"]["responses"]) == {"200", "202", "401", "404", "422", "429", "503"}
    stream = operations["stream_job"]["responses"]
    assert set(stream) == {"200", "204", "401", "404", "422", "429", "503"}
    assert list(stream["200"]["content"]) == ["text/event-stream"]
    assert "event: result" in stream["200"]["content"]["text/event-stream"]["example"]
    for operation in (operations["get_job"], operations["withdraw_job"], operations["stream_job"]):
        assert "application/problem+json" in operation["responses"]["422"]["content"]
        assert "Retry-After" in operation["responses"]["503"]["headers"]
    names = {parameter["name"] for parameter in operations["get_job"]["parameters"]}
    assert names == {"job_id", "prefer", "if-none-match"}


def test_hundreds_wait_on_one_subscription(
    api: httpx.Client, start_worker: StartWorker, redis_client: redis.Redis
) -> None:
    event_id = make_event(api, 1000)
    with ThreadPoolExecutor(60) as pool:
        answers = [pool.submit(book_alone, api, event_id, f"user{i}") for i in range(60)]
        wait_until(lambda: redis_client.llen(f"rq:queue:event:{event_id}") == 60)
        assert len(redis_client.pubsub_channels("onsale:replies:*")) == 1
        start_worker()
        assert [answer.result().status_code for answer in answers] == [201] * 60


def test_a_lost_subscription_is_made_up_for(
    api: httpx.Client, start_worker: StartWorker, redis_client: redis.Redis
) -> None:
    event_id = make_event(api)
    answers: list[httpx.Response] = []
    client = threading.Thread(target=lambda: answers.append(book(api, event_id)))
    client.start()
    wait_until(lambda: redis_client.llen(f"rq:queue:event:{event_id}") == 1)
    redis_client.client_kill_filter(_type="pubsub")
    start_worker()
    client.join()
    assert answers[0].status_code == 201


def test_without_redis_a_submit_is_refused_at_once_and_nothing_is_lost(
    settings: Settings, api: httpx.Client, valkey: ValkeyServer, start_worker: StartWorker
) -> None:
    event_id = make_event(api)
    accepted = book(api, event_id, wait=None).json()
    valkey.stop()
    try:
        answer = book(api, event_id, "bob", wait=None)
        document = problem_of(answer, 503, "temporarily-unavailable")
        assert "retry-after" in answer.headers
        assert document["detail"]
        assert api.get("/health").status_code == 200
        assert api.get("/ready").status_code == 503
    finally:
        valkey.start()
    start_worker()
    job = api.get(f"/jobs/{accepted['id']}", headers={"Prefer": "wait=10"}).json()
    assert job["status"] == "succeeded"


def test_who_waits_while_redis_goes_away_is_told_that_the_command_was_accepted(
    api: httpx.Client, valkey: ValkeyServer, redis_client: redis.Redis
) -> None:
    event_id = make_event(api)
    answers: list[httpx.Response] = []
    waiting = threading.Thread(target=lambda: answers.append(book_alone(api, event_id, "ann", wait=3)))
    waiting.start()
    wait_until(lambda: redis_client.llen(f"rq:queue:event:{event_id}") == 1)
    valkey.stop()
    try:
        waiting.join()
    finally:
        valkey.start()
    assert answers[0].status_code == 202
    assert answers[0].json()["status"] == "queued"


def test_what_someone_else_publishes_ends_nobody_elses_wait(
    api: httpx.Client, start_worker: StartWorker, redis_client: redis.Redis
) -> None:
    event_id = make_event(api)
    answers: list[httpx.Response] = []
    waiting = threading.Thread(target=lambda: answers.append(book_alone(api, event_id, "ann")))
    waiting.start()
    wait_until(lambda: redis_client.llen(f"rq:queue:event:{event_id}") == 1)
    [channel] = redis_client.pubsub_channels("onsale:replies:*")
    [job_id] = redis_client.lrange(f"rq:queue:event:{event_id}", 0, 0)
    assert isinstance(job_id, bytes)
    for message in (b"", b"\xff\xfe", b"nonsense", job_id + b" nonsense"):
        redis_client.publish(channel, message)
    start_worker()
    waiting.join()
    assert answers[0].status_code == 201


@pytest.mark.parametrize(
    "content",
    [b"[" * 8_000, b'{"name": "\\ud800", "total_tickets": 1}', b'{"name": "a\\u0000", "total_tickets": 1}'],
)
def test_hostile_json_is_the_clients_fault(api: httpx.Client, content: bytes) -> None:
    answer = api.post("/events", content=content, headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"] == PROBLEM
