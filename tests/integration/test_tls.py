"""A Redis that is spoken to by TLS, as those that others run mostly are."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from local.ports import free_port
from local.servers import ValkeyServer
from shared.database.engine import Database
from shared.errors import LineUnavailable
from shared.line.connections import connect, connect_async
from shared.line.consumer import Consumer
from shared.line.link import Link
from shared.settings import Settings
from tests.builders import assert_books_balance, build_worker, create_event
from tests.certificates import make_certificate
from tests.serving import Serving, serving
from tests.storm.loop_thread import LoopThread
from tests.storm.proxy import Proxy, Traffic

# The end of TLS takes a round trip, which a process that stops does not wait for everywhere.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


HOST = "127.0.0.1"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return make_certificate(tmp_path, HOST)


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    with LoopThread() as loop:
        yield loop


@pytest.fixture
def front(certificate: Path, valkey: ValkeyServer, loop: LoopThread) -> Iterator[Proxy]:
    """What ends the TLS before Redis."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    front = Proxy(port=free_port(), target_port=valkey.port, tls=tls)
    loop.call(front.start())
    yield front
    loop.call(front.close())


@pytest.fixture
def by_tls(settings: Settings, front: Proxy, certificate: Path) -> Settings:
    url = f"rediss://{HOST}:{front.port}/0?ssl_ca_certs={certificate}"
    return settings.model_copy(update={"redis_url": url})


@pytest.fixture
def served(by_tls: Settings, database: Database, redis_client: redis.Redis) -> Iterator[Serving]:
    """The API and a worker that know Redis by its TLS address only."""
    worker = build_worker(by_tls, database, name="by-tls")
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        with serving(by_tls) as served:
            yield served
    finally:
        worker.stop()
        thread.join()


def book(served: Serving, event_id: str, user_id: str) -> int:
    answer = served.client.post(
        f"/events/{event_id}/bookings",
        json={"user_id": user_id, "ticket_count": 1},
        headers={"Prefer": "wait=20", "Idempotency-Key": user_id},
    )
    return answer.status_code


def test_bookings_are_accepted_applied_and_told(served: Serving, front: Proxy, database: Database) -> None:
    event = create_event(database)
    assert [book(served, event.id, user) for user in ("ann", "bob")] == [201, 201]
    assert front.accepted > 0
    assert_books_balance(database, event.id)


def test_connections_that_are_cut_are_opened_again(
    served: Serving, front: Proxy, loop: LoopThread, database: Database
) -> None:
    event = create_event(database)
    assert book(served, event.id, "ann") == 201
    before = front.accepted
    loop.call(front.switch(Traffic.CUT))
    loop.call(front.switch(Traffic.FLOWS))
    assert book(served, event.id, "bob") == 201
    assert front.accepted > before
    assert_books_balance(database, event.id)


@pytest.fixture(params=["of no known authority", "of another host"])
def refused(request: pytest.FixtureRequest, settings: Settings, front: Proxy, certificate: Path) -> Settings:
    """Where the certificate is not one to trust."""
    host, known = (
        (HOST, "") if "authority" in request.param else ("localhost", f"?ssl_ca_certs={certificate}")
    )
    return settings.model_copy(update={"redis_url": f"rediss://{host}:{front.port}/0{known}"})


def test_a_worker_refuses_a_certificate(refused: Settings) -> None:
    client = connect(refused)
    with pytest.raises(LineUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        Consumer(client, refused, worker_name="careful").claim()
    client.close()


def test_an_api_process_refuses_a_certificate(refused: Settings) -> None:
    async def ask() -> None:
        client = connect_async(refused)
        try:
            await Link(client, seconds_max=5).ask(("PING",))
        finally:
            await client.aclose()

    with pytest.raises(redis.RedisError, match="CERTIFICATE_VERIFY_FAILED"):
        asyncio.run(ask())
