"""A job as the HTTP API shows it, from whichever place knows it."""

from __future__ import annotations

from typing import TypedDict

from api.context import ApiContext
from api.problems import ProblemDocument, outcome_problem
from shared.clock import format_time
from shared.domain import CommandKind, JobStatus, OutcomeCode
from shared.line.producer import Acceptance, JobRecord, Submission
from shared.records import (
    BookingView,
    CommandPayload,
    EventView,
    JobResult,
    LedgerRecord,
    booked_view,
    job_result,
)

_QUEUED = JobStatus.QUEUED.value


class JobDocument(TypedDict):
    """A job as JSON."""

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
    booking: BookingView | None
    event: EventView | None
    error: ProblemDocument | None


async def read_job_document(context: ApiContext, job_id: str, *, reply_to: str = "") -> JobDocument | None:
    """A job: from Redis while it is recent, from the ledger for ever after; None if there is none.

    Raises:
        TemporarilyUnavailable: the place that would know it does not answer.
    """
    record = await context.producer.read_job(job_id, reply_to=reply_to)
    if record is not None and (record.result is None or record.payload is not None):
        return document_of_record(record)
    entry = await context.ledger.find(job_id)
    return None if entry is None else recorded_document(entry)


def accepted_document(submission: Submission, acceptance: Acceptance) -> JobDocument:
    """A job that has just been accepted."""
    payload = submission.payload
    return _waiting_document(
        job_id=submission.job_id,
        kind=payload["kind"],
        event_id=submission.event_id,
        created_at=format_time(acceptance.accepted_at),
        position=acceptance.position,
        applied=acceptance.applied,
        rate=acceptance.rate,
        booking_id=_booking_id(submission.job_id, payload["kind"], payload.get("booking_id")),
    )


def finished_document(waiting: JobDocument, result: JobResult, payload: CommandPayload | None) -> JobDocument:
    """The same job with its outcome."""
    booking = result["detail"].get("booking")
    if result["outcome"] == OutcomeCode.BOOKED and payload is not None:
        booking = booked_view(waiting["id"], waiting["event_id"], payload, result["applied_at"])
    return {
        **waiting,
        "status": result["status"],
        "done": True,
        "finished_at": result["applied_at"],
        "ahead": 0,
        "estimated_wait_seconds": None,
        "booking_id": result["booking_id"],
        "booking": booking,
        "event": result["detail"].get("event"),
        "error": outcome_problem(result),
    }


def document_of_record(record: JobRecord) -> JobDocument:
    """A job as Redis has it."""
    payload = record.payload or {}
    kind = payload.get("kind", CommandKind.UNKNOWN.value)
    waiting = _waiting_document(
        job_id=record.job_id,
        kind=kind,
        event_id=record.event_id,
        created_at=format_time(record.accepted_at),
        position=record.position,
        applied=record.applied,
        rate=record.rate,
        booking_id=_booking_id(record.job_id, kind, payload.get("booking_id")),
    )
    return waiting if record.result is None else finished_document(waiting, record.result, record.payload)


def recorded_document(entry: LedgerRecord) -> JobDocument:
    """A job as the ledger has it, for ever."""
    waiting = _waiting_document(
        job_id=entry.job_id,
        kind=entry.kind.value,
        event_id=entry.event_id,
        created_at=format_time(entry.accepted_at),
        position=entry.position,
        applied=entry.position,
        rate=None,
        booking_id=entry.booking_id,
    )
    return finished_document(waiting, job_result(entry), entry.payload)


def _waiting_document(
    *,
    job_id: str,
    kind: str,
    event_id: str,
    created_at: str,
    position: int,
    applied: int,
    rate: float | None,
    booking_id: str | None,
) -> JobDocument:
    ahead = max(position - applied - 1, 0)
    return {
        "id": job_id,
        "kind": kind,
        "event_id": event_id,
        "status": _QUEUED,
        "done": False,
        "created_at": created_at,
        "finished_at": None,
        "position": position,
        "ahead": ahead,
        "estimated_wait_seconds": round(ahead / rate, 3) if rate else None,
        "booking_id": booking_id,
        "booking": None,
        "event": None,
        "error": None,
    }


def _booking_id(job_id: str, kind: str, named: str | None) -> str | None:
    """A booking has the id of its command, so a client can name it before it exists."""
    return job_id if kind == CommandKind.BOOK else named
