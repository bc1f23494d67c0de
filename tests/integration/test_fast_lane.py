"""The short way answers as the documented route does, to the letter, and as a server must."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import Context
from typing import Any

import httpx
import pytest
import redis

from api import fast_lane, main
from api.fast_lane import FastLane
from api.http_protocol import HttpProtocol
from api.watch import Watch
from shared import limits
from shared.database.engine import Database
from shared.errors import LineUnavailable
from shared.line.producer import Submission
from shared.log import TextFormatter
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
    if document.get("estimated_wait_seconds") is not None:
        document["estimated_wait_seconds"] = "some"
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


def test_a_long_pipeline_of_refusals_is_answered_to_its_end(api: Serving, database: Database) -> None:
    event = create_event(database)
    refused = booking(event.id, body=b"{}")
    count = 2 * sys.getrecursionlimit()
    with socket.create_connection(api.address, timeout=20) as connection:
        sender = threading.Thread(target=connection.sendall, args=(booking(event.id) + refused * count,))
        sender.start()
        answers = b""
        while len(statuses(answers)) <= count:
            part = connection.recv(2**20)
            assert part
            answers += part
        sender.join()
    assert statuses(answers) == [b"202"] + [b"422"] * count


def place_of_another(api: Serving, event_id: str) -> int:
    """The place that a booking gets now; after the first, Redis knows the event."""
    answer = api.client.post(f"/events/{event_id}/bookings", content=BOOKING, headers=JSON)
    place: int = answer.json()["position"]
    return place


@pytest.mark.parametrize("behind", ["booking", "cancellation"])
def test_what_comes_behind_an_answer_that_ends_the_connection_is_not_done(
    api: Serving, database: Database, monkeypatch: pytest.MonkeyPatch, behind: str
) -> None:
    asked_of_application: list[str] = []
    application = main.Application.__call__

    async def remember(app: Any, scope: Any, receive: Any, send: Any) -> None:
        asked_of_application.append(scope["method"])
        await application(app, scope, receive, send)

    monkeypatch.setattr(main.Application, "__call__", remember)
    event = create_event(database)
    first = api.client.post(f"/events/{event.id}/bookings", content=BOOKING, headers=JSON).json()
    cancellation = f"DELETE /bookings/{first['booking_id']} HTTP/1.1\r\nHost: onsale\r\n\r\n".encode()
    too_long = booking(event.id, body=b" " * (limits.REQUEST_BODY_BYTES_MAX + 1))
    with socket.create_connection(api.address, timeout=10) as connection:
        connection.sendall(too_long + (booking(event.id) if behind == "booking" else cancellation))
        assert statuses(read_to_end(connection, may_be_reset=True)) == [b"413"]
    assert place_of_another(api, event.id) == 2
    assert asked_of_application == []


@pytest.mark.parametrize(
    ("prefer", "is_redis_away", "status"),
    [
        ({}, False, 202),
        ({}, True, 202),
        ({"Prefer": "wait=1"}, False, 201),
        ({"Prefer": "wait=1"}, True, 202),
    ],
)
def test_a_booking_that_the_line_knows_already_is_told_as_it_is(
    api: Serving,
    database: Database,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    prefer: dict[str, str],
    is_redis_away: bool,
    status: int,
) -> None:
    """As where an answer of Redis was lost, and it was asked again. It was accepted, whoever is away then."""
    start_worker()
    event = create_event(database)
    assert place_of_another(api, event.id) == 1
    producer = api.context.producer
    submit_then = producer.submit_then
    asking = []

    async def ask_again_when_done(submitted: Submission, tell: Callable[[Any], None]) -> None:
        await producer.submit(submitted)
        while (job := await producer.read_job(submitted.job_id)) is None or job.result is None:
            await asyncio.sleep(0.01)
        if is_redis_away:
            monkeypatch.setattr(producer, "submit", be_away)
            monkeypatch.setattr(producer, "read_job", be_away)
        submit_then(submitted, tell)

    async def be_away(*_: Any, **__: Any) -> None:
        raise LineUnavailable("away")

    def ask_twice(submitted: Submission, tell: Callable[[Any], None]) -> None:
        asking.append(asyncio.ensure_future(ask_again_when_done(submitted, tell)))

    monkeypatch.setattr(producer, "submit_then", ask_twice)
    answer = api.client.post(f"/events/{event.id}/bookings", content=BOOKING, headers={**JSON, **prefer})
    assert answer.status_code == status
    document = answer.json()
    if status == 202:
        assert (document["position"], document["done"]) == (2, not is_redis_away)
    assert api.context.waiters.taken == api.context.replies.waiting == 0


@pytest.mark.parametrize(("body", "status"), [(BOOKING, b"202"), (b"{}", b"422"), (b" " * 20_000, b"413")])
def test_a_booking_waits_while_earlier_answers_are_left_unread(
    api: Serving,
    database: Database,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    body: bytes,
    status: bytes,
) -> None:
    """Or answers would pile up without a bound."""
    event = create_event(database)
    assert place_of_another(api, event.id) == 1
    connected: list[HttpProtocol] = []
    made = HttpProtocol.connection_made

    def remember(protocol: HttpProtocol, transport: asyncio.Transport) -> None:
        made(protocol, transport)
        connected.append(protocol)

    monkeypatch.setattr(HttpProtocol, "connection_made", remember)
    with socket.create_connection(api.address, timeout=10) as connection:
        wait_until(lambda: len(connected) == 1)
        loop = connected[0].loop
        loop.call_soon_threadsafe(connected[0].pause_writing)
        wait_until(lambda: connected[0].flow.write_paused)
        connection.sendall(booking(event.id, body=body))
        wait_until(lambda: len(connected[0].tasks) == 1)
        assert redis_client.llen(f"onsale:order:{event.id}") == 1
        loop.call_soon_threadsafe(connected[0].resume_writing)
        assert statuses(read_until(connection, b"}")) == [status]


def test_a_connection_on_which_a_booking_was_refused_before_it_was_whole_does_not_stay_for_ever(
    settings: Settings, database: Database, redis_client: redis.Redis
) -> None:
    event = create_event(database)
    head, body = booking(event.id).split(b"\r\n\r\n")
    with serving(settings.model_copy(update={"auth": Authentication.REQUIRED})) as api:
        with socket.create_connection(api.address, timeout=20) as connection:
            connection.sendall(head + b"\r\n\r\n")
            assert statuses(read_until(connection, b"}")) == [b"401"]
            connection.sendall(body)
            assert read_to_end(connection) == b""


def test_what_is_logged_of_a_booking_names_its_request_and_nothing_else_does(
    api: Serving, database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    event = create_event(database)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler := logging.StreamHandler(sys.stdout)])
    handler.setFormatter(TextFormatter())

    def be_away(_booking: Submission, tell: Callable[[Exception], None]) -> None:
        asyncio.get_running_loop().call_soon(tell, LineUnavailable("away"), context=Context())

    monkeypatch.setattr(api.context.producer, "submit_then", be_away)
    with socket.create_connection(api.address, timeout=10) as connection:
        connection.sendall(booking(event.id, "X-Request-ID: mine"))
        assert statuses(read_until(connection, b"}")) == [b"503"]
        connection.sendall(b"nonsense\r\n\r\n")
        read_to_end(connection)
    lines = capsys.readouterr().out.splitlines()
    [of_booking] = [line for line in lines if "temporarily unavailable" in line]
    [of_nonsense] = [line for line in lines if "what came is no HTTP" in line]
    assert "request_id=mine" in of_booking
    assert "request_id" not in of_nonsense


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


@pytest.mark.parametrize("headers", [[], ["X-Request-ID: mine"], ["Prefer: respond-async"]])
def test_a_body_may_come_in_pieces(
    api: Serving, database: Database, redis_client: redis.Redis, headers: list[str]
) -> None:
    event = create_event(database)
    assert place_of_another(api, event.id) == 1
    head, body = booking(event.id, *headers).split(b"\r\n\r\n")
    with socket.create_connection(api.address, timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in (head[:9], head[9:] + b"\r\n\r\n", body[:7], body[7:]):
            connection.sendall(part)
            assert api.client.get("/health").status_code == 200
        answer = read_until(connection, b"}")
    assert statuses(answer) == [b"202"]
    assert b'"position":2' in answer
    [job_id] = re.findall(rb"location: /jobs/(\S+)", answer)
    carried = b"mine" if "X-Request-ID: mine" in headers else None
    assert redis_client.hget(f"rq:job:{job_id.decode()}", "trace") == carried


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


def break_down(*_: object) -> None:
    raise RuntimeError("a defect")


@pytest.mark.parametrize(
    ("part", "is_known", "headers"),
    [
        ("plain_booking", True, {}),
        ("place_given", True, {}),
        ("place_found", False, {}),
        ("result_awaited", True, {"Prefer": "wait=1"}),
        ("submit_booking", True, {"Idempotency-Key": "a"}),
    ],
)
def test_a_defect_is_answered_and_logged(
    api: Serving,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    part: str,
    is_known: bool,
    headers: dict[str, str],
) -> None:
    event = create_event(database)
    path = f"/events/{event.id}/bookings"
    if is_known:
        assert api.client.post(path, content=BOOKING, headers=JSON).status_code == 202
    monkeypatch.setattr(fast_lane, part, break_down)
    answer = api.client.post(path, content=BOOKING, headers={**JSON, **headers})
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "a defect" in caplog.text


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "a"}], ids=["at once", "in a task"])
@pytest.mark.parametrize("header", ["a\r\nset-cookie: b", "a\nb", "a\rb"])
def test_a_defect_of_the_lane_itself_is_answered_too_and_ends_the_connection(
    api: Serving,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    header: str,
    key: dict[str, str],
) -> None:
    event = create_event(database)
    broken = (b"x-broken", header.encode())
    with monkeypatch.context() as patch:
        patch.setattr(Watch, "answered", lambda _watch, _status: broken)
        headers = {**JSON, **key}
        answer = api.client.post(f"/events/{event.id}/bookings", content=BOOKING, headers=headers)
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
    headers = {**JSON, "Idempotency-Key": "a"}
    answer = api.client.post(f"/events/{event.id}/bookings", content=BOOKING, headers=headers)
    assert (answer.status_code, answer.headers["connection"]) == (500, "close")


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_connection_that_has_ended_is_forgotten_at_once(
    api: Serving, database: Database, is_whole: bool
) -> None:
    event = create_event(database)

    def connections() -> int:
        return sum(isinstance(each, HttpProtocol) for each in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = connections()
        for _ in range(20):
            with socket.create_connection(api.address, timeout=10) as connection:
                if is_whole:
                    connection.sendall(booking(event.id))
                    read_until(connection, b"}")
                else:
                    connection.sendall(booking(event.id)[:-5])
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


@pytest.mark.parametrize("breaks_at_once", [False, True])
def test_a_defect_behind_a_wait_is_answered_too(
    api: Serving,
    database: Database,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    breaks_at_once: bool,
) -> None:
    start_worker()
    event = create_event(database)
    assert place_of_another(api, event.id) == 1
    if breaks_at_once:
        monkeypatch.setattr(api.context.producer, "submit_then", break_down)
    else:
        monkeypatch.setattr(fast_lane, "result_given", break_down)
    headers = {**JSON, "Prefer": "wait=10"}
    answer = api.client.post(f"/events/{event.id}/bookings", content=BOOKING, headers=headers)
    assert answer.status_code == 500
    assert api.context.waiters.taken == api.context.replies.waiting == 0


def test_a_redis_that_has_forgotten_the_script_is_told_it_again(
    api: Serving, database: Database, redis_client: redis.Redis
) -> None:
    event = create_event(database)
    for position in (1, 2):
        assert place_of_another(api, event.id) == position
        redis_client.script_flush()


def test_a_booking_that_was_on_its_way_when_the_connection_was_lost_is_sent_again(
    api: Serving, database: Database, redis_client: redis.Redis
) -> None:
    event = create_event(database)
    assert place_of_another(api, event.id) == 1
    redis_client.client_pause(60_000, all=False)
    try:
        with socket.create_connection(api.address, timeout=10) as connection:
            connection.sendall(booking(event.id))
            conversation = api.context.producer._link._conversation
            assert conversation is not None
            wait_until(lambda: conversation._waiting)
            redis_client.client_kill_filter(_type="normal", skipme=True)
            wait_until(lambda: conversation.is_lost)
            redis_client.client_unpause()
            assert statuses(read_until(connection, b"}")) == [b"202"]
    finally:
        redis_client.client_unpause()
    assert redis_client.llen(f"onsale:order:{event.id}") == 2


@pytest.mark.parametrize("is_known", [True, False])
def test_both_ways_wait_alike(
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    start_worker: StartWorker,
    is_known: bool,
) -> None:
    """Booked, refused by the rules, and when the client's time is up; also where Redis knows no event."""
    worker = start_worker()
    event = create_event(database)

    def request(client: httpx.Client) -> httpx.Response:
        if is_known:
            assert client.get(f"/events/{event.id}").status_code == 200
        elif wait == "wait=10":
            redis_client.delete(f"onsale:event:{event.id}")
        headers = {**JSON, "Prefer": wait}
        return client.post(f"/events/{event.id}/bookings", content=BOOKING, headers=headers)

    statuses: list[int] = []
    wait = "wait=10"
    while len(statuses) < 3:
        if len(statuses) == 2:
            worker.stop()
            wait = "wait=1"
        short, long = ask_both_ways(settings, monkeypatch, request)
        statuses.append(short.status_code)
        assert without_what_differs_by_nature(short) == without_what_differs_by_nature(long)
    assert statuses == [201, 400, 202]


def test_a_result_that_comes_before_the_place_is_not_missed(
    api: Serving, database: Database, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come over connections of their own."""
    start_worker()
    event = create_event(database)
    assert place_of_another(api, event.id) == 1
    producer, replies = api.context.producer, api.context.replies
    submit_then = producer.submit_then
    told_late: list[int] = []

    def submit_and_tell_late(submitted: Submission, tell: Callable[[Any], None]) -> None:
        [reply] = replies._waiting[submitted.job_id]

        def tell_late(told: Any) -> None:
            told_late.append(told.position)
            reply.add_done_callback(lambda _reply: tell(told))

        submit_then(submitted, tell_late)

    monkeypatch.setattr(producer, "submit_then", submit_and_tell_late)
    headers = {**JSON, "Prefer": "wait=20"}
    answer = api.client.post(f"/events/{event.id}/bookings", content=BOOKING, headers=headers)
    assert (answer.status_code, told_late) == (201, [2])


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
