"""What is stored and passed on about events, bookings and commands, and how it looks as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import TypedDict

from msgspec import Struct
from msgspec.structs import replace

from shared.clock import format_time, parse_time
from shared.domain import BookingState, BookingStatus, CommandKind, OutcomeCode, SaleTerms


class EventRecord(Struct, frozen=True, kw_only=True):
    """A row of `events`. `ledger_digest` and `seal` are explained in `shared.seals`.

    Who may decide about the event is `organiser_id`; None where nobody had to say who they are. One with
    `archived_at` is only a trace: its bookings and its ledger are in a file.
    """

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
    organiser_id: str | None = None
    sales_open_at: datetime | None = None
    sales_closed: bool = False
    archived_at: datetime | None = None


class BookingRecord(Struct, frozen=True, kw_only=True):
    """A row of `bookings`."""

    id: str
    event_id: str
    user_id: str
    ticket_count: int
    status: BookingStatus
    created_at: datetime
    updated_at: datetime


class LedgerRecord(Struct, frozen=True, kw_only=True):
    """A row of `ledger`: one applied command and its outcome, for ever.

    `trace` is that of the request that it came with, if its client sent one; see `shared.trace`.
    """

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
    trace: str | None = None


class CommandPayload(TypedDict, total=False):
    """What a command says, as it travels in the RQ job and rests in the ledger."""

    v: int
    kind: str
    user_id: str
    ticket_count: int
    booking_id: str
    job_id: str
    name: str
    total_tickets: int
    sales_open_at: str
    sales_closed: bool


class EventTerms(TypedDict):
    """What an organiser decides about an event, as the ledger keeps it."""

    name: str
    total_tickets: int
    max_tickets_per_user: int
    sales_open_at: str | None
    sales_closed: bool


class EventView(TypedDict):
    """An event as the HTTP API shows it."""

    id: str
    name: str
    total_tickets: int
    available_tickets: int
    max_tickets_per_user: int
    sales_open_at: str | None
    sales_closed: bool
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


class LedgerView(TypedDict):
    """A row of the ledger as the HTTP API shows it."""

    position: int
    job_id: str
    kind: str
    command: CommandPayload | None
    outcome: str
    detail: OutcomeDetail
    booking_id: str | None
    accepted_at: str
    applied_at: str


class OutcomeDetail(TypedDict, total=False):
    """What an outcome's code does not say: the booking, the change, or the figures that explain a refusal."""

    booking: BookingView
    event: EventView
    terms_before: EventTerms
    sales_open_at: str
    sold_tickets: int
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
        sales_open_at=_optional_time(event.sales_open_at),
        sales_closed=event.sales_closed,
        created_at=format_time(event.created_at),
    )


def sale_terms(event: EventRecord) -> SaleTerms:
    """As much of an event as its organiser decides."""
    return SaleTerms(
        name=event.name,
        total_tickets=event.total_tickets,
        max_tickets_per_user=event.max_tickets_per_user,
        sales_open_at=event.sales_open_at,
        sales_closed=event.sales_closed,
    )


def with_terms(event: EventRecord, terms: SaleTerms) -> EventRecord:
    """The same event under these terms; its tickets are not counted anew."""
    return replace(
        event,
        name=terms.name,
        total_tickets=terms.total_tickets,
        max_tickets_per_user=terms.max_tickets_per_user,
        sales_open_at=terms.sales_open_at,
        sales_closed=terms.sales_closed,
    )


def event_terms(terms: SaleTerms) -> EventTerms:
    """Terms as JSON."""
    return EventTerms(
        name=terms.name,
        total_tickets=terms.total_tickets,
        max_tickets_per_user=terms.max_tickets_per_user,
        sales_open_at=_optional_time(terms.sales_open_at),
        sales_closed=terms.sales_closed,
    )


def read_event_terms(terms: EventTerms) -> SaleTerms:
    """Terms from JSON.

    Raises:
        KeyError, TypeError, ValueError: they are not what `event_terms` writes.
    """
    opens = terms["sales_open_at"]
    return SaleTerms(
        name=terms["name"],
        total_tickets=terms["total_tickets"],
        max_tickets_per_user=terms["max_tickets_per_user"],
        sales_open_at=None if opens is None else parse_time(opens),
        sales_closed=terms["sales_closed"],
    )


def _optional_time(moment: datetime | None) -> str | None:
    return None if moment is None else format_time(moment)


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


def ledger_view(entry: LedgerRecord) -> LedgerView:
    """Show a row of the ledger."""
    return LedgerView(
        position=entry.position,
        job_id=entry.job_id,
        kind=entry.kind.value,
        command=entry.payload,
        outcome=entry.outcome.value,
        detail=entry.detail,
        booking_id=entry.booking_id,
        accepted_at=format_time(entry.accepted_at),
        applied_at=format_time(entry.applied_at),
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
