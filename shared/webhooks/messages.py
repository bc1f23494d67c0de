"""Which messages a ledger tells to the organiser. Pure: what is made of the same rows is the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

import orjson

from shared.clock import format_time
from shared.domain import OutcomeCode
from shared.identifiers import derived_id
from shared.records import BookingView, CommandPayload, LedgerRecord, booked_view


class MessageType(StrEnum):
    """What a webhook can be registered for. In the order in which one ledger row tells them."""

    BOOKING_CANCELLED = "booking.cancelled"
    BOOKING_CREATED = "booking.created"
    EVENT_SOLD_OUT = "event.sold_out"


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerMessage:
    """What one row of a ledger tells; `body` is what is sent."""

    type: MessageType
    position: int
    body: str


def messages_of(entries: Iterable[LedgerRecord], available_tickets: int) -> tuple[int, list[LedgerMessage]]:
    """What these rows tell, in order, and the tickets that are left after them.

    `entries` follow each other in one event's ledger; `available_tickets` are left before the first.
    Cutting the rows anywhere gives the same.

    Raises:
        KeyError, TypeError: a row is not one that the rules have made.
    """
    messages: list[LedgerMessage] = []
    for entry in entries:
        left = available_tickets + tickets_returned(entry)
        messages.extend(_messages_of_row(entry, sold_out=left <= 0 < available_tickets))
        available_tickets = left
    return available_tickets, messages


def tickets_returned(entry: LedgerRecord) -> int:
    """By how much a command changed the tickets that are left; negative if it sold some."""
    match entry.outcome:
        case OutcomeCode.BOOKED:
            return -_payload(entry)["ticket_count"]
        case OutcomeCode.CANCELLED:
            return entry.detail["booking"]["ticket_count"]
        case OutcomeCode.CHANGED:
            detail = entry.detail
            return detail["event"]["total_tickets"] - detail["terms_before"]["total_tickets"]
        case (
            OutcomeCode.NOT_ENOUGH_TICKETS
            | OutcomeCode.USER_LIMIT_EXCEEDED
            | OutcomeCode.ALREADY_CANCELLED
            | OutcomeCode.BOOKING_NOT_FOUND
            | OutcomeCode.SALES_NOT_OPEN
            | OutcomeCode.SALES_CLOSED
            | OutcomeCode.TOTAL_BELOW_SOLD
            | OutcomeCode.COMMAND_UNREADABLE
            | OutcomeCode.EVENT_NOT_FOUND
            | OutcomeCode.POSITION_TAKEN
            | OutcomeCode.WITHDRAWN
            | OutcomeCode.REPEATED
            | OutcomeCode.IDEMPOTENCY_KEY_REUSED
        ):
            return 0
        case _:
            assert_never(entry.outcome)


def message_id(webhook_id: str, position: int, type: MessageType) -> str:
    """The id of a webhook's message, the same however often it is made and sent."""
    return derived_id("webhook message", webhook_id, str(position), type.value)


def _messages_of_row(entry: LedgerRecord, *, sold_out: bool) -> list[LedgerMessage]:
    messages = []
    if entry.outcome is OutcomeCode.BOOKED:
        booking = booked_view(entry.job_id, entry.event_id, _payload(entry), format_time(entry.applied_at))
        messages.append(_message(entry, MessageType.BOOKING_CREATED, {"booking": booking}))
    elif entry.outcome is OutcomeCode.CANCELLED:
        messages.append(_message(entry, MessageType.BOOKING_CANCELLED, {"booking": entry.detail["booking"]}))
    if sold_out:
        messages.append(_message(entry, MessageType.EVENT_SOLD_OUT, {}))
    return messages


def _payload(entry: LedgerRecord) -> CommandPayload:
    return entry.payload or CommandPayload()


def _message(entry: LedgerRecord, type: MessageType, members: Mapping[str, BookingView]) -> LedgerMessage:
    data = {"event_id": entry.event_id, "position": entry.position, "job_id": entry.job_id, **members}
    body = {"type": type.value, "timestamp": format_time(entry.applied_at), "data": data}
    return LedgerMessage(type=type, position=entry.position, body=orjson.dumps(body).decode())
