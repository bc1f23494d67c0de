"""What Onsale has of an event, read over HTTP as anybody who may can read it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from demo.errors import DemoError
from shared.limits import PAGE_ITEMS_MAX

ANSWER_SECONDS_MAX = 30.0
ATTEMPTS_MAX = 60
PAUSE_SECONDS = 1.0
PAUSE_SECONDS_MAX = 60.0
TRY_AGAIN = (429, 503)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sale:
    """The event, as it says itself."""

    total_tickets: int
    available_tickets: int
    max_tickets_per_user: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the ledger. `asked` is what the command said."""

    position: int
    job_id: str
    kind: str
    asked: Mapping[str, Any]
    outcome: str
    booking_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """One booking, as the list of bookings has it."""

    id: str
    user_id: str
    ticket_count: int
    is_active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that there is about one event."""

    sale: Sale
    rows: Sequence[Row]
    bookings: Sequence[Booking]


def read_evidence(client: httpx.Client, event_id: str) -> Evidence:
    """Read the event, its ledger and its bookings.

    Raises:
        DemoError: they can't be read.
    """
    sale = _get(client, f"/events/{event_id}")
    return Evidence(
        sale=read_sale(sale),
        rows=[read_row(item) for item in _items(client, f"/events/{event_id}/ledger")],
        bookings=[read_booking(item) for item in _items(client, f"/events/{event_id}/bookings")],
    )


def read_sale(document: Mapping[str, Any]) -> Sale:
    """An event from JSON."""
    return Sale(
        total_tickets=document["total_tickets"],
        available_tickets=document["available_tickets"],
        max_tickets_per_user=document["max_tickets_per_user"],
    )


def read_row(document: Mapping[str, Any]) -> Row:
    """A row of the ledger from JSON."""
    return Row(
        position=document["position"],
        job_id=document["job_id"],
        kind=document["kind"],
        asked=document["command"] or {},
        outcome=document["outcome"],
        booking_id=document["booking_id"],
    )


def read_booking(document: Mapping[str, Any]) -> Booking:
    """A booking from JSON."""
    return Booking(
        id=document["id"],
        user_id=document["user_id"],
        ticket_count=document["ticket_count"],
        is_active=document["status"] == "active",
    )


def _items(client: httpx.Client, path: str) -> Iterator[Mapping[str, Any]]:
    """All items of a list, page by page."""
    query: dict[str, str] = {"limit": str(PAGE_ITEMS_MAX)}
    while True:
        page = _get(client, path, query)
        yield from page["items"]
        if page["next_cursor"] is None:
            return
        query["cursor"] = page["next_cursor"]


def _get(client: httpx.Client, path: str, query: Mapping[str, str] | None = None) -> Mapping[str, Any]:
    """Read a document, as patiently as the server asks for."""
    answer = None
    for _ in range(ATTEMPTS_MAX):
        try:
            answer = client.get(path, params=query)
        except httpx.TransportError:
            time.sleep(PAUSE_SECONDS)
            continue
        if answer.status_code == httpx.codes.OK:
            document: Mapping[str, Any] = answer.json()
            return document
        if answer.status_code not in TRY_AGAIN:
            break
        wanted = float(answer.headers.get("retry-after", PAUSE_SECONDS))
        time.sleep(min(wanted, PAUSE_SECONDS_MAX))
    said = "nothing" if answer is None else f"{answer.status_code} {answer.text}"
    raise DemoError(f"GET {path} is answered {said}; the stampede can't be checked without it")
