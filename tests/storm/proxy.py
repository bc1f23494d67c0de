"""A TCP proxy before a server, which can cut, stall or slow down every connection to it."""

from __future__ import annotations

import asyncio
import ssl
from enum import StrEnum

CHUNK_BYTES = 65_536
SLOW_SECONDS = 0.05


class Traffic(StrEnum):
    """What the proxy does with what it is given."""

    FLOWS = "flows"
    CUT = "cut"
    STALLED = "stalled"
    SLOW = "slow"


class Proxy:
    """Listens on a port of 127.0.0.1 and forwards to another one; with `tls` it ends that of its clients."""

    def __init__(self, *, port: int, target_port: int, tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self.accepted = 0
        self._tls = tls
        self._target_port = target_port
        self._traffic = Traffic.FLOWS
        self._moving = asyncio.Event()
        self._moving.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Accept connections."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)

    async def close(self) -> None:
        """Accept no more, and end what is open."""
        await self.switch(Traffic.FLOWS)
        if self._server is not None:
            self._server.close()
        self._abort_all()

    async def switch(self, traffic: Traffic) -> None:
        """Treat the traffic like this from now on, on open connections too."""
        self._traffic = traffic
        if traffic is Traffic.STALLED:
            self._moving.clear()
        else:
            self._moving.set()
        if traffic is Traffic.CUT:
            self._abort_all()

    def _abort_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        try:
            await self._moving.wait()
            if self._traffic is not Traffic.CUT:
                await self._forward(reader, writer)
        except OSError:
            # The other side is away or has hung up, and so do we.
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._writers.add(server_writer)
        pumps = [
            asyncio.create_task(self._pump(reader, server_writer)),
            asyncio.create_task(self._pump(server_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._writers.discard(server_writer)
            server_writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            await self._moving.wait()
            if self._traffic is Traffic.SLOW:
                await asyncio.sleep(SLOW_SECONDS)
            writer.write(chunk)
            await writer.drain()
