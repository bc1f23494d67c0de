"""What comes in and goes out over HTTP, as the OpenAPI document shows it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, with_config
from typing_extensions import TypedDict

from shared import limits

_NO_CONTROL_CHARACTERS = r"^[^\x00-\x1f\x7f-\x9f]*$"
_BEGINS_WITH_A_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _integral(value: object) -> object:
    """JSON has one kind of numbers: 2.0 is as whole as 2."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _only_text(value: object) -> object:
    """A number would pass for the seconds since 1970, also one that is written as text."""
    if not isinstance(value, str) or not _BEGINS_WITH_A_DATE.match(value):
        raise ValueError("write the time as text, as in RFC 3339")
    return value


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("use a time whose year, in UTC, is between 1 and 9999") from error


_EventName = Annotated[
    str, Field(min_length=1, max_length=limits.EVENT_NAME_LENGTH_MAX, pattern=_NO_CONTROL_CHARACTERS)
]
_TotalTickets = Annotated[int, Field(ge=1, le=limits.TICKETS_PER_EVENT_MAX), BeforeValidator(_integral)]
# Not strict: JSON has no times, only texts.
_SalesOpenAt = Annotated[
    AwareDatetime,
    Field(strict=False, description="when sales open, with a time zone; earlier bookings are refused"),
    BeforeValidator(_only_text),
    AfterValidator(_in_utc),
]


class EventRequest(_Request):
    """An event to put on sale."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Test Event", "total_tickets": 10}]})

    name: _EventName
    total_tickets: _TotalTickets
    max_tickets_per_user: Annotated[
        int, Field(ge=1, le=limits.MAX_TICKETS_PER_USER_MAX), BeforeValidator(_integral)
    ] = limits.MAX_TICKETS_PER_USER_DEFAULT
    sales_open_at: _SalesOpenAt | None = None


@with_config(
    extra="forbid",
    strict=True,
    json_schema_extra={"minProperties": 1, "examples": [{"total_tickets": 12}, {"sales_closed": True}]},
)
class EventChange(TypedDict, total=False):
    """What is to change about an event; what is left out stays as it is."""

    name: _EventName
    total_tickets: _TotalTickets
    sales_open_at: _SalesOpenAt
    sales_closed: bool


UserId = Annotated[
    str, Field(min_length=1, max_length=limits.USER_ID_LENGTH_MAX, pattern=_NO_CONTROL_CHARACTERS)
]


class BookingRequest(_Request):
    """Tickets that a user wants."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "user1", "ticket_count": 1}]})

    user_id: UserId
    ticket_count: Annotated[int, Field(ge=1, le=limits.TICKETS_PER_BOOKING_MAX), BeforeValidator(_integral)]


class Event(BaseModel):
    """An event, as of the last applied batch."""

    id: str
    name: str
    total_tickets: int
    available_tickets: int
    max_tickets_per_user: int
    sales_open_at: str | None
    sales_closed: bool
    created_at: str


class Booking(BaseModel):
    """Tickets sold to a user, until they are cancelled."""

    id: str
    event_id: str
    user_id: str
    ticket_count: int
    status: Literal["active", "cancelled"]
    created_at: str
    updated_at: str


class FieldProblem(BaseModel):
    """A field that is wrong, and why."""

    field: str
    message: str


class Problem(BaseModel):
    """Why a request, or the command that it made, did not succeed (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] | None = None
    available_tickets: int | None = None
    held_tickets: int | None = None
    max_tickets_per_user: int | None = None
    sold_tickets: int | None = None
    sales_open_at: str | None = None


class Job(BaseModel):
    """A command and how far it has come.

    `position` is its place in the event's line, for ever; `ahead` is how many commands are still before it.
    `estimated_wait_seconds` is null where nobody can tell: at the start, or while the line stands still.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "01a206d1-4c1f-7d5e-9a53-6e1f6f2d8a11",
                    "kind": "book",
                    "event_id": "01a206d1-4a02-7c44-8c0b-0f6a7be1d9c2",
                    "status": "queued",
                    "done": False,
                    "created_at": "2026-11-23T10:00:00.000000Z",
                    "finished_at": None,
                    "position": 812,
                    "ahead": 311,
                    "estimated_wait_seconds": 0.062,
                    "booking_id": "01a206d1-4c1f-7d5e-9a53-6e1f6f2d8a11",
                    "booking": None,
                    "error": None,
                }
            ]
        }
    )

    id: str
    kind: Literal["book", "cancel", "change", "repeat", "unknown"]
    event_id: str
    status: Literal["queued", "succeeded", "rejected", "withdrawn", "failed"]
    done: bool
    created_at: str
    finished_at: str | None
    position: int
    ahead: int
    estimated_wait_seconds: float | None
    booking_id: str | None
    booking: Booking | None
    event: Event | None
    error: Problem | None


class LedgerEntry(BaseModel):
    """An applied command and its outcome, for ever."""

    position: int
    job_id: str
    kind: Literal["book", "cancel", "change", "repeat", "unknown"]
    command: dict[str, Any] | None
    outcome: str
    detail: dict[str, Any]
    booking_id: str | None
    accepted_at: str
    applied_at: str


class _Page(BaseModel):
    next_cursor: str | None


class EventPage(_Page):
    """A page of events."""

    items: list[Event]


class BookingPage(_Page):
    """A page of bookings."""

    items: list[Booking]


class LedgerPage(_Page):
    """A page of a ledger."""

    items: list[LedgerEntry]


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """Whether commands can be accepted, and what stands behind that."""

    status: Literal["ready", "degraded", "draining", "unavailable"]
    redis: Literal["ok", "unavailable"]
    postgresql: Literal["ok", "unavailable"]
    durability: Literal["always", "everysec", "none", "unknown"]
    durability_required: Literal["always", "everysec", "none"]
    replicas: int
    replicas_required: int
