"""From outcomes to rows: what a decided batch writes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from msgspec.structs import replace

from shared.clock import format_time
from shared.domain import BookingStatus, BookTickets, Outcome, OutcomeCode
from shared.line.codec import WaitingCommand
from shared.records import (
    BookingRecord,
    EventRecord,
    LedgerRecord,
    OutcomeDetail,
    booking_view,
    event_terms,
    event_view,
    with_terms,
)


@dataclass(slots=True, kw_only=True)
class BatchRecords:
    """The rows of a batch: one ledger row per command, new bookings, and older ones that were cancelled."""

    entries: list[LedgerRecord] = field(default_factory=list)
    made: dict[str, BookingRecord] = field(default_factory=dict)
    cancelled: dict[str, BookingRecord] = field(default_factory=dict)


def batch_records(
    event: EventRecord,
    bookings: Mapping[str, BookingRecord],
    commands: Sequence[WaitingCommand],
    outcomes: Sequence[Outcome],
    applied_at: datetime,
) -> BatchRecords:
    """The rows for `commands`, which follow the event's last applied position, with their outcomes."""
    records = BatchRecords()
    for position, (waiting, outcome) in enumerate(
        zip(commands, outcomes, strict=True), start=event.applied_position + 1
    ):
        if outcome.code is OutcomeCode.BOOKED:
            _record_booked(records, event, waiting, applied_at)
        elif outcome.code is OutcomeCode.CANCELLED:
            _record_cancelled(records, bookings, outcome, applied_at)
        detail = _detail(records, event, outcome)
        records.entries.append(ledger_record(event.id, position, waiting, outcome, detail, applied_at))
    return records


def ledger_record(
    event_id: str,
    position: int,
    waiting: WaitingCommand,
    outcome: Outcome,
    detail: OutcomeDetail,
    applied_at: datetime,
) -> LedgerRecord:
    """The ledger row of one command."""
    return LedgerRecord(
        job_id=waiting.command.id,
        event_id=event_id,
        position=position,
        kind=waiting.kind,
        payload=waiting.payload,
        outcome=outcome.code,
        detail=detail,
        booking_id=outcome.booking_id,
        accepted_at=waiting.accepted_at or applied_at,
        applied_at=applied_at,
        trace=waiting.trace,
    )


def _record_booked(
    records: BatchRecords, event: EventRecord, waiting: WaitingCommand, applied_at: datetime
) -> None:
    command = waiting.command
    assert isinstance(command, BookTickets)
    records.made[command.id] = BookingRecord(
        id=command.id,
        event_id=event.id,
        user_id=command.user_id,
        ticket_count=command.ticket_count,
        status=BookingStatus.ACTIVE,
        created_at=applied_at,
        updated_at=applied_at,
    )


def _record_cancelled(
    records: BatchRecords,
    bookings: Mapping[str, BookingRecord],
    outcome: Outcome,
    applied_at: datetime,
) -> None:
    """A booking of this same batch is written once, as it is in the end."""
    assert outcome.booking_id is not None
    home = records.made if outcome.booking_id in records.made else records.cancelled
    booking = records.made.get(outcome.booking_id) or bookings[outcome.booking_id]
    home[booking.id] = replace(booking, status=BookingStatus.CANCELLED, updated_at=applied_at)


def _detail(records: BatchRecords, event: EventRecord, outcome: Outcome) -> OutcomeDetail:
    match outcome.code:
        case OutcomeCode.BOOKED:
            # First, as nearly all are; each look at another costs.
            return OutcomeDetail()
        case OutcomeCode.CANCELLED:
            assert outcome.booking_id is not None
            booking = records.made.get(outcome.booking_id) or records.cancelled[outcome.booking_id]
            return OutcomeDetail(booking=booking_view(booking))
        case OutcomeCode.NOT_ENOUGH_TICKETS:
            assert outcome.available_tickets is not None
            return OutcomeDetail(available_tickets=outcome.available_tickets)
        case OutcomeCode.USER_LIMIT_EXCEEDED:
            assert outcome.held_tickets is not None
            return OutcomeDetail(
                held_tickets=outcome.held_tickets, max_tickets_per_user=event.max_tickets_per_user
            )
        case OutcomeCode.CHANGED:
            return _change_detail(event, outcome)
        case OutcomeCode.SALES_NOT_OPEN:
            assert outcome.terms is not None
            assert outcome.terms.sales_open_at is not None
            return OutcomeDetail(sales_open_at=format_time(outcome.terms.sales_open_at))
        case OutcomeCode.TOTAL_BELOW_SOLD:
            assert outcome.sold_tickets is not None
            return OutcomeDetail(sold_tickets=outcome.sold_tickets)
        case OutcomeCode.COMMAND_UNREADABLE:
            return OutcomeDetail(reason=outcome.reason or "")
        case _:
            return OutcomeDetail()


def _change_detail(event: EventRecord, outcome: Outcome) -> OutcomeDetail:
    """The terms before a change, from which a replay can start, and the event after it."""
    assert outcome.terms_before is not None
    assert outcome.terms is not None
    assert outcome.available_tickets is not None
    changed = replace(with_terms(event, outcome.terms), available_tickets=outcome.available_tickets)
    return OutcomeDetail(terms_before=event_terms(outcome.terms_before), event=event_view(changed))
