"""Lists in pages: complete and in order, whatever is written between two pages."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import text

from shared.database import lists
from shared.database.engine import Database
from shared.domain import BookingStatus
from shared.identifiers import new_id
from shared.line.codec import book_payload, cancel_payload
from shared.records import EventRecord
from shared.settings import Settings
from tests.builders import create_event, outcomes_in_ledger, seed, submission, submit, wait_until
from tests.conftest import StartWorker


def pages(api: httpx.Client, path: str) -> Iterator[list[dict[str, Any]]]:
    """Page after page, as the Link header leads."""
    while path:
        answer = api.get(path)
        assert answer.status_code == 200, answer.text
        yield answer.json()["items"]
        path = answer.links.get("next", {}).get("url", "")
        assert bool(path) == (answer.json()["next_cursor"] is not None)


@pytest.fixture
def busy_event(settings: Settings, database: Database, start_worker: StartWorker) -> EventRecord:
    """Users 0 to 6 with a booking each, of which 1, 4 and 6 cancelled theirs."""
    event = create_event(database)
    seed(settings, event)
    booked = [submission(event.id, book_payload(f"user {number}", 1)) for number in range(7)]
    cancelled = [submission(event.id, cancel_payload(booked[number].job_id)) for number in (1, 4, 6)]
    submit(settings, booked + cancelled)
    start_worker()
    wait_until(lambda: len(outcomes_in_ledger(database, event.id)) == 10)
    return event


def test_the_ledger_is_read_in_order(api: httpx.Client, database: Database, busy_event: EventRecord) -> None:
    found = list(pages(api, f"/events/{busy_event.id}/ledger?limit=4"))
    assert [len(page) for page in found] == [4, 4, 2]
    rows = [row for page in found for row in page]
    assert [(row["position"], row["job_id"], row["outcome"]) for row in rows] == outcomes_in_ledger(
        database, busy_event.id
    )
    assert rows[0]["command"] == {"v": 1, "kind": "book", "user_id": "user 0", "ticket_count": 1}


@pytest.mark.parametrize(
    ("query", "users"),
    [
        ("", [0, 1, 2, 3, 4, 5, 6]),
        ("&status=active", [0, 2, 3, 5]),
        ("&status=cancelled", [1, 4, 6]),
        ("&user_id=user%204", [4]),
        ("&user_id=user%204&status=active", []),
        ("&user_id=nobody", []),
    ],
)
def test_bookings_are_listed_by_user_and_status(
    api: httpx.Client, busy_event: EventRecord, query: str, users: list[int]
) -> None:
    found = [
        booking for page in pages(api, f"/events/{busy_event.id}/bookings?limit=2{query}") for booking in page
    ]
    assert [booking["user_id"] for booking in found] == [f"user {number}" for number in users]
    for booking in found:
        assert api.get(f"/bookings/{booking['id']}").json() == booking


def test_what_is_written_between_two_pages_neither_repeats_nor_hides_what_was_there(
    api: httpx.Client, settings: Settings, database: Database, busy_event: EventRecord
) -> None:
    walk = pages(api, f"/events/{busy_event.id}/bookings?limit=3")
    seen = [booking["id"] for booking in next(walk)]
    there = [booking["id"] for page in pages(api, f"/events/{busy_event.id}/bookings") for booking in page]
    submit(settings, [submission(busy_event.id, book_payload(user, 1)) for user in ("a", "user 2x")])
    submit(settings, [submission(busy_event.id, cancel_payload(seen[0]))])
    wait_until(lambda: len(outcomes_in_ledger(database, busy_event.id)) == 13)
    seen += [booking["id"] for page in walk for booking in page]
    assert [id for id in seen if id in there] == there


def test_the_newest_event_is_listed_first(api: httpx.Client, database: Database) -> None:
    made = [create_event(database).id for _ in range(5)]
    walk = pages(api, "/events?limit=2")
    first = next(walk)
    create_event(database)
    assert [event["id"] for event in [*first, *(event for page in walk for event in page)]] == made[::-1]


def test_pages_of_an_unknown_event_are_not_found(api: httpx.Client) -> None:
    for path in ("bookings", "ledger"):
        for event_id in ("nonsense", new_id()):
            answer = api.get(f"/events/{event_id}/{path}")
            assert (answer.status_code, answer.json()["type"]) == (404, "event-not-found")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=many", "limit"),
        ("cursor=nonsense", "cursor"),
        ("cursor=" + "x" * 5_000, "cursor"),
        ("cursor=WyJhIl0=", "cursor"),
        ("cursor=W10=", "cursor"),
        ("cursor=Wy0xXQ==", "cursor"),
        ("cursor=%C3%A4", "cursor"),
        ("page=2", "page"),
    ],
)
def test_a_page_that_can_not_be_asked_for_names_its_field(
    api: httpx.Client, database: Database, query: str, field: str
) -> None:
    event = create_event(database)
    answer = api.get(f"/events/{event.id}/ledger?{query}")
    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize(
    ("path", "cursor"),
    [
        ("/events", '["zzz"]'),
        ("/events", "[1]"),
        ("/events/{id}/bookings", '["a",""]'),
        ("/events/{id}/bookings", '["a\\u0000","{id}"]'),
        ("/events/{id}/bookings", '["a"]'),
        ("/events/{id}/ledger", "[9223372036854775808]"),
        ("/events/{id}/ledger", "[true]"),
    ],
)
def test_a_cursor_that_no_page_has_given_is_refused(
    api: httpx.Client, database: Database, path: str, cursor: str
) -> None:
    event = create_event(database)
    encoded = urlsafe_b64encode(cursor.replace("{id}", event.id).encode()).decode()
    answer = api.get(path.replace("{id}", event.id), params={"cursor": encoded})
    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == ["cursor"]


@pytest.mark.parametrize("query", ["status=lost", "user_id=", "user_id=%00", "user_id=" + "x" * 129])
def test_a_filter_that_makes_no_sense_names_its_field(
    api: httpx.Client, database: Database, query: str
) -> None:
    event = create_event(database)
    answer = api.get(f"/events/{event.id}/bookings?{query}")
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [query.partition("=")[0]]


@pytest.mark.parametrize(
    "ask",
    [
        lambda connection, id: lists.newest_events(connection, before_id=id, count=51),
        lambda connection, id: lists.newest_events(connection, before_id=id, count=51, organiser_id="acme"),
        lambda connection, id: lists.ledger_of_event(connection, id, after_position=70, count=51),
        lambda connection, id: lists.bookings_of_event(
            connection, id, user_id=None, status=None, after=("user", id), count=51
        ),
        lambda connection, id: lists.bookings_of_event(
            connection, id, user_id="user", status=BookingStatus.CANCELLED, after=None, count=51
        ),
    ],
)
def test_a_page_is_read_from_an_index(database: Database, ask: Callable[..., object]) -> None:
    """The planner would rather read a table of no rows as a whole, so that is forbidden here."""
    plans: list[str] = []

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, *_: object) -> None:
        if statement.startswith("SELECT"):
            cursor.execute("EXPLAIN " + statement, parameters)
            plans.append("\n".join(line for (line,) in cursor.fetchall()))

    with database.transaction() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        connection.execute(text("SET LOCAL enable_bitmapscan = off"))
        sqlalchemy_event.listen(connection, "before_cursor_execute", explain)
        ask(connection, new_id())
    [plan] = plans
    assert "Index" in plan
    assert "Seq Scan" not in plan
    assert "Filter" not in plan
