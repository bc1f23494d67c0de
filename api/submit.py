"""The road of a command through the API: accept it, and wait for its result if the client wants to."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import Response
from pydantic import TypeAdapter, ValidationError

from api.context import ApiContext
from api.idempotency import ANYONE, keyed_job_id, recall
from api.jobs import (
    JobDocument,
    accepted_document,
    finished_document,
    read_job_document,
    recorded_document,
)
from api.prefer import preferred_wait_seconds
from api.problems import (
    ProblemError,
    event_not_found,
    invalid_body,
    problem_response,
    unsupported_media_type,
)
from api.schemas import BookingRequest
from shared.domain import CommandKind
from shared.errors import EventNotFound, TemporarilyUnavailable
from shared.identifiers import canonical_id, new_id
from shared.line.codec import book_payload
from shared.line.producer import Submission
from shared.records import CommandPayload, EventRecord, LedgerRecord
from shared.trace import carried_trace

_RETRY_AFTER_SECONDS_MAX = 30
_read_booking = TypeAdapter(BookingRequest).validate_json


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitHeaders:
    """The headers that matter to a submit, as they came."""

    content_type: str | None = None
    prefer: str | None = None
    idempotency_key: str | None = None


async def submit_booking(context: ApiContext, event_id: str, body: bytes, headers: SubmitHeaders) -> Response:
    """Read a booking straight from its bytes and put it on the line of the event with this id.

    Raises:
        ProblemError: the body or a header is wrong, or there is no such event.
        IdempotencyKeyReused, LineFull, TemporarilyUnavailable: it was not accepted.
    """
    id = canonical_id(event_id)
    if id is None:
        raise ProblemError(event_not_found(event_id))
    if headers.content_type is None or not headers.content_type.lower().startswith("application/json"):
        raise ProblemError(unsupported_media_type())
    try:
        request = _read_booking(body)
    except ValidationError as error:
        raise ProblemError(invalid_body(error)) from error
    return await submit_command(context, id, book_payload(request.user_id, request.ticket_count), headers)


async def submit_command(
    context: ApiContext, event_id: str, payload: CommandPayload, headers: SubmitHeaders
) -> Response:
    """Put a command on its event's line; answer 202, or the result if the client waits and it comes in time.

    Raises:
        ProblemError: a header is wrong, or there is no such event.
        IdempotencyKeyReused, LineFull, TemporarilyUnavailable: it was not accepted.
    """
    wait_seconds = preferred_wait_seconds(headers.prefer, seconds_max=context.settings.wait_seconds_max)
    key = headers.idempotency_key
    submission = Submission(
        job_id=new_id() if key is None else keyed_job_id(ANYONE, key),
        event_id=event_id,
        payload=payload,
        reply_to=context.replies.channel if wait_seconds else "",
        trace=carried_trace(),
    )
    if key is not None:
        recalled = await recall(context, submission)
        if isinstance(recalled, LedgerRecord):
            return _answer(recorded_document(recalled), wait_seconds)
        submission = recalled
    if not wait_seconds:
        return job_accepted(await _accept(context, submission))
    async with context.replies.expect(submission.job_id) as reply:
        job = await _accept(context, submission)
        if not job["done"]:
            try:
                job = finished_document(job, await asyncio.wait_for(reply, wait_seconds), payload)
            except TimeoutError:
                job = await _read_again(context, job)
    return _answer(job, wait_seconds)


def job_accepted(job: JobDocument, headers: Mapping[str, str] | None = None) -> Response:
    """202 with the job, where to ask for it and when."""
    return json_response(
        job,
        202,
        {
            "Location": f"/jobs/{job['id']}",
            "Retry-After": str(retry_after_seconds(job)),
            "Vary": "Prefer",
            **(headers or {}),
        },
    )


def retry_after_seconds(job: JobDocument) -> int:
    """When it is worth to ask again: whole seconds, at least one."""
    estimate = job["estimated_wait_seconds"] or 0
    return max(1, min(math.ceil(estimate), _RETRY_AFTER_SECONDS_MAX))


def json_response(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON that has its final form already."""
    return Response(orjson.dumps(document), status, dict(headers or {}), media_type="application/json")


async def find_event(context: ApiContext, event_id: str) -> EventRecord:
    """An event from PostgreSQL, which is then known to Redis too.

    Raises:
        ProblemError: there is no such event.
        TemporarilyUnavailable: PostgreSQL or Redis does not answer.
    """

    event = await context.events.find(event_id)
    if event is None:
        raise ProblemError(event_not_found(event_id))
    return event


async def _accept(context: ApiContext, submission: Submission) -> JobDocument:
    try:
        acceptance = await context.producer.submit(submission)
    except EventNotFound:
        await find_event(context, submission.event_id)
        acceptance = await context.producer.submit(submission)
    job = accepted_document(submission, acceptance)
    return await _read_again(context, job, submission.reply_to) if acceptance.known else job


async def _read_again(context: ApiContext, job: JobDocument, reply_to: str = "") -> JobDocument:
    """A job that may be done by now. It was accepted, whoever is away now."""
    try:
        return await read_job_document(context, job["id"], reply_to=reply_to) or job
    except TemporarilyUnavailable:
        return job


def _answer(job: JobDocument, wait_seconds: float) -> Response:
    applied = {"Preference-Applied": f"wait={wait_seconds:.0f}"} if wait_seconds else {}
    return _final_answer(job, applied) if wait_seconds and job["done"] else job_accepted(job, applied)


def _final_answer(job: JobDocument, headers: Mapping[str, Any]) -> Response:
    """What a synchronous API would have said."""
    vary = {"Vary": "Prefer", **headers}
    if job["error"] is not None:
        return problem_response(job["error"], vary)
    if job["kind"] == CommandKind.BOOK:
        return json_response(job["booking"], 201, {"Location": f"/bookings/{job['booking_id']}", **vary})
    if job["kind"] == CommandKind.CHANGE:
        return json_response(job["event"], 200, vary)
    return json_response(job["booking"], 200, vary)
