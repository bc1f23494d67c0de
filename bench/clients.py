"""Thousands of HTTP clients in one process, each a kept-alive connection that sends and reads plain bytes.

A general client spends more processor time on a request than the server that is measured.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

CONNECTS_AT_ONCE = 200
ANSWER_SECONDS_MAX = 60.0


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def post(self, path: str, body: object, **headers: str) -> tuple[int, Any]:
        """Send JSON; gives status and document.

        Raises:
            TimeoutError, OSError, asyncio.IncompleteReadError: there was no answer.
        """
        content = json.dumps(body).encode()
        lines = [f"POST {path} HTTP/1.1", "Host: onsale", "Content-Type: application/json"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Content-Length: {len(content)}", "", ""]
        self._writer.write("\r\n".join(lines).encode() + content)
        return await asyncio.wait_for(self._answer(), ANSWER_SECONDS_MAX)

    async def _answer(self) -> tuple[int, Any]:
        head = await self._reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        return status, json.loads(await self._reader.readexactly(length))

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


async def connect_clients(base_url: str, count: int) -> list[Client]:
    """So many connections, opened some at a time so that the server's queue of new ones is not overrun."""
    address = urlsplit(base_url)
    clients: list[Client] = []
    while len(clients) < count:
        some = min(CONNECTS_AT_ONCE, count - len(clients))
        opened = await asyncio.gather(
            *(asyncio.open_connection(address.hostname, address.port) for _ in range(some))
        )
        clients += [Client(reader, writer) for reader, writer in opened]
    return clients


def percentile(values: list[float], share: float) -> float:
    """The value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
