"""Changing the terms of an event: in one line with the bookings, never below what is sold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import pytest
import redis

from shared.clock import SystemClock, format_time
from shared.database.engine import Database
from shared.line.codec import book_payload, cancel_payload, change_payload
from shared.settings import Settings
from tests.builders import (
    assert_books_balance,
    create_event,
    outcomes_in_ledger,
    seed,
    submission,
    submit,
    violations,
    wait_until,
)
from tests.conftest import StartWorker

WAIT = {"Prefer": "wait=10"}


def change(api: httpx.Client, event_id: str, **terms: object) -> httpx.Response:
    return api.patch(f"/events/{event_id}", json=terms, headers=WAIT)


def book(api: httpx.Client, event_id: str, user_id: str, ticket_count: int = 1) -> httpx.Response:
    body = {"user_id": user_id, "ticket_count": ticket_count}
    return api.post(f"/events/{event_id}/bookings", json=body, headers=WAIT)


def test_an_event_is_renamed_and_both_views_of_it_say_so(
    api: httpx.Client, database: Database, start_worker: StartWorker
) -> None:
    event = create_event(database)
    start_worker()
    changed = change(api, event.id, name="Renamed")
    assert changed.status_code == 200, changed.text
    assert changed.json()["name"] == "Renamed"
    assert api.get(f"/events/{event.id}").json() == changed.json()
    assert api.get("/events").json()["items"] == [changed.json()]
    assert violations(database) == []


def test_a_change_is_a_job_that_shows_the_event_as_it_was_changed_for_ever(
    api: httpx.Client, database: Database, start_worker: StartWorker
) -> None:
    event = create_event(database, total_tickets=2)
    accepted = api.patch(f"/events/{event.id}", json={"total_tickets": 3})
    assert (accepted.status_code, accepted.json()["kind"]) == (202, "change")
    assert accepted.json()["event"] is None
    start_worker()
    job_url = accepted.headers["Location"]
    wait_until(lambda: api.get(job_url).json()["done"])
    book(api, event.id, "ann")
    job = api.get(job_url).json()
    assert (job["status"], job["event"]["total_tickets"], job["event"]["available_tickets"]) == (
        "succeeded",
        3,
        3,
    )


def test_changes_stand_in_line_with_the_bookings(
    settings: Settings, database: Database, api: httpx.Client, start_worker: StartWorker
) -> None:
    """One batch in which what is given back, added and taken away makes room for what is sold."""
    event = create_event(database, total_tickets=2)
    seed(settings, event)
    first = submission(event.id, book_payload("ann", 2))
    commands = [
        first,
        submission(event.id, book_payload("bob", 1)),
        submission(event.id, change_payload(total_tickets=3)),
        submission(event.id, book_payload("bob", 1)),
        submission(event.id, change_payload(total_tickets=2)),
        submission(event.id, cancel_payload(first.job_id)),
        submission(event.id, change_payload(total_tickets=2)),
        submission(event.id, book_payload("cid", 1)),
        submission(event.id, change_payload(total_tickets=4, sales_closed=True)),
        submission(event.id, book_payload("dan", 1)),
        submission(event.id, change_payload(sales_closed=False)),
        submission(event.id, book_payload("dan", 2)),
    ]
    submit(settings, commands)
    start_worker()
    wait_until(lambda: len(outcomes_in_ledger(database, event.id)) == len(commands))
    assert [outcome.value for _, _, outcome in outcomes_in_ledger(database, event.id)] == [
        "booked",
        "not-enough-tickets",
        "changed",
        "booked",
        "total-below-sold",
        "cancelled",
        "changed",
        "booked",
        "changed",
        "sales-closed",
        "changed",
        "booked",
    ]
    assert_books_balance(database, event.id)
    assert violations(database) == []
    assert api.get(f"/events/{event.id}").json()["available_tickets"] == 0


def test_the_total_is_not_lowered_below_what_is_sold(
    api: httpx.Client, database: Database, start_worker: StartWorker
) -> None:
    event = create_event(database, total_tickets=5)
    start_worker()
    book(api, event.id, "ann", 2)
    refused = change(api, event.id, total_tickets=1, name="Renamed")
    assert refused.status_code == 409
    assert (refused.json()["type"], refused.json()["sold_tickets"]) == ("total-below-sold", 2)
    assert api.get(f"/events/{event.id}").json()["name"] == "Test Event"
    assert change(api, event.id, total_tickets=2).json()["available_tickets"] == 0


def test_sales_are_closed_and_opened_again(
    api: httpx.Client, database: Database, start_worker: StartWorker
) -> None:
    event = create_event(database)
    start_worker()
    booking = book(api, event.id, "ann").json()
    assert change(api, event.id, sales_closed=True).json()["sales_closed"] is True
    refused = book(api, event.id, "bob")
    assert (refused.status_code, refused.json()["type"]) == (400, "sales-closed")
    assert api.delete(f"/bookings/{booking['id']}", headers=WAIT).json()["status"] == "cancelled"
    change(api, event.id, sales_closed=False)
    assert book(api, event.id, "bob").status_code == 201


def test_before_the_sales_a_booking_is_refused_at_once_and_takes_no_place_in_line(
    api: httpx.Client, database: Database
) -> None:
    opens_at = SystemClock().now() + timedelta(hours=1)
    made = api.post(
        "/events", json={"name": "Later", "total_tickets": 5, "sales_open_at": opens_at.isoformat()}
    )
    assert made.json()["sales_open_at"] == format_time(opens_at)
    refused = book(api, made.json()["id"], "ann")
    assert (refused.status_code, refused.json()["type"]) == (400, "sales-not-open")
    assert refused.json()["sales_open_at"] == format_time(opens_at)
    changed = api.patch(f"/events/{made.json()['id']}", json={"name": "Soon"})
    assert changed.json()["position"] == 1


def test_sales_that_are_opened_earlier_are_open(
    api: httpx.Client, database: Database, start_worker: StartWorker
) -> None:
    event = create_event(database, sales_open_at=SystemClock().now() + timedelta(hours=1))
    start_worker()
    assert book(api, event.id, "ann").status_code == 400
    change(api, event.id, sales_open_at=SystemClock().now().isoformat())
    assert book(api, event.id, "ann").status_code == 201
    assert violations(database) == []


def test_a_booking_whose_event_was_put_off_while_it_waited_is_judged_by_when_it_was_accepted(
    settings: Settings, api: httpx.Client, database: Database, start_worker: StartWorker
) -> None:
    event = create_event(database)
    seed(settings, event)
    later = SystemClock().now() + timedelta(hours=1)
    put_off, late = (
        submission(event.id, change_payload(sales_open_at=later)),
        submission(event.id, book_payload("ann", 1)),
    )
    submit(settings, [put_off, late])
    start_worker()
    wait_until(lambda: api.get(f"/jobs/{late.job_id}").json()["done"])
    job = api.get(f"/jobs/{late.job_id}").json()
    assert (job["status"], job["error"]["sales_open_at"]) == ("rejected", format_time(later))
    assert violations(database) == []


def test_the_limit_per_user_is_chosen_with_the_event(api: httpx.Client, start_worker: StartWorker) -> None:
    made = api.post("/events", json={"name": "Four", "total_tickets": 9, "max_tickets_per_user": 3})
    start_worker()
    event_id = made.json()["id"]
    assert made.json()["max_tickets_per_user"] == 3
    assert [book(api, event_id, "ann", count).status_code for count in (2, 2, 1)] == [201, 400, 201]


def test_a_change_with_a_key_is_made_once(
    api: httpx.Client, database: Database, start_worker: StartWorker
) -> None:
    event = create_event(database)
    start_worker()
    headers = {**WAIT, "Idempotency-Key": "raise-it"}
    answers = [
        api.patch(f"/events/{event.id}", json={"total_tickets": 12}, headers=headers) for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert len(outcomes_in_ledger(database, event.id)) == 1
    other = api.patch(f"/events/{event.id}", json={"total_tickets": 13}, headers=headers)
    assert (other.status_code, other.json()["type"]) == (422, "idempotency-key-reused")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"total_tickets": 0}, "total_tickets"),
        ({"total_tickets": None}, "total_tickets"),
        ({"total_tickets": "5"}, "total_tickets"),
        ({"name": ""}, "name"),
        ({"sales_closed": 1}, "sales_closed"),
        ({"sales_open_at": "2026-11-23T10:00:00"}, "sales_open_at"),
        ({"sales_open_at": "soon"}, "sales_open_at"),
        ({"sales_open_at": "1700000000"}, "sales_open_at"),
        ({"sales_open_at": 1700000000}, "sales_open_at"),
        ({"sales_open_at": "9999-12-31T23:59:59-23:59"}, "sales_open_at"),
        ({"sales_open_at": "0001-01-01T00:00:00+23:59"}, "sales_open_at"),
        ({"max_tickets_per_user": 5}, "max_tickets_per_user"),
    ],
)
def test_a_change_that_makes_no_sense_names_its_field(
    api: httpx.Client, database: Database, body: dict[str, object], field: str
) -> None:
    event = create_event(database)
    answer = api.patch(f"/events/{event.id}", json=body)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.parametrize(
    "moment", ["1700000000", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "2026-11-23"]
)
def test_a_new_event_opens_at_a_time_that_can_be_written(api: httpx.Client, moment: str) -> None:
    answer = api.post("/events", json={"name": "Never", "total_tickets": 1, "sales_open_at": moment})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["sales_open_at"]


@pytest.mark.parametrize("condition", ['"1"', "*"])
def test_a_change_takes_no_condition(
    api: httpx.Client, database: Database, redis_client: redis.Redis, condition: str
) -> None:
    event = create_event(database)
    answer = api.patch(f"/events/{event.id}", json={"name": "New"}, headers={"If-Match": condition})
    assert (answer.status_code, answer.json()["type"]) == (400, "condition-not-supported")
    assert redis_client.keys("rq:*") == []


def test_an_unknown_event_is_not_changed(api: httpx.Client) -> None:
    for event_id in ("nonsense", "01890000-0000-7000-8000-000000000000"):
        answer = api.patch(f"/events/{event_id}", json={"name": "Renamed"})
        assert (answer.status_code, answer.json()["type"]) == (404, "event-not-found")


def test_an_event_may_open_at_any_time_that_can_be_written(
    api: httpx.Client, start_worker: StartWorker
) -> None:
    for moment in (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, tzinfo=UTC)):
        made = api.post(
            "/events", json={"name": "Far", "total_tickets": 1, "sales_open_at": moment.isoformat()}
        )
        assert made.status_code == 201, made.text
        assert api.get(made.headers["Location"]).json()["sales_open_at"] == format_time(moment)
