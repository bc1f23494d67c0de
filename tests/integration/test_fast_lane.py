"""The short way answers as the documented route does, to the letter."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import redis

from api import main
from api.fast_lane import answer_booking
from shared.database.engine import Database
from shared.settings import Settings
from tests.builders import UNKNOWN_ID, create_event

JSON = {"Content-Type": "application/json"}
BOOKING = b'{"user_id": "ann", "ticket_count": 1}'


async def _hand_on(*_: object) -> bool:
    """Stands where the short way would and leaves every request to FastAPI."""
    return False


def ask(
    settings: Settings, way: Any, monkeypatch: pytest.MonkeyPatch, request: Callable[..., Any]
) -> httpx.Response:
    monkeypatch.setattr(main, "answer_booking", way)
    app = main.create_app(settings)

    async def run() -> httpx.Response:
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://onsale") as client:
                answer: httpx.Response = await request(client)
                return answer

    return asyncio.run(run())


def without_what_differs_by_nature(answer: httpx.Response) -> tuple[int, dict[str, str], Any]:
    headers = {name: value for name, value in answer.headers.items() if name != "location"}
    headers.pop("content-length")
    headers.pop("retry-after", None)
    headers.pop("x-request-id")
    document = json.loads(answer.content)
    for name in ("id", "booking_id", "created_at", "position", "ahead"):
        document.pop(name, None)
    return answer.status_code, headers, document


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (BOOKING, JSON, 202),
        (BOOKING, {**JSON, "Idempotency-Key": ""}, 400),
        (BOOKING, {"Content-Type": "Application/JSON; charset=utf-8"}, 202),
        (BOOKING, [*JSON.items(), ("Prefer", "respond-async"), ("Prefer", "wait=1")], 202),
        (BOOKING, [*JSON.items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")], 400),
        (BOOKING, {}, 415),
        (BOOKING, {"Content-Type": "text/plain"}, 415),
        (b"", JSON, 422),
        (b"{", JSON, 422),
        (b"[]", JSON, 422),
        (b"[" * 5_000, JSON, 422),
        (b"\xff", JSON, 422),
        (b'{"user_id": "ann", "ticket_count": 3}', JSON, 422),
        (b'{"user_id": "ann", "ticket_count": 1e999}', JSON, 422),
        (b'{"user_id": "ann", "ticket_count": 1, "x": 1}', JSON, 422),
        (b'{"user_id": "ann\\u0000", "ticket_count": 1}', JSON, 422),
        (b" " * 20_000, JSON, 413),
    ],
)
def test_both_ways_give_the_same_answer(
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    headers: dict[str, str] | list[tuple[str, str]],
    status: int,
) -> None:
    event = create_event(database)

    async def request(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post(f"/events/{event.id}/bookings", content=content, headers=headers)

    short = ask(settings, answer_booking, monkeypatch, request)
    long = ask(settings, _hand_on, monkeypatch, request)
    assert short.status_code == status
    assert without_what_differs_by_nature(short) == without_what_differs_by_nature(long)


@pytest.mark.parametrize("event_id", [UNKNOWN_ID, "not-an-id", "%20"])
def test_both_ways_know_the_same_events(
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    event_id: str,
) -> None:
    async def request(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post(f"/events/{event_id}/bookings", content=BOOKING, headers=JSON)

    short = ask(settings, answer_booking, monkeypatch, request)
    long = ask(settings, _hand_on, monkeypatch, request)
    assert short.status_code == 404
    assert without_what_differs_by_nature(short) == without_what_differs_by_nature(long)


def test_the_document_says_what_the_short_way_takes(settings: Settings) -> None:
    document = main.create_app(settings).openapi()
    operation = document["paths"]["/events/{event_id}/bookings"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]) == {"user_id", "ticket_count"}
    assert schema["additionalProperties"] is False
    names = [parameter["name"] for parameter in operation["parameters"]]
    assert names == ["event_id", "prefer", "idempotency-key"]
    assert {"201", "202", "400", "404", "413", "415", "422", "429", "503"} <= set(operation["responses"])
