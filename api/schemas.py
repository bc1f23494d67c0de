"""What comes in and goes out over HTTP, as the OpenAPI document shows it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared import limits

_NO_CONTROL_CHARACTERS = r"^[^\x00-\x1f\x7f-\x9f]*$"


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class EventRequest(_Request):
    """An event to put on sale."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Test Event", "total_tickets": 10}]})

    name: Annotated[
        str,
        Field(min_length=1, max_length=limits.EVENT_NAME_LENGTH_MAX, pattern=_NO_CONTROL_CHARACTERS),
    ]
    total_tickets: Annotated[int, Field(ge=1, le=limits.TICKETS_PER_EVENT_MAX)]


class BookingRequest(_Request):
    """Tickets that a user wants."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "user1", "ticket_count": 1}]})

    user_id: Annotated[
        str,
        Field(min_length=1, max_length=limits.USER_ID_LENGTH_MAX, pattern=_NO_CONTROL_CHARACTERS),
    ]
    ticket_count: Annotated[int, Field(ge=1, le=limits.TICKETS_PER_BOOKING_MAX)]


class Event(BaseModel):
    """An event, as of the last applied batch."""

    id: str
    name: str
    total_tickets: int
    available_tickets: int
    max_tickets_per_user: int
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
    kind: Literal["book", "cancel", "repeat", "unknown"]
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
    error: Problem | None


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """Whether commands can be accepted, and what stands behind that."""

    status: Literal["ready", "degraded", "unavailable"]
    redis: Literal["ok", "unavailable"]
    postgresql: Literal["ok", "unavailable"]
    durability: Literal["always", "everysec", "none", "unknown"]
    durability_required: Literal["always", "everysec", "none"]
    replicas: int
    replicas_required: int
