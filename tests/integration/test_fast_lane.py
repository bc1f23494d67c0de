"""The short way answers as the documented route does, to the letter, and as a server must."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import redis

from api import fast_lane, main
from api.fast_lane import FastLane
from api.http_protocol import HttpProtocol
from shared import limits
from shared.database.engine import Database
from shared.settings import Authentication, Settings
from tests.builders import UNKNOWN_ID, create_event, wait_until
from tests.conftest import StartWorker
from tests.serving import Serving, read_to_end, serving

JSON = {"Content-Type": "application/json"}
BOOKING = b'{"user_id": "ann", "ticket_count": 1}'


def ask_both_ways(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, request: Callable[[httpx.Client], httpx.Response]
) -> tuple[httpx.Response, httpx.Response]:
    """The answer by the short way and that of FastAPI."""
    with serving(settings) as api, monkeypatch.context() as patch:
        patch.setattr(main.Application, "__call__", nobody_books_here(main.Application.__call__))
        short = request(api.client)
    with serving(settings) as api, monkeypatch.context() as patch:
        patch.setattr(FastLane, "event_of", staticmethod(lambda _scope: None))
        patch.setattr(FastLane, "answer", None)
        return short, request(api.client)


def nobody_books_here(application: Callable[..., Any]) -> Callable[..., Any]:
    """The application, for whatever is no booking."""

    async def call(app: Any, scope: Any, receive: Any, send: Any) -> None:
        assert not scope.get("path", "").endswith("/bookings"), "FastAPI was asked"
        await application(app, scope, receive, send)

    return call


def without_what_differs_by_nature(answer: httpx.Response) -> tuple[int, dict[str, str], Any]:
    by_nature = {"location", "content-length", "date", "retry-after", "x-request-id"}
    headers = {name: "" if name in by_nature else value for name, value in answer.headers.items()}
    document = json.loads(answer.content)
    for name in ("id", "booking_id", "created_at", "updated_at", "position", "ahead"):
        document.pop(name, None)
    return answer.status_code, headers, document


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (BOOKING, JSON, 202),
        (BOOKING, {**JSON, "Idempotency-Key": ""}, 400),
        (BOOKING, {"Content-Type": "Application/JSON; charset=utf-8"}, 202),
        (BOOKING, [*JSON.items(), ("Prefer", "respond-async"), ("Prefer", "wait=1")], 202),
        (BOOKING, [*JSON.items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")], 400),
        (BOOKING, {}, 415),
        (BOOKING, {"Content-Type": "text/plain"}, 415),
        (b"", JSON, 422),
        (b"{", JSON, 422),
        (b"[]", JSON, 422),
        (b"[" * 5_000, JSON, 422),
        (b"\xff", JSON, 422),
        (b'{"user_id": "ann", "ticket_count": 3}', JSON, 422),
        (b'{"user_id": "ann", "ticket_count": 1e999}', JSON, 422),
        (b'{"user_id": "ann", "ticket_count": 1, "x": 1}', JSON, 422),
        (b'{"user_id": "ann\\u0000", "ticket_count": 1}', JSON, 422),
        (b" " * 20_000, JSON, 413),
    ],
)
def test_both_ways_give_the_same_answer(
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    headers: dict[str, str] | list[tuple[str, str]],
    status: int,
) -> None:
    event = create_event(database)

    def request(client: httpx.Client) -> httpx.Response:
        return client.post(f"/events/{event.id}/bookings", content=content, headers=headers)

    short, long = ask_both_ways(settings, monkeypatch, request)
    assert short.status_code == status
    assert without_what_differs_by_nature(short) == without_what_differs_by_nature(long)


@pytest.mark.parametrize("event_id", [UNKNOWN_ID, "not-an-id", "%20"])
def test_both_ways_know_the_same_events(
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    event_id: str,
) -> None:
    def request(client: httpx.Client) -> httpx.Response:
        return client.post(f"/events/{event_id}/bookings", content=BOOKING, headers=JSON)

    short, long = ask_both_ways(settings, monkeypatch, request)
    assert short.status_code == 404
    assert without_what_differs_by_nature(short) == without_what_differs_by_nature(long)


def test_the_document_says_what_the_short_way_takes(settings: Settings) -> None:
    document = main.create_app(settings).openapi()
    operation = document["paths"]["/events/{event_id}/bookings"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]) == {"user_id", "ticket_count"}
    assert schema["additionalProperties"] is False
    names = [parameter["name"] for parameter in operation["parameters"]]
    assert names == ["event_id", "prefer", "idempotency-key"]
    assert {"201", "202", "400", "404", "413", "415", "422", "429", "503"} <= set(operation["responses"])


@pytest.fixture
def api(
    settings: Settings, database: Database, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Serving]:
    """One in which only the short way books."""
    with serving(settings) as served:
        monkeypatch.setattr(main.Application, "__call__", nobody_books_here(main.Application.__call__))
        yield served


def booking(event_id: str, *headers: str, body: bytes = BOOKING, version: str = "1.1") -> bytes:
    lines = [f"POST /events/{event_id}/bookings HTTP/{version}", "Host: onsale", *headers]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def read_until(connection: socket.socket, mark: bytes) -> bytes:
    received = b""
    while mark not in received:
        part = connection.recv(65_536)
        assert part, f"the server hung up after {received!r}"
        received += part
    return received


def statuses(answers: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1\.1 (\d+)", answers)


def test_pipelined_bookings_get_their_places_in_the_order_in_which_they_were_sent(
    api: Serving, database: Database
) -> None:
    event = create_event(database)
    ids = ["first", "second", "third"]
    request = b"".join(booking(event.id, f"X-Request-ID: {id}") for id in ids)
    request += b"GET /health HTTP/1.1\r\nHost: onsale\r\n\r\n"
    with socket.create_connection(api.address, timeout=10) as connection:
        connection.sendall(request)
        answers = read_until(connection, b'{"status":"ok"}')
    assert statuses(answers) == [b"202", b"202", b"202", b"200"]
    assert re.findall(rb'"position":(\d+)', answers) == [b"1", b"2", b"3"]
    assert [id.decode() for id in re.findall(rb"x-request-id: (\w+)\r", answers)] == ids


@pytest.mark.parametrize(
    ("headers", "version"), [(["Connection: close"], "1.1"), ([], "1.0"), (["Connection: close"], "1.0")]
)
def test_a_connection_that_is_not_kept_ends_with_the_whole_answer(
    api: Serving, database: Database, headers: list[str], version: str
) -> None:
    event = create_event(database)
    with socket.create_connection(api.address, timeout=10) as connection:
        connection.sendall(booking(event.id, *headers, version=version))
        head, _, body = read_to_end(connection).partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in head
    assert json.loads(body)["status"] == "queued"


def test_a_body_past_its_bound_ends_the_connection(api: Serving, database: Database) -> None:
    event = create_event(database)
    with socket.create_connection(api.address, timeout=10) as connection:
        connection.sendall(booking(event.id, body=b" " * (limits.REQUEST_BODY_BYTES_MAX + 1)))
        head = read_to_end(connection).partition(b"\r\n\r\n")[0].lower()
    assert statuses(head.upper()) == [b"413"]
    assert head.count(b"connection: close") == 1


def test_a_body_may_come_in_pieces_and_after_a_question(api: Serving, database: Database) -> None:
    event = create_event(database)
    head, body = booking(event.id, "Expect: 100-continue").split(b"\r\n\r\n")
    with socket.create_connection(api.address, timeout=10) as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert statuses(read_until(connection, b"\r\n\r\n")) == [b"100"]
        connection.sendall(body[:7])
        connection.sendall(body[7:])
        assert statuses(read_until(connection, b"}")) == [b"202"]


def test_who_hangs_up_before_the_end_has_not_booked(
    api: Serving, database: Database, redis_client: redis.Redis
) -> None:
    event = create_event(database)
    with socket.create_connection(api.address, timeout=10) as connection:
        connection.sendall(booking(event.id, body=BOOKING + b" " * 5)[:-5])
    assert api.client.post(f"/events/{event.id}/bookings", content=BOOKING, headers=JSON).status_code == 202
    assert redis_client.llen(f"onsale:order:{event.id}") == 1


def test_who_hangs_up_after_the_end_has_booked(
    api: Serving, database: Database, redis_client: redis.Redis
) -> None:
    event = create_event(database)
    with socket.create_connection(api.address, timeout=10) as connection:
        connection.sendall(booking(event.id))
    wait_until(lambda: redis_client.llen(f"onsale:order:{event.id}") == 1)
    assert api.client.get("/health").status_code == 200


def test_a_defect_is_answered_and_logged(
    api: Serving,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    event = create_event(database)

    async def break_down(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(fast_lane, "submit_booking", break_down)
    answer = api.client.post(f"/events/{event.id}/bookings", content=BOOKING, headers=JSON)
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "a defect" in caplog.text


@pytest.mark.parametrize("header", ["a\r\nset-cookie: b", "a\nb", "a\rb"])
def test_a_defect_of_the_lane_itself_is_answered_too_and_ends_the_connection(
    api: Serving,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    header: str,
) -> None:
    event = create_event(database)
    broken = [(b"x-broken", header.encode())]
    with monkeypatch.context() as patch:
        patch.setattr(fast_lane, "security_headers", lambda _headers: broken)
        answer = api.client.post(f"/events/{event.id}/bookings", content=BOOKING, headers=JSON)
    assert (answer.status_code, answer.headers["connection"]) == (500, "close")
    assert "x-broken" not in answer.headers
    assert "a header has a line break" in caplog.text


def test_who_is_cancelled_is_answered_as_by_uvicorn(
    api: Serving, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = create_event(database)

    async def cancel(*_: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(fast_lane, "submit_booking", cancel)
    answer = api.client.post(f"/events/{event.id}/bookings", content=BOOKING, headers=JSON)
    assert (answer.status_code, answer.headers["connection"]) == (500, "close")


def test_a_connection_that_has_ended_is_forgotten_at_once(api: Serving, database: Database) -> None:
    event = create_event(database)

    def connections() -> int:
        return sum(isinstance(each, HttpProtocol) for each in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = connections()
        for _ in range(20):
            with socket.create_connection(api.address, timeout=10) as connection:
                connection.sendall(booking(event.id))
                read_until(connection, b"}")
        wait_until(lambda: connections() <= before)
    finally:
        gc.enable()


def test_a_body_that_is_announced_too_long_is_refused_before_it_comes(
    api: Serving, database: Database
) -> None:
    event = create_event(database)
    head = booking(event.id, "Expect: 100-continue").partition(b"Content-Length")[0]
    with socket.create_connection(api.address, timeout=10) as connection:
        connection.sendall(head + b"Content-Length: 200000\r\n\r\n")
        assert statuses(read_to_end(connection)) == [b"413"]


def test_what_is_too_much_for_the_server_is_refused_by_it(
    settings: Settings, database: Database, redis_client: redis.Redis
) -> None:
    event = create_event(database)
    with serving(settings, limit_concurrency=1) as api:
        answer = api.client.post(f"/events/{event.id}/bookings", content=BOOKING, headers=JSON)
    assert (answer.status_code, answer.text) == (503, "Service Unavailable")
    assert redis_client.llen(f"onsale:order:{event.id}") == 0


def test_without_a_login_both_ways_refuse(
    settings: Settings, database: Database, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = create_event(database)
    secured = settings.model_copy(update={"auth": Authentication.REQUIRED})

    def request(client: httpx.Client) -> httpx.Response:
        return client.post(f"/events/{event.id}/bookings", content=BOOKING, headers=JSON)

    short, long = ask_both_ways(secured, monkeypatch, request)
    assert short.status_code == 401
    assert without_what_differs_by_nature(short) == without_what_differs_by_nature(long)


def test_both_ways_wait_for_the_result_and_know_what_comes_again(
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    start_worker: StartWorker,
) -> None:
    start_worker()
    event = create_event(database)
    keys = iter(["one", "other"])

    def request(client: httpx.Client) -> httpx.Response:
        headers = {**JSON, "Prefer": "wait=10", "Idempotency-Key": next(keys)}
        path = f"/events/{event.id}/bookings"
        first, again = (client.post(path, content=BOOKING, headers=headers) for _ in range(2))
        assert (again.status_code, again.content) == (first.status_code, first.content)
        return first

    short, long = ask_both_ways(settings, monkeypatch, request)
    assert short.status_code == 201
    assert without_what_differs_by_nature(short) == without_what_differs_by_nature(long)


def test_what_is_logged_of_accesses_has_the_bookings(
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    capsys: pytest.CaptureFixture[str],
) -> None:
    event = create_event(database)
    path = f"/events/{event.id}/bookings"
    with serving(settings, access_log=True) as api:
        api.client.post(path, content=BOOKING, headers=JSON)
    assert f'"POST {path} HTTP/1.1" 202' in capsys.readouterr().out


def test_it_is_counted_under_the_route_and_the_status(api: Serving, database: Database) -> None:
    event = create_event(database)
    name = 'onsale_http_request_seconds_count{method="POST",route="/events/{event_id}/bookings",status="2xx"}'

    def counted() -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", api.client.get("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    before = counted()
    api.client.post(f"/events/{event.id}/bookings", content=BOOKING, headers=JSON)
    assert counted() == before + 1
