"""A server spoken to by TLS: what stands in front of a Redis that others run."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "127.0.0.1"
READ_BYTES = 65536
START_SECONDS_MAX = 30.0


def make_certificate(directory: Path) -> Path:
    """A file with a key and a certificate for this host, which clients may trust by that same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Onsale's tests")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    file = directory / "certificate.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return file


class TlsFront:
    """Ends the TLS of those who connect, and hands on what they say to a port of this host."""

    def __init__(self, certificate: Path, port_behind: int) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._port_behind = port_behind
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self._listening = threading.Event()
        self.accepted = 0
        self.port = 0

    def cut(self) -> None:
        """End all connections that are open."""
        self._loop.call_soon_threadsafe(self._cut)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Take connections in the block, in a thread of its own."""
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            assert self._listening.wait(START_SECONDS_MAX), "nobody listens"
            yield
        finally:
            self._loop.call_soon_threadsafe(self._stopping.set)
            thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._listen())

    async def _listen(self) -> None:
        server = await asyncio.start_server(self._serve, HOST, 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stopping.wait()
        server.close()
        self._cut()

    def _cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._open.add(writer)
        try:
            behind_reader, behind_writer = await asyncio.open_connection(HOST, self._port_behind)
            self._open.add(behind_writer)
            await asyncio.gather(self._hand_on(reader, behind_writer), self._hand_on(behind_reader, writer))
        finally:
            self._open.discard(writer)
            writer.close()

    async def _hand_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(READ_BYTES):
                target.write(data)
                await target.drain()
        except OSError:
            pass
        finally:
            self._open.discard(target)
            target.close()
