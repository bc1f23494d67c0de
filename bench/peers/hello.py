"""FastAPI's hello world with the route, body model and answer of a booking, and nothing behind them."""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel, Field

app = FastAPI(title="Hello world")


class NewBooking(BaseModel):
    """The body of `POST /events/{id}/bookings`."""

    user_id: str = Field(min_length=1, max_length=128)
    ticket_count: int = Field(ge=1, le=2)


class Job(BaseModel):
    """As much of an answer as Onsale gives."""

    id: str
    kind: str
    event_id: str
    status: str
    done: bool
    created_at: str
    finished_at: str | None
    position: int
    ahead: int
    estimated_wait_seconds: float | None
    booking_id: str | None
    booking: None
    event: None
    error: None


class Event(BaseModel):
    """So much of an event that the load generator can name one."""

    id: str


@app.post("/events", status_code=201)
async def create_event() -> Event:
    """An event that is nowhere."""
    return Event(id="01a206d1-0000-7000-8000-000000000000")


@app.post("/events/{event_id}/bookings", status_code=202)
async def book(event_id: str, body: NewBooking) -> Job:
    """Say that a booking was accepted."""
    return Job(
        id="01a206d1-0000-7000-8000-000000000001",
        kind="book",
        event_id=event_id,
        status="queued",
        done=False,
        created_at="2026-11-23T10:00:00.000000Z",
        finished_at=None,
        position=body.ticket_count,
        ahead=0,
        estimated_wait_seconds=None,
        booking_id="01a206d1-0000-7000-8000-000000000001",
        booking=None,
        event=None,
        error=None,
    )
