"""SIGTERM: whoever waits gets an answer, streams end, and the process is gone."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import redis

from shared.database.engine import Database
from shared.settings import Settings
from tests.builders import create_event, own_client, wait_until
from tests.serving import SERVE, api_process, told

UVICORN = ("uvicorn", "api.main:app", "--log-level", "warning")


@pytest.mark.parametrize("served_by", [UVICORN, SERVE])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_asked_to_end_keeps_nobody_waiting(
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    project_root: Path,
    served_by: Sequence[str],
    number: signal.Signals,
) -> None:
    event = create_event(database)

    def book(**headers: str) -> httpx.Response:
        with own_client(client) as own:
            booking = {"user_id": "ann", "ticket_count": 1}
            return own.post(f"/events/{event.id}/bookings", json=booking, headers=headers)

    with api_process(settings, served_by, project_root) as (process, client), ThreadPoolExecutor(1) as pool:
        job_id = book().json()["id"]
        with client.stream("GET", f"/jobs/{job_id}/events") as stream:
            events = told(stream)
            assert next(events).name == "snapshot"
            waiting = pool.submit(book, Prefer="wait=300")
            wait_until(lambda: redis_client.llen(f"rq:queue:event:{event.id}") == 2)
            process.send_signal(number)
            assert [each.name for each in events if each.name] == []
        assert waiting.result().status_code == 202
        process.wait(timeout=30)
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_process_that_drains_is_not_ready_any_more_and_serves_on(
    settings: Settings, database: Database, redis_client: redis.Redis, project_root: Path
) -> None:
    event = create_event(database)
    with api_process(settings, SERVE, project_root, ONSALE_DRAIN_SECONDS="300") as (process, client):
        assert client.get("/ready").status_code == 200
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: client.get("/ready").status_code == 503)
        assert client.get("/ready").json()["status"] == "draining"
        booking = {"user_id": "ann", "ticket_count": 1}
        assert client.post(f"/events/{event.id}/bookings", json=booking).status_code == 202
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def test_a_process_that_has_drained_ends(
    settings: Settings, database: Database, redis_client: redis.Redis, project_root: Path
) -> None:
    with api_process(settings, SERVE, project_root, ONSALE_DRAIN_SECONDS="0.5") as (process, _):
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
