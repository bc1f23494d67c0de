"""Answers that are written in one go: whole, in order, and also to who hangs up."""

from __future__ import annotations

import gc
import re
import socket
from collections.abc import Iterator

import pytest
import redis

from api.http_protocol import HttpProtocol
from shared.database.engine import Database
from shared.settings import Settings
from tests.serving import ONE_WRITE, read_to_end, serving

HEALTHY = b'{"status":"ok"}'


@pytest.fixture
def address(settings: Settings, database: Database, redis_client: redis.Redis) -> Iterator[tuple[str, int]]:
    with serving(settings, http=ONE_WRITE) as served:
        yield served.address


def request(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: onsale", *headers, "", ""]).encode()


def read_until(connection: socket.socket, count: int, mark: bytes) -> bytes:
    received = b""
    while received.count(mark) < count:
        part = connection.recv(65_536)
        assert part, "the server hung up"
        received += part
    return received


def test_head_and_body_come_together(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(request("/health"))
        answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(HEALTHY)


def test_pipelined_requests_are_answered_in_order(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(request("/health") + request("/nowhere") + request("/health"))
        answers = read_until(connection, 2, HEALTHY)
    assert re.findall(rb"HTTP/1\.1 (\d+)", answers) == [b"200", b"404", b"200"]


def test_who_asks_for_the_connection_to_be_closed_gets_a_whole_answer_first(
    address: tuple[str, int],
) -> None:
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(request("/openapi.json", "Connection: close"))
        received = read_to_end(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    assert len(body) == length > 10_000


def test_who_hangs_up_at_once_harms_nobody(address: tuple[str, int]) -> None:
    for _ in range(50):
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(request("/openapi.json"))
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(request("/health"))
        assert connection.recv(65_536).endswith(HEALTHY)


def test_a_client_can_not_send_without_end_ahead_of_the_answers(address: tuple[str, int]) -> None:
    requests = request("/health") * 200_000
    with socket.create_connection(address, timeout=2) as connection, pytest.raises(TimeoutError):
        connection.sendall(requests)
    waiting = [len(each.pipeline) for each in gc.get_objects() if isinstance(each, HttpProtocol)]
    assert max(waiting, default=0) < 20_000
