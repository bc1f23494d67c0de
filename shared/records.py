"""What is stored and passed on about events, bookings and commands, and how it looks as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict

from shared.clock import format_time
from shared.domain import BookingState, BookingStatus, CommandKind, OutcomeCode


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """A row of `events`. `ledger_digest` and `seal` are explained in `shared.seals`."""

    id: str
    name: str
    total_tickets: int
    available_tickets: int
    max_tickets_per_user: int
    applied_position: int
    fencing_token: int
    created_at: datetime
    updated_at: datetime
    ledger_digest: bytes
    seal: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BookingRecord:
    """A row of `bookings`."""

    id: str
    event_id: str
    user_id: str
    ticket_count: int
    status: BookingStatus
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRecord:
    """A row of `ledger`: one applied command and its outcome, for ever."""

    job_id: str
    event_id: str
    position: int
    kind: CommandKind
    payload: CommandPayload | None
    outcome: OutcomeCode
    detail: OutcomeDetail
    booking_id: str | None
    accepted_at: datetime
    applied_at: datetime


class CommandPayload(TypedDict, total=False):
    """What a command says, as it travels in the RQ job and rests in the ledger."""

    v: int
    kind: str
    user_id: str
    ticket_count: int
    booking_id: str
    job_id: str


class EventView(TypedDict):
    """An event as the HTTP API shows it."""

    id: str
    name: str
    total_tickets: int
    available_tickets: int
    max_tickets_per_user: int
    created_at: str


class BookingView(TypedDict):
    """A booking as the HTTP API shows it."""

    id: str
    event_id: str
    user_id: str
    ticket_count: int
    status: str
    created_at: str
    updated_at: str


class OutcomeDetail(TypedDict, total=False):
    """What an outcome's code does not say: the booking, or the figures that explain a refusal."""

    booking: BookingView
    available_tickets: int
    held_tickets: int
    max_tickets_per_user: int
    reason: str


class JobResult(TypedDict):
    """The outcome of a job: RQ's return value, and what is told to those who wait."""

    status: str
    outcome: str
    booking_id: str | None
    applied_at: str
    detail: OutcomeDetail


def booking_state(booking: BookingRecord) -> BookingState:
    """As much of a booking as the rules need."""
    return BookingState(user_id=booking.user_id, ticket_count=booking.ticket_count, status=booking.status)


def event_view(event: EventRecord) -> EventView:
    """Show an event."""
    return EventView(
        id=event.id,
        name=event.name,
        total_tickets=event.total_tickets,
        available_tickets=event.available_tickets,
        max_tickets_per_user=event.max_tickets_per_user,
        created_at=format_time(event.created_at),
    )


def booking_view(booking: BookingRecord) -> BookingView:
    """Show a booking."""
    return BookingView(
        id=booking.id,
        event_id=booking.event_id,
        user_id=booking.user_id,
        ticket_count=booking.ticket_count,
        status=booking.status.value,
        created_at=format_time(booking.created_at),
        updated_at=format_time(booking.updated_at),
    )


def job_result(entry: LedgerRecord) -> JobResult:
    """The outcome of a command, made from its ledger row alone, now or in years."""
    return JobResult(
        status=entry.outcome.job_status.value,
        outcome=entry.outcome.value,
        booking_id=entry.booking_id,
        applied_at=format_time(entry.applied_at),
        detail=entry.detail,
    )


def booked_view(job_id: str, event_id: str, payload: CommandPayload, applied_at: str) -> BookingView:
    """A booking as it was made. It follows from its command, so neither ledger nor result repeats it."""
    return BookingView(
        id=job_id,
        event_id=event_id,
        user_id=payload["user_id"],
        ticket_count=payload["ticket_count"],
        status=BookingStatus.ACTIVE.value,
        created_at=applied_at,
        updated_at=applied_at,
    )
