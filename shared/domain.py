"""The rules of selling: commands, outcomes, and `apply_batch`, the one function that decides.

Standard library only, but for what the values are made of; no clock, no random numbers, no input or output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace


class CommandKind(StrEnum):
    """What a command asks for."""

    BOOK = "book"
    CANCEL = "cancel"
    CHANGE = "change"
    REPEAT = "repeat"
    UNKNOWN = "unknown"


class BookingStatus(StrEnum):
    """A booking is made active and may be cancelled once."""

    ACTIVE = "active"
    CANCELLED = "cancelled"


class JobStatus(StrEnum):
    """How far a command has come, as the HTTP API tells it."""

    QUEUED = "queued"
    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    FAILED = "failed"


class OutcomeCode(StrEnum):
    """Everything that can become of an applied command; the set is closed."""

    BOOKED = "booked"
    CANCELLED = "cancelled"
    CHANGED = "changed"
    NOT_ENOUGH_TICKETS = "not-enough-tickets"
    USER_LIMIT_EXCEEDED = "user-limit-exceeded"
    ALREADY_CANCELLED = "already-cancelled"
    BOOKING_NOT_FOUND = "booking-not-found"
    SALES_NOT_OPEN = "sales-not-open"
    SALES_CLOSED = "sales-closed"
    TOTAL_BELOW_SOLD = "total-below-sold"
    COMMAND_UNREADABLE = "command-unreadable"
    EVENT_NOT_FOUND = "event-not-found"
    POSITION_TAKEN = "position-taken"
    WITHDRAWN = "withdrawn"
    REPEATED = "repeated"
    IDEMPOTENCY_KEY_REUSED = "idempotency-key-reused"

    @property
    def job_status(self) -> JobStatus:
        """The status of a job with this outcome."""
        return _JOB_STATUS_OF_OUTCOME[self]


_JOB_STATUS_OF_OUTCOME: Mapping[OutcomeCode, JobStatus] = {
    OutcomeCode.BOOKED: JobStatus.SUCCEEDED,
    OutcomeCode.CANCELLED: JobStatus.SUCCEEDED,
    OutcomeCode.CHANGED: JobStatus.SUCCEEDED,
    OutcomeCode.NOT_ENOUGH_TICKETS: JobStatus.REJECTED,
    OutcomeCode.USER_LIMIT_EXCEEDED: JobStatus.REJECTED,
    OutcomeCode.ALREADY_CANCELLED: JobStatus.REJECTED,
    OutcomeCode.BOOKING_NOT_FOUND: JobStatus.REJECTED,
    OutcomeCode.SALES_NOT_OPEN: JobStatus.REJECTED,
    OutcomeCode.SALES_CLOSED: JobStatus.REJECTED,
    OutcomeCode.TOTAL_BELOW_SOLD: JobStatus.REJECTED,
    OutcomeCode.COMMAND_UNREADABLE: JobStatus.FAILED,
    OutcomeCode.EVENT_NOT_FOUND: JobStatus.FAILED,
    OutcomeCode.POSITION_TAKEN: JobStatus.FAILED,
    OutcomeCode.WITHDRAWN: JobStatus.WITHDRAWN,
    OutcomeCode.REPEATED: JobStatus.REJECTED,
    OutcomeCode.IDEMPOTENCY_KEY_REUSED: JobStatus.REJECTED,
}


class BookTickets(Struct, frozen=True, kw_only=True):
    """Sell `ticket_count` tickets to `user_id`; the booking takes the command's id.

    Whether sales are open is asked of the time when the command was accepted, so that waiting in line
    makes no difference.
    """

    id: str
    user_id: str
    ticket_count: int
    accepted_at: datetime


class CancelBooking(Struct, frozen=True, kw_only=True):
    """Give the tickets of `booking_id` back."""

    id: str
    booking_id: str


class ChangeEvent(Struct, frozen=True, kw_only=True):
    """Change the terms of the event; None leaves a term as it is."""

    id: str
    name: str | None = None
    total_tickets: int | None = None
    sales_open_at: datetime | None = None
    sales_closed: bool | None = None


class UnreadableCommand(Struct, frozen=True, kw_only=True):
    """A command that was accepted and can't be understood; it fails with `reason` and blocks nobody."""

    id: str
    reason: str


class WithdrawnCommand(Struct, frozen=True, kw_only=True):
    """A command of this kind that its client took back before its turn; it keeps its position."""

    id: str
    kind: CommandKind


class RepeatedCommand(Struct, frozen=True, kw_only=True):
    """A command that was applied before and has been given a second position, which it fills.

    It happens when a client repeats a command while nobody can look into the ledger.
    """

    id: str
    job_id: str


Command = BookTickets | CancelBooking | ChangeEvent | UnreadableCommand | WithdrawnCommand | RepeatedCommand


def kind_of(command: Command) -> CommandKind:
    """What a command asks for."""
    match command:
        case BookTickets():
            return CommandKind.BOOK
        case CancelBooking():
            return CommandKind.CANCEL
        case ChangeEvent():
            return CommandKind.CHANGE
        case UnreadableCommand():
            return CommandKind.UNKNOWN
        case WithdrawnCommand():
            return command.kind
        case RepeatedCommand():
            return CommandKind.REPEAT


class BookingState(Struct, frozen=True, kw_only=True):
    """As much of a booking as the rules need."""

    user_id: str
    ticket_count: int
    status: BookingStatus


class SaleTerms(Struct, frozen=True, kw_only=True):
    """What an organiser decides about an event. Without `sales_open_at` sales are open from the start."""

    name: str
    total_tickets: int
    max_tickets_per_user: int
    sales_open_at: datetime | None = None
    sales_closed: bool = False


class EventState(Struct, frozen=True, kw_only=True):
    """As much of one event as a batch needs to be decided.

    `holdings` are the active tickets of every user that the batch names, `bookings` the bookings that
    it names; who is missing holds nothing, and what is missing does not exist.
    """

    terms: SaleTerms
    available_tickets: int
    holdings: Mapping[str, int]
    bookings: Mapping[str, BookingState]


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of one command. The figures are those that a refusal or a change names."""

    command_id: str
    code: OutcomeCode
    booking_id: str | None = None
    available_tickets: int | None = None
    held_tickets: int | None = None
    sold_tickets: int | None = None
    terms_before: SaleTerms | None = None
    terms: SaleTerms | None = None
    reason: str | None = None


def apply_batch(state: EventState, commands: Sequence[Command]) -> tuple[EventState, list[Outcome]]:
    """Decide each command in order; give the new state and one outcome per command, in the same order.

    Total and deterministic: every command gets an outcome, a refusal is a value, nothing is raised.
    Cutting a batch anywhere and applying the parts one after the other gives the same.
    """
    draft = _Draft(
        terms=state.terms,
        available_tickets=state.available_tickets,
        holdings=dict(state.holdings),
        bookings=dict(state.bookings),
    )
    outcomes = [_apply(draft, command) for command in commands]
    return (
        replace(
            state,
            terms=draft.terms,
            available_tickets=draft.available_tickets,
            holdings=draft.holdings,
            bookings=draft.bookings,
        ),
        outcomes,
    )


@dataclass(slots=True, kw_only=True)
class _Draft:
    """The state while a batch is being decided; never leaves `apply_batch`."""

    terms: SaleTerms
    available_tickets: int
    holdings: dict[str, int]
    bookings: dict[str, BookingState]


def _apply(draft: _Draft, command: Command) -> Outcome:
    match command:
        case BookTickets():
            return _book(draft, command)
        case CancelBooking():
            return _cancel(draft, command)
        case ChangeEvent():
            return _change(draft, command)
        case UnreadableCommand():
            return Outcome(command_id=command.id, code=OutcomeCode.COMMAND_UNREADABLE, reason=command.reason)
        case WithdrawnCommand():
            return Outcome(command_id=command.id, code=OutcomeCode.WITHDRAWN)
        case RepeatedCommand():
            return Outcome(command_id=command.id, code=OutcomeCode.REPEATED)
        case _:
            assert_never(command)


def _book(draft: _Draft, command: BookTickets) -> Outcome:
    """The user's limit is asked before the tickets: returned ones would not help who is over it."""
    terms = draft.terms
    held = draft.holdings.get(command.user_id, 0)
    if command.ticket_count < 1:
        return Outcome(
            command_id=command.id,
            code=OutcomeCode.COMMAND_UNREADABLE,
            reason=f"ticket_count is {command.ticket_count}; it must be at least 1",
        )
    if terms.sales_closed:
        return Outcome(command_id=command.id, code=OutcomeCode.SALES_CLOSED)
    if not sales_are_open(terms.sales_open_at, command.accepted_at):
        return Outcome(command_id=command.id, code=OutcomeCode.SALES_NOT_OPEN, terms=terms)
    if held + command.ticket_count > terms.max_tickets_per_user:
        return Outcome(command_id=command.id, code=OutcomeCode.USER_LIMIT_EXCEEDED, held_tickets=held)
    if command.ticket_count > draft.available_tickets:
        return Outcome(
            command_id=command.id,
            code=OutcomeCode.NOT_ENOUGH_TICKETS,
            available_tickets=draft.available_tickets,
        )
    draft.available_tickets -= command.ticket_count
    draft.holdings[command.user_id] = held + command.ticket_count
    draft.bookings[command.id] = BookingState(
        user_id=command.user_id, ticket_count=command.ticket_count, status=BookingStatus.ACTIVE
    )
    return Outcome(command_id=command.id, code=OutcomeCode.BOOKED, booking_id=command.id)


def _cancel(draft: _Draft, command: CancelBooking) -> Outcome:
    booking = draft.bookings.get(command.booking_id)
    if booking is None:
        return Outcome(
            command_id=command.id, code=OutcomeCode.BOOKING_NOT_FOUND, booking_id=command.booking_id
        )
    if booking.status is BookingStatus.CANCELLED:
        return Outcome(
            command_id=command.id, code=OutcomeCode.ALREADY_CANCELLED, booking_id=command.booking_id
        )
    draft.available_tickets += booking.ticket_count
    draft.holdings[booking.user_id] = draft.holdings.get(booking.user_id, 0) - booking.ticket_count
    draft.bookings[command.booking_id] = replace(booking, status=BookingStatus.CANCELLED)
    return Outcome(command_id=command.id, code=OutcomeCode.CANCELLED, booking_id=command.booking_id)


def sales_are_open(sales_open_at: datetime | None, accepted_at: datetime) -> bool:
    """Whether a booking that was accepted then comes late enough."""
    return sales_open_at is None or accepted_at >= sales_open_at


def _change(draft: _Draft, command: ChangeEvent) -> Outcome:
    """Never below what is sold: nobody who has a ticket loses it."""
    before = draft.terms
    sold = before.total_tickets - draft.available_tickets
    after = SaleTerms(
        name=before.name if command.name is None else command.name,
        total_tickets=before.total_tickets if command.total_tickets is None else command.total_tickets,
        max_tickets_per_user=before.max_tickets_per_user,
        sales_open_at=before.sales_open_at if command.sales_open_at is None else command.sales_open_at,
        sales_closed=before.sales_closed if command.sales_closed is None else command.sales_closed,
    )
    if after.total_tickets < max(sold, 1):
        return Outcome(command_id=command.id, code=OutcomeCode.TOTAL_BELOW_SOLD, sold_tickets=sold)
    draft.terms = after
    draft.available_tickets = after.total_tickets - sold
    return Outcome(
        command_id=command.id,
        code=OutcomeCode.CHANGED,
        available_tickets=draft.available_tickets,
        terms_before=before,
        terms=after,
    )
