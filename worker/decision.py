"""What is to be written of a batch and told of it, from what was read or remembered. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from msgspec.structs import replace

from shared.clock import format_time
from shared.database.batches import BatchWrites
from shared.domain import EventState, Outcome, OutcomeCode
from shared.line.codec import WaitingCommand
from shared.records import (
    BookingRecord,
    CommandPayload,
    EventRecord,
    JobResult,
    LedgerRecord,
    OutcomeDetail,
    job_result,
    sale_terms,
    with_terms,
)
from shared.seals import extended_digest, ledger_line, sealed
from worker.records import BatchRecords, batch_records


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a batch comes to. Where no command is fresh there is nothing to write."""

    state: EventState
    records: BatchRecords
    writes: BatchWrites | None
    applied_at: datetime


def decision_of(
    event: EventRecord,
    bookings: Mapping[str, BookingRecord],
    fresh: Sequence[WaitingCommand],
    state: EventState,
    outcomes: Sequence[Outcome],
    token: int,
    applied_at: datetime,
) -> Decision:
    """What follows from the outcomes of these commands and the state after them.

    `bookings` are those that they cancel.
    """
    records = batch_records(event, bookings, fresh, outcomes, applied_at)
    writes = _writes(event, _after(event, state, records, token, applied_at), records) if fresh else None
    return Decision(
        state=state,
        records=records,
        writes=writes,
        applied_at=applied_at,
    )


def _after(
    event: EventRecord, state: EventState, records: BatchRecords, token: int, applied_at: datetime
) -> EventRecord:
    """The event as it is after a batch, but for its digests."""
    return replace(
        with_terms(event, state.terms),
        available_tickets=state.available_tickets,
        applied_position=event.applied_position + len(records.entries),
        fencing_token=max(token, event.fencing_token),
        updated_at=applied_at,
    )


def _writes(before: EventRecord, after: EventRecord, records: BatchRecords) -> BatchWrites:
    lines = [ledger_line(entry) for entry in records.entries]
    digest = extended_digest(before.ledger_digest, lines)
    return BatchWrites(
        event=sealed(replace(after, ledger_digest=digest)),
        changed=sale_terms(after) != sale_terms(before),
        cancelled=list(records.cancelled),
        made=list(records.made.values()),
        ledger_lines=lines,
    )


def results_of(
    event_id: str,
    waiting: Sequence[WaitingCommand],
    recorded: Mapping[str, LedgerRecord],
    entries: Iterable[LedgerRecord],
    applied_at: datetime,
) -> list[tuple[str, JobResult]]:
    """One result per command, in order."""
    known = {**recorded, **{entry.job_id: entry for entry in entries}}
    return [
        (command.command.id, _result_of(event_id, command, known.get(command.command.id), applied_at))
        for command in waiting
    ]


def _result_of(
    event_id: str, command: WaitingCommand, entry: LedgerRecord | None, applied_at: datetime
) -> JobResult:
    if entry is None:
        reason = "Redis gave this position twice; submit the command again"
        return _told_apart_from_the_ledger(OutcomeCode.POSITION_TAKEN, reason, applied_at)
    if entry.event_id != event_id or _differ(entry.payload, command.payload):
        reason = "The key was sent before with another command"
        return _told_apart_from_the_ledger(OutcomeCode.IDEMPOTENCY_KEY_REUSED, reason, applied_at)
    return job_result(entry)


def _differ(one: CommandPayload | None, other: CommandPayload | None) -> bool:
    """Of what can't be read nobody can say so."""
    return one is not None and other is not None and one != other


def _told_apart_from_the_ledger(outcome: OutcomeCode, reason: str, applied_at: datetime) -> JobResult:
    """What becomes of a command that has no row of its own: its position, or its id, is another's."""
    return JobResult(
        status=outcome.job_status.value,
        outcome=outcome.value,
        booking_id=None,
        applied_at=format_time(applied_at),
        detail=OutcomeDetail(reason=reason),
    )
