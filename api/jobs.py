"""A job as the HTTP API shows it, from whichever place knows it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypedDict

from api.access import may_touch
from api.booking_lookup import find_booking_origin
from api.callers import Caller
from api.context import ApiContext
from api.problems import ProblemDocument, ProblemError, job_not_found, outcome_problem
from api.wait import HangUps, wait_for_result
from shared import limits
from shared.api_keys import Role
from shared.clock import format_time
from shared.domain import CommandKind, JobStatus, OutcomeCode
from shared.identifiers import canonical_id
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


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownJob:
    """A job as it is shown, and what its command says, if that can be read."""

    document: JobDocument
    payload: CommandPayload | None

    def finished(self, result: JobResult) -> JobDocument:
        """The job with its outcome."""
        return finished_document(self.document, result, self.payload)


async def read_job(context: ApiContext, job_id: str, *, reply_to: str = "") -> KnownJob | None:
    """A job: from Redis while it is recent, from the ledger for ever after; None if there is none.

    While it is not done, its result will also be sent to the channel `reply_to`.

    Raises:
        TemporarilyUnavailable: the place that would know it does not answer.
    """
    record = await context.producer.read_job(job_id, reply_to=reply_to)
    if record is not None and (record.result is None or record.payload is not None):
        return KnownJob(document=_document_of_record(record), payload=record.payload)
    entry = await context.ledger.find(job_id)
    return None if entry is None else KnownJob(document=recorded_document(entry), payload=entry.payload)


async def find_job(context: ApiContext, caller: Caller, job_id: str, *, reply_to: str = "") -> KnownJob:
    """The same, for a job that a caller has named.

    Raises:
        ProblemError: there is no such job, or it is not theirs.
        TemporarilyUnavailable: the place that would know it does not answer.
    """
    job = await read_job(context, known_job_id(job_id), reply_to=reply_to)
    if job is None or not await _concerns(context, caller, job):
        raise ProblemError(job_not_found(job_id))
    return job


async def _concerns(context: ApiContext, caller: Caller, job: KnownJob) -> bool:
    """Customers see their own bookings and cancellations, organisers and sellers those at their events."""
    if caller.role is Role.ANYONE:
        return True
    user_id = await _user_of(context, job) if caller.role is Role.CUSTOMER else None
    return caller.may_see_commands_of(job.document["kind"]) and await may_touch(
        context, caller, event_id=job.document["event_id"], user_id=user_id
    )


async def _user_of(context: ApiContext, job: KnownJob) -> str | None:
    """Whose booking a command is about; None if it is about none."""
    payload = job.payload or {}
    if payload.get("kind") == CommandKind.BOOK:
        return payload.get("user_id")
    booking_id = payload.get("booking_id")
    origin = None if booking_id is None else await find_booking_origin(context, booking_id)
    return None if origin is None else origin.user_id


def known_job_id(job_id: str) -> str:
    """The one way to write the id that a client has sent.

    Raises:
        ProblemError: it is none.
    """
    id = canonical_id(job_id)
    if id is None:
        raise ProblemError(job_not_found(job_id))
    return id


async def await_job(
    context: ApiContext, caller: Caller, job_id: str, hang_ups: HangUps, seconds: float
) -> JobDocument:
    """A job when it is done, or as it is after so many seconds or when the client has hung up.

    Raises:
        ProblemError: there is no such job, or it is not theirs.
        TemporarilyUnavailable: the place that would know it does not answer.
    """
    with context.replies.expect(known_job_id(job_id)) as reply:
        job = await find_job(context, caller, job_id, reply_to=context.replies.channel)
        if job.document["done"]:
            return job.document
        result = await wait_for_result(reply, hang_ups, seconds)
    return (await find_job(context, caller, job_id)).document if result is None else job.finished(result)


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


def _document_of_record(record: JobRecord) -> JobDocument:
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
    ahead = commands_ahead(position, applied)
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
        "estimated_wait_seconds": estimated_wait_seconds(ahead, rate),
        "booking_id": booking_id,
        "booking": None,
        "event": None,
        "error": None,
    }


def stays_so(job: JobDocument) -> bool:
    """Whether the job with this id will be told like this for ever.

    What came under the key of another command is told its refusal while Redis remembers it; after that the
    id is the other's alone.
    """
    error = job["error"]
    return job["done"] and (error is None or error["type"] != OutcomeCode.IDEMPOTENCY_KEY_REUSED)


def commands_ahead(position: int, applied: int) -> int:
    """How many commands are before this one, where so many were applied."""
    return max(position - applied - 1, 0)


def estimated_wait_seconds(ahead: int, rate: float | None) -> float | None:
    """When a command with so many ahead will be applied; None where the line's rate is not known."""
    return round((ahead + 1) / rate, 3) if rate else None


def retry_after_seconds(job: JobDocument, chance: float) -> int:
    """When it is worth to ask for a job again: whole seconds, at least one.

    `chance` is from 0 to 1; it spreads clients that were told the same, so that they don't come all at once.
    """
    estimate = job["estimated_wait_seconds"]
    seconds = limits.RETRY_AFTER_UNKNOWN_SECONDS if estimate is None else estimate
    spread = 1 + limits.RETRY_AFTER_SPREAD * chance
    return max(1, math.ceil(min(seconds, limits.RETRY_AFTER_SECONDS_MAX) * spread))


def _booking_id(job_id: str, kind: str, named: str | None) -> str | None:
    """A booking has the id of its command, so a client can name it before it exists."""
    return job_id if kind == CommandKind.BOOK else named
