"""A Redis that is spoken to by TLS, as those that others run mostly are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from local.servers import ValkeyServer
from shared.database.engine import Database
from shared.errors import LineUnavailable
from shared.line.connections import connect
from shared.line.consumer import Consumer
from shared.settings import Settings
from tests.builders import assert_books_balance, build_worker, create_event
from tests.serving import Serving, serving
from tests.tls import HOST, TlsFront, make_certificate


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return make_certificate(tmp_path)


@pytest.fixture
def front(certificate: Path, valkey: ValkeyServer) -> Iterator[TlsFront]:
    front = TlsFront(certificate, valkey.port)
    with front.running():
        yield front


@pytest.fixture
def by_tls(settings: Settings, front: TlsFront, certificate: Path) -> Settings:
    url = f"rediss://{HOST}:{front.port}/0?ssl_ca_certs={certificate}"
    return settings.model_copy(update={"redis_url": url})


@pytest.fixture
def served(by_tls: Settings, database: Database, redis_client: redis.Redis) -> Iterator[Serving]:
    """The API and a worker that know Redis by its TLS address only."""
    worker = build_worker(by_tls, database, name="by-tls")
    thread = threading.Thread(target=worker.run)
    thread.start()
    with serving(by_tls) as served:
        yield served
    worker.stop()
    thread.join()


def book(served: Serving, event_id: str, user_id: str) -> int:
    answer = served.client.post(
        f"/events/{event_id}/bookings",
        json={"user_id": user_id, "ticket_count": 1},
        headers={"Prefer": "wait=20", "Idempotency-Key": user_id},
    )
    return answer.status_code


def test_bookings_are_accepted_applied_and_told(served: Serving, front: TlsFront, database: Database) -> None:
    event = create_event(database)
    assert [book(served, event.id, user) for user in ("ann", "bob")] == [201, 201]
    assert front.accepted > 0
    assert_books_balance(database, event.id)


def test_connections_that_are_cut_are_opened_again(
    served: Serving, front: TlsFront, database: Database
) -> None:
    event = create_event(database)
    assert book(served, event.id, "ann") == 201
    before = front.accepted
    front.cut()
    assert book(served, event.id, "bob") == 201
    assert front.accepted > before
    assert_books_balance(database, event.id)


def test_a_process_that_stops_leaves_no_end_of_a_connection_behind(
    by_tls: Settings, redis_client: redis.Redis
) -> None:
    """An event loop can't end while one is under way; the exception of its thread would fail this test."""
    for _ in range(5):
        with serving(by_tls):
            pass


def test_a_certificate_that_nobody_trusts_is_refused(settings: Settings, front: TlsFront) -> None:
    client = connect(settings.model_copy(update={"redis_url": f"rediss://{HOST}:{front.port}/0"}))
    with pytest.raises(LineUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        Consumer(client, settings, worker_name="careful").claim()
    client.close()
