"""Clients that are slow, silent or send too much, over a socket: each is refused, and others are served."""

from __future__ import annotations

import gc
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import pytest
import redis

from api.http_protocol import HttpProtocol
from shared import limits
from shared.database.engine import Database
from shared.settings import Settings
from tests.builders import create_event, wait_until
from tests.serving import ONE_WRITE, Serving, read_to_end, serving

HEAD = b"GET /health HTTP/1.1\r\nHost: onsale\r\n"


@pytest.fixture
def served(settings: Settings, database: Database, redis_client: redis.Redis) -> Iterator[Serving]:
    with serving(settings, http=ONE_WRITE) as served:
        yield served


def answer_to(address: tuple[str, int], *parts: bytes) -> tuple[int, dict[str, object]]:
    """Send these, and read until the server hangs up: the last answer's status and body."""
    with socket.create_connection(address, timeout=20) as connection:
        for part in parts:
            try:
                connection.sendall(part)
            except OSError:
                # It has hung up already, as it may.
                break
        received = read_to_end(connection, may_be_reset=True)
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head.lower(), received[:300]
    return int(head.split()[1]), json.loads(body)


def is_well(served: Serving) -> bool:
    return httpx.get(f"http://127.0.0.1:{served.address[1]}/health").status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        HEAD,
        b"GET /health HT",
        b"POST /events HTTP/1.1\r\nHost: onsale\r\nContent-Length: 100\r\n\r\n{",
        b"POST /events/x/bookings HTTP/1.1\r\nHost: onsale\r\nContent-Length: 100\r\n\r\n{",
        HEAD + b"\r\n" + b"GET /health HT",
    ],
    ids=["silent", "endless head", "cut request line", "endless body", "endless booking", "second request"],
)
def test_a_request_that_does_not_become_whole_is_given_up(
    served: Serving, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(limits, "REQUEST_SECONDS_MAX", 0.3)
    with socket.create_connection(served.address, timeout=20) as connection:
        connection.sendall(sent)
        received = read_to_end(connection)
    assert b"HTTP/1.1 408 Request Timeout\r\n" in received
    assert b'"type":"request-too-slow"' in received
    assert is_well(served)


def test_bytes_that_drip_don_t_win_more_time(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REQUEST_SECONDS_MAX", 0.5)
    with socket.create_connection(served.address, timeout=20) as connection:
        connection.sendall(HEAD)

        def is_hung_up() -> bool:
            try:
                connection.sendall(b"X: y\r\n")
            except OSError:
                return True
            return False

        wait_until(is_hung_up)
    assert is_well(served)


def test_who_waits_for_a_result_is_not_taken_for_slow(
    served: Serving, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REQUEST_SECONDS_MAX", 0.2)
    event = create_event(database)
    answer = served.client.post(
        f"/events/{event.id}/bookings",
        json={"user_id": "ann", "ticket_count": 1},
        headers={"Prefer": "wait=1"},
    )
    assert answer.status_code == 202


def any_request_has_begun(served: Serving) -> bool:
    """Whether the head of a request is there whose body is waited for."""
    protocols = [each for each in gc.get_objects() if isinstance(each, HttpProtocol)]
    return any(each.cycle and each.cycle.more_body and not each._is_lost for each in protocols)


def booking(event_id: str, user_id: str, **headers: str) -> tuple[bytes, bytes]:
    """Head and body of a request."""
    body = json.dumps({"user_id": user_id, "ticket_count": 1}).encode()
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = (
        f"POST /events/{event_id}/bookings HTTP/1.1\r\nHost: onsale\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{more}\r\n"
    )
    return head.encode(), body


def test_what_comes_behind_a_request_that_is_answered_is_not_taken_for_slow(
    served: Serving, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REQUEST_SECONDS_MAX", 0.3)
    event = create_event(database)
    first, second = booking(event.id, "ann", Prefer="wait=1"), booking(event.id, "bob", Connection="close")
    with socket.create_connection(served.address, timeout=20) as connection:
        # The server reads no further than the second head until it has answered the first.
        connection.sendall(b"".join(first) + second[0])
        wait_until(lambda: served.context.waiters.taken)
        connection.sendall(second[1])
        received = read_to_end(connection)
    assert received.count(b"HTTP/1.1 202 Accepted\r\n") == 2
    assert received.count(b"HTTP/1.1") == 2


@pytest.mark.parametrize(
    "behind",
    [b"NO HTTP\r\n\r\n", b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n"],
    ids=["no HTTP", "too many headers"],
)
@pytest.mark.parametrize("wait", [b"1", b"0"])
def test_a_request_that_is_refused_does_not_take_the_answer_of_the_one_before_it(
    served: Serving, database: Database, behind: bytes, wait: bytes
) -> None:
    event = create_event(database)
    with socket.create_connection(served.address, timeout=20) as connection:
        connection.sendall(b"".join(booking(event.id, "ann", Prefer=f"wait={wait.decode()}")) + behind)
        received = read_to_end(connection)
    assert received.startswith(b"HTTP/1.1 202 Accepted\r\n")
    assert is_well(served)


@pytest.mark.parametrize("behind", [b"", HEAD + b"\r\n"], ids=["alone", "with another request behind it"])
def test_a_stream_ends_when_its_client_hangs_up(
    settings: Settings, database: Database, redis_client: redis.Redis, behind: bytes
) -> None:
    with serving(settings, http=ONE_WRITE, stream_heartbeat_seconds=0.1) as served:
        event = create_event(database)
        job = served.client.post(
            f"/events/{event.id}/bookings", json={"user_id": "ann", "ticket_count": 1}
        ).json()
        with socket.create_connection(served.address, timeout=20) as connection:
            stream = f"GET /jobs/{job['id']}/events HTTP/1.1\r\nHost: onsale\r\n\r\n"
            connection.sendall(stream.encode() + behind)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200 OK\r\n")
            wait_until(lambda: served.context.streams.taken == 1)
        wait_until(lambda: served.context.streams.taken == 0)


def test_who_leaves_answers_unread_is_left(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UNREAD_SECONDS_MAX", 0.3)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.connect(served.address)
        connection.settimeout(20)

        def is_left() -> bool:
            try:
                connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: onsale\r\n\r\n")
            except OSError:
                return True
            return False

        wait_until(is_left)
    assert is_well(served)


def test_a_head_that_is_too_long_is_refused(served: Serving) -> None:
    endless = b"X-Long: " + b"x" * (limits.REQUEST_HEAD_BYTES_MAX + 1)
    status, document = answer_to(served.address, HEAD, endless)
    assert (status, document["type"]) == (431, "head-too-large")
    assert is_well(served)


def test_a_head_that_is_too_long_is_refused_also_if_it_comes_whole(served: Serving) -> None:
    long = b"x" * (limits.REQUEST_HEAD_BYTES_MAX + 1)
    for request in (HEAD + b"X-Long: " + long + b"\r\n\r\n", b"GET /" + long + b" HTTP/1.1\r\n\r\n"):
        # Behind another it does not take the answer of that, which is then the last.
        for before, status in ((b"", b"431"), (HEAD + b"\r\n", b"200")):
            with socket.create_connection(served.address, timeout=20) as connection:
                connection.sendall(before + request)
                received = read_to_end(connection, may_be_reset=True)
            assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [status]
    assert is_well(served)


def test_what_comes_behind_a_request_that_is_refused_is_not_done(
    served: Serving, database: Database, redis_client: redis.Redis
) -> None:
    event = create_event(database)
    waiting = served.client.post(f"/events/{event.id}/bookings", json={"user_id": "ann", "ticket_count": 1})
    many = b"".join(b"X-%d: y\r\n" % number for number in range(limits.REQUEST_HEADERS_MAX + 1))
    behind = f"DELETE /bookings/{waiting.json()['id']} HTTP/1.1\r\nHost: onsale\r\n\r\n".encode()
    status, _ = answer_to(served.address, b"GET /health HTTP/1.1\r\n" + many + b"\r\n" + behind)
    assert status == 431
    assert served.client.get(f"/events/{event.id}").status_code == 200
    assert redis_client.llen(f"onsale:order:{event.id}") == 1


@pytest.mark.parametrize("connection_header", ["Upgrade, HTTP2-Settings", "close, Upgrade"])
@pytest.mark.parametrize("offer", ["h2c", "websocket"])
def test_an_offer_to_speak_something_else_is_declined_and_the_request_answered(
    served: Serving, database: Database, redis_client: redis.Redis, offer: str, connection_header: str
) -> None:
    event = create_event(database)
    inner = b"GET /events HTTP/1.1\r\nHost: inner\r\n\r\n"
    head, body = booking(
        event.id, "ann", Connection=connection_header, Upgrade=offer, **{"HTTP2-Settings": "AAMAAABkAAQ"}
    )
    last = b"GET /health HTTP/1.1\r\nHost: onsale\r\nConnection: close, Upgrade\r\nUpgrade: h2c\r\n\r\n"
    # Also a body that looks like a request is a body: it must not be answered by itself.
    disguised = head.replace(b"Content-Length: %d" % len(body), b"Content-Length: %d" % len(inner)) + inner
    for whole, status in ((head + body, b"202"), (disguised, b"422")):
        for parts in ((whole,), (whole[: len(head)], whole[len(head) :])):
            with socket.create_connection(served.address, timeout=20) as connection:
                for part in parts[:-1]:
                    connection.sendall(part)
                    wait_until(lambda: any_request_has_begun(served))
                connection.sendall(parts[-1] + last)
                received = read_to_end(connection, may_be_reset=True)
            expected = [status] if connection_header.startswith("close") else [status, b"200"]
            assert re.findall(rb"HTTP/1\.1 (\d+)", received) == expected, received
    assert redis_client.llen(f"onsale:order:{event.id}") == 2


def test_a_body_in_chunks_comes_with_an_offer_too(served: Serving, database: Database) -> None:
    event = create_event(database)
    head, body = booking(event.id, "ann", Connection="Upgrade", Upgrade="h2c")
    chunked = head.replace(b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked")
    with socket.create_connection(served.address, timeout=20) as connection:
        connection.sendall(chunked + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        connection.sendall(HEAD + b"Connection: close\r\n\r\n")
        received = read_to_end(connection, may_be_reset=True)
    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [b"202", b"200"]


def test_behind_a_request_to_connect_nothing_is_read(served: Serving) -> None:
    with socket.create_connection(served.address, timeout=20) as connection:
        connection.sendall(b"CONNECT /health HTTP/1.1\r\nHost: onsale\r\n\r\n")
        received = connection.recv(65_536)
        with suppress(OSError):
            connection.sendall(HEAD + b"\r\n")
        received += read_to_end(connection, may_be_reset=True)
    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [b"405"]


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_curl_may_offer_http2(served: Serving, database: Database) -> None:
    event = create_event(database)
    address = f"http://127.0.0.1:{served.address[1]}/events/{event.id}"
    curl = ["curl", "-s", "--http2", "-o", "/dev/null", "-w", "%{http_code}"]
    book = ["-H", "Content-Type: application/json", "-d", '{"user_id": "ann", "ticket_count": 1}']
    for arguments, status in (([address], "200"), ([*book, f"{address}/bookings"], "202")):
        finished = subprocess.run([*curl, *arguments], capture_output=True, text=True, timeout=20)
        assert finished.stdout == status


def test_a_connection_that_is_refused_is_answered_with_the_headers_of_all_answers(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_connection(served.address, timeout=20) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        not_http = read_to_end(connection, may_be_reset=True)
    monkeypatch.setattr(limits, "CONNECTIONS_MAX", 0)
    with socket.create_connection(served.address, timeout=20) as connection:
        too_many = read_to_end(connection, may_be_reset=True)
    for answer in (not_http, too_many):
        for name in (b"x-request-id", b"x-content-type-options", b"content-security-policy", b"date"):
            assert b"\r\n%b: " % name in answer, answer
    assert b"\r\nretry-after: " in too_many
    assert b"\r\nretry-after: " not in not_http


def test_too_many_headers_are_refused(served: Serving) -> None:
    many = b"".join(b"X-%d: y\r\n" % number for number in range(limits.REQUEST_HEADERS_MAX + 1))
    for method in (b"GET /health", b"POST /events/x/bookings"):
        status, document = answer_to(
            served.address, method + b" HTTP/1.1\r\n" + many + b"Content-Length: 2\r\n\r\n{}"
        )
        assert (status, document["type"]) == (431, "head-too-large")
    assert is_well(served)


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00\x01", b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"]
)
def test_what_is_not_http_is_told_so(served: Serving, sent: bytes) -> None:
    status, document = answer_to(served.address, sent)
    assert (status, document["type"]) == (400, "not-http")
    assert is_well(served)


def test_an_address_that_is_not_ascii_is_told_how_to_be_written(served: Serving) -> None:
    status, document = answer_to(served.address, "GET /events?cursor=ä HTTP/1.1\r\n\r\n".encode())
    assert (status, document["type"]) == (400, "not-http")
    assert "percent-encode" in str(document["detail"])


def test_past_the_bound_of_connections_a_new_one_is_refused(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CONNECTIONS_MAX", 5)
    with ExitStack() as held:
        for _ in range(10):
            held.enter_context(socket.create_connection(served.address, timeout=20))
        status, document = answer_to(served.address, HEAD + b"\r\n")
        assert (status, document["type"]) == (503, "temporarily-unavailable")

    def answers_again() -> bool:
        try:
            return is_well(served)
        except httpx.TransportError:
            return False

    wait_until(answers_again)


def test_a_thousand_pipelined_requests_are_answered_in_order(served: Serving) -> None:
    count = 1_000
    with socket.create_connection(served.address, timeout=20) as connection:
        connection.sendall((HEAD + b"\r\n") * count)
        received = b""
        while received.count(b'{"status":"ok"}') < count:
            part = connection.recv(65_536)
            assert part
            received += part
    assert received.count(b"HTTP/1.1 200 OK") == count


def test_who_hangs_up_in_the_middle_of_a_body_is_not_our_error(
    served: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(served.address, timeout=20) as connection:
        connection.sendall(
            b"POST /events HTTP/1.1\r\nHost: onsale\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        wait_until(lambda: any_request_has_begun(served))
    wait_until(lambda: not any_request_has_begun(served))
    assert is_well(served)
    assert "unexpected error" not in caplog.text


@pytest.mark.parametrize(
    "body",
    [
        b'{"user_id": "\xff", "ticket_count": 1}',
        b'{"user_id": "\\ud800", "ticket_count": 1}',
        b'{"user_id": "ann", "ticket_count": 1e400}',
        b'{"user_id": "ann", "ticket_count": NaN}',
        b'{"user_id": "ann", "ticket_count": ' + b"9" * 6_000 + b"}",
        b'{"user_id": "ann", "ticket_count": 1.5}',
        b'{"user_id": ' + b"[" * 7_000 + b"]" * 7_000 + b', "ticket_count": 1}',
        b'{"user_id": "ann", "ticket_count": 1, "seat": "A1"}',
        b'{"user_id": "ann\\u0000", "ticket_count": 1}',
        b'{"user_id": "ann"',
        b"",
        b"null",
    ],
    ids=range(12),
)
def test_a_body_that_can_not_be_taken_names_what_is_wrong(
    served: Serving, database: Database, body: bytes
) -> None:
    event = create_event(database)
    for path in (f"/events/{event.id}/bookings", "/events"):
        json_body = body.replace(b"user_id", b"name").replace(b"ticket_count", b"total_tickets")
        answer = served.client.post(
            path,
            content=body if path != "/events" else json_body,
            headers={"Content-Type": "application/json"},
        )
        assert (answer.status_code, answer.json()["type"]) == (422, "invalid-request"), answer.text
        assert answer.json()["errors"]


@pytest.mark.parametrize("path", ["/events/%ff", "/jobs/%00", "/events?cursor=%ff", "/bookings/%ed%a0%80"])
def test_paths_and_queries_that_are_no_text_are_refused(served: Serving, path: str) -> None:
    assert served.client.get(path).status_code in (404, 422)


def test_answers_tell_browsers_what_not_to_do(served: Serving, database: Database) -> None:
    event = create_event(database)
    answers = [
        served.client.get("/health"),
        served.client.get("/nowhere"),
        served.client.post(f"/events/{event.id}/bookings", json={"user_id": "ann", "ticket_count": 1}),
    ]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
    assert served.client.get(f"/events/{event.id}").headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_pages_of_the_guide_run_known_scripts_only(served: Serving, path: str) -> None:
    answer = served.client.get(path)
    policy = answer.headers["content-security-policy"]
    scripts = policy.partition("script-src ")[2].partition(";")[0]
    assert "unsafe" not in scripts
    if "<script>" in answer.text:
        assert "'sha256-" in scripts
