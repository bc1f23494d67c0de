"""Thousands of HTTP clients in one process, each a kept-alive connection that sends and reads plain bytes.

A general client spends more processor time on a request than the server that is measured.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast
from urllib.parse import urlsplit

CONNECTS_AT_ONCE = 200
ANSWER_SECONDS_MAX = 60.0
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
HUNG_UP = "the server has hung up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server said; its head in small letters. It is read when somebody asks what it says."""

    status: int
    head: bytes
    content: bytes

    @property
    def document(self) -> Any:
        """The content as JSON; None if it is none."""
        return json.loads(self.content) if b"json" in _header(self.head, b"content-type") else None

    @property
    def retry_after_seconds(self) -> float:
        """When to try again; 0 where the server didn't say."""
        retry_after = _header(self.head, b"retry-after")
        return float(retry_after) if retry_after.isdigit() else 0.0


class Client(asyncio.Protocol):
    """One connection, to a server that is called `host`. One request is on its way at a time."""

    def __init__(self, host: str, answer_seconds_max: float = ANSWER_SECONDS_MAX) -> None:
        self._host = host
        self._answer_seconds_max = answer_seconds_max
        self._received = b""
        self._transport: asyncio.Transport
        self._answer: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with an open connection."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Take what has arrived of an answer."""
        self._received += data
        answer = _whole_answer(self._received)
        if answer is None:
            return
        if self._answer is None:
            raise ValueError("an answer that nobody has asked for")
        self._received = b""
        waiting, self._answer = self._answer, None
        if not waiting.done():
            waiting.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits for an answer that none will come."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError(HUNG_UP))

    async def request(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] = NO_HEADERS
    ) -> Answer:
        """Send a request, with JSON if there is a body.

        Raises:
            TimeoutError, OSError: there was no answer.
        """
        answer = self.send(method, path, body, headers)
        try:
            async with asyncio.timeout(self._answer_seconds_max):
                return await answer
        except TimeoutError:
            # Its answer may still come; it would be taken for that of the next request.
            self.close()
            raise

    def send(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] = NO_HEADERS
    ) -> asyncio.Future[Answer]:
        """Send a request, whose answer is waited for as long as it takes.

        Raises:
            OSError: the connection is closed.
        """
        if self._transport.is_closing():
            raise ConnectionResetError(HUNG_UP)
        content = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if content:
            lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        lines += ["", ""]
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write("\r\n".join(lines).encode() + content)
        return self._answer

    def close(self) -> None:
        """Hang up."""
        self._transport.close()


def _whole_answer(received: bytes) -> Answer | None:
    """What the server said, if all of it is there."""
    head, end, content = received.partition(b"\r\n\r\n")
    if not end:
        return None
    head = head.lower()
    missing = int(_header(head, b"content-length") or 0) - len(content)
    if missing > 0:
        return None
    if missing < 0:
        raise ValueError(f"{-missing} bytes more than an answer")
    return Answer(status=int(head[9:12]), head=head, content=content)


def _header(head: bytes, name: bytes) -> bytes:
    """The value of a header in a head of small letters; empty if it isn't there."""
    return head.partition(b"\r\n" + name + b":")[2].partition(b"\r\n")[0].strip()


async def connect(base_url: str, answer_seconds_max: float = ANSWER_SECONDS_MAX) -> Client:
    """A connection to the server at a URL.

    Raises:
        OSError: nobody listens there.
    """
    address = urlsplit(base_url)
    is_encrypted = address.scheme == "https"
    host = address.netloc.rpartition("@")[2]
    _, client = await asyncio.get_running_loop().create_connection(
        lambda: Client(host, answer_seconds_max),
        address.hostname or "",
        address.port or (443 if is_encrypted else 80),
        ssl=is_encrypted or None,
    )
    return client


async def connect_clients(
    base_url: str, count: int, answer_seconds_max: float = ANSWER_SECONDS_MAX
) -> list[Client]:
    """So many connections, opened some at a time so that the server's queue of new ones is not overrun.

    Raises:
        OSError: they can't be opened.
    """
    clients: list[Client] = []
    while len(clients) < count:
        some = min(CONNECTS_AT_ONCE, count - len(clients))
        clients += await asyncio.gather(*(connect(base_url, answer_seconds_max) for _ in range(some)))
    return clients


def percentile(values: list[float], share: float) -> float:
    """The value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
