"""Thousands of HTTP clients in one process, each a kept-alive connection that sends and reads plain bytes.

A general client spends more processor time on a request than the server that is measured.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

CONNECTS_AT_ONCE = 200
ANSWER_SECONDS_MAX = 60.0
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server said. `retry_after_seconds` is 0 where it didn't say; what is no JSON gives None."""

    status: int
    document: Any
    retry_after_seconds: float


class Client:
    """One connection, to a server that is called `host`."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        host: str,
        answer_seconds_max: float = ANSWER_SECONDS_MAX,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._host = host
        self._answer_seconds_max = answer_seconds_max

    async def post(self, path: str, body: object, **headers: str) -> tuple[int, Any]:
        """Send JSON; gives status and document.

        Raises:
            TimeoutError, OSError, asyncio.IncompleteReadError: there was no answer.
        """
        answer = await self.request("POST", path, body, headers)
        return answer.status, answer.document

    async def request(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] = NO_HEADERS
    ) -> Answer:
        """Send a request, with JSON if there is a body.

        Raises:
            TimeoutError, OSError, asyncio.IncompleteReadError: there was no answer.
        """
        if self._writer.is_closing():
            raise ConnectionResetError("the server has hung up")
        content = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if content:
            lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        lines += ["", ""]
        self._writer.write("\r\n".join(lines).encode() + content)
        return await asyncio.wait_for(self._answer(), self._answer_seconds_max)

    async def _answer(self) -> Answer:
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        retry_after = _header(head, b"retry-after")
        content = await self._reader.readexactly(int(_header(head, b"content-length") or 0))
        return Answer(
            status=int(head[9:12]),
            document=json.loads(content) if b"json" in _header(head, b"content-type") else None,
            retry_after_seconds=float(retry_after) if retry_after.isdigit() else 0.0,
        )

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


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
    reader, writer = await asyncio.open_connection(
        address.hostname, address.port or (443 if is_encrypted else 80), ssl=is_encrypted or None
    )
    return Client(reader, writer, address.netloc.rpartition("@")[2], answer_seconds_max)


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
