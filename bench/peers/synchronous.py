"""The design that Onsale replaces: synchronous FastAPI, SQLAlchemy's ORM, and a row lock per booking.

Run it with `uvicorn bench.peers.synchronous:app` and `DATABASE_URL`. `PEER_POOL_SIZE`,
`PEER_POOL_OVERFLOW` and `PEER_THREADS` set how many bookings it tries at once.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from enum import StrEnum

import anyio.to_thread
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import (
    CheckConstraint,
    DateTime,
    ForeignKey,
    Index,
    create_engine,
    func,
    select,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

SCHEMA = "peer"
TICKETS_PER_USER_MAX = 2
POOL_TIMEOUT_SECONDS = 30
SCHEMA_LOCK = 7_230_001
"""Key of the advisory lock under which one of several processes creates the tables."""


class BookingStatus(StrEnum):
    """Where a booking stands."""

    ACTIVE = "active"
    CANCELLED = "cancelled"


def _now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """The tables of this program."""


class Event(Base):
    """What tickets are sold for."""

    __tablename__ = "events"
    __table_args__ = (
        CheckConstraint("available_tickets BETWEEN 0 AND total_tickets", name="events_never_oversold"),
        {"schema": SCHEMA},
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    name: Mapped[str]
    total_tickets: Mapped[int]
    available_tickets: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=_now)


class Booking(Base):
    """One or two tickets of one user."""

    __tablename__ = "bookings"
    __table_args__ = (Index("bookings_of_user", "event_id", "user_id"), {"schema": SCHEMA})

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    event_id: Mapped[uuid.UUID] = mapped_column(ForeignKey(Event.id))
    user_id: Mapped[str]
    ticket_count: Mapped[int]
    status: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=_now)
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=_now, onupdate=_now)


class NewEvent(BaseModel):
    """The body of `POST /events`."""

    name: str = Field(min_length=1, max_length=200)
    total_tickets: int = Field(ge=1, le=10_000_000)


class NewBooking(BaseModel):
    """The body of `POST /events/{id}/bookings`."""

    user_id: str = Field(min_length=1, max_length=128)
    ticket_count: int = Field(ge=1, le=2)


class EventAnswer(BaseModel):
    """An event as clients see it."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    name: str
    total_tickets: int
    available_tickets: int
    created_at: datetime


class BookingAnswer(BaseModel):
    """A booking as clients see it."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    event_id: uuid.UUID
    user_id: str
    ticket_count: int
    status: str
    created_at: datetime
    updated_at: datetime


engine = create_engine(
    os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg2://", 1),
    pool_size=int(os.environ.get("PEER_POOL_SIZE", "5")),
    max_overflow=int(os.environ.get("PEER_POOL_OVERFLOW", "10")),
    pool_timeout=POOL_TIMEOUT_SECONDS,
)
# Without expire_on_commit=False the answer would cost one more SELECT after the commit.
open_session = sessionmaker(engine, expire_on_commit=False)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Create the tables once, and let so many requests work at once as was asked for."""
    with engine.begin() as connection:
        connection.execute(select(func.pg_advisory_xact_lock(SCHEMA_LOCK)))
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
        Base.metadata.create_all(connection)
    anyio.to_thread.current_default_thread_limiter().total_tokens = int(os.environ.get("PEER_THREADS", "40"))
    yield
    engine.dispose()


app = FastAPI(title="Synchronous peer", lifespan=lifespan)


@app.post("/events", status_code=201, response_model=EventAnswer)
def create_event(body: NewEvent) -> Event:
    """Put an event on sale."""
    with open_session.begin() as session:
        event = Event(name=body.name, total_tickets=body.total_tickets, available_tickets=body.total_tickets)
        session.add(event)
    return event


@app.get("/events/{event_id}", response_model=EventAnswer)
def get_event(event_id: uuid.UUID) -> Event:
    """The event as of the last commit."""
    with open_session() as session:
        event = session.get(Event, event_id)
    if event is None:
        raise HTTPException(404, "event not found")
    return event


@app.post("/events/{event_id}/bookings", status_code=201, response_model=BookingAnswer)
def create_booking(event_id: uuid.UUID, body: NewBooking) -> Booking:
    """Book in one transaction, under the lock of the event's row."""
    with open_session.begin() as session:
        event = _lock_event(session, event_id)
        if tickets_of_user(session, event_id, body.user_id) + body.ticket_count > TICKETS_PER_USER_MAX:
            raise HTTPException(400, "user limit exceeded")
        if event.available_tickets < body.ticket_count:
            raise HTTPException(400, "not enough tickets")
        booking = Booking(
            event_id=event_id,
            user_id=body.user_id,
            ticket_count=body.ticket_count,
            status=BookingStatus.ACTIVE,
        )
        session.add(booking)
        event.available_tickets -= body.ticket_count
    return booking


@app.delete("/bookings/{booking_id}", response_model=BookingAnswer)
def cancel_booking(booking_id: uuid.UUID) -> Booking:
    """Cancel in one transaction; the tickets return to the event."""
    with open_session.begin() as session:
        booking = session.get(Booking, booking_id)
        if booking is None:
            raise HTTPException(404, "booking not found")
        # The event first, as a booking does, and the status read again under its lock.
        event = _lock_event(session, booking.event_id)
        session.refresh(booking)
        if booking.status == BookingStatus.CANCELLED:
            raise HTTPException(400, "already cancelled")
        booking.status = BookingStatus.CANCELLED
        event.available_tickets += booking.ticket_count
    return booking


def _lock_event(session: Session, event_id: uuid.UUID) -> Event:
    event = session.scalar(select(Event).where(Event.id == event_id).with_for_update())
    if event is None:
        raise HTTPException(404, "event not found")
    return event


def tickets_of_user(session: Session, event_id: uuid.UUID, user_id: str) -> int:
    total = session.scalar(
        select(func.coalesce(func.sum(Booking.ticket_count), 0)).where(
            Booking.event_id == event_id,
            Booking.user_id == user_id,
            Booking.status == BookingStatus.ACTIVE,
        )
    )
    return int(total or 0)
