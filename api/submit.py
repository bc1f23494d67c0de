"""The road of a command through the API: accept it, and wait for its result if the client wants to."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TypeAlias

import orjson
from fastapi import Response
from msgspec import Struct
from msgspec.structs import replace

from api.access import check_booking_for, check_books_for
from api.callers import ANYONE, Caller
from api.context import ApiContext
from api.event_lookup import known_event_id
from api.idempotency import keyed_job_id, recall
from api.jobs import (
    JobDocument,
    accepted_document,
    finished_document,
    read_job,
    recorded_document,
    retry_after_seconds,
)
from api.json_body import MEDIA_TYPE, JsonBody
from api.prefer import Preference, read_preference
from api.problems import ProblemError, event_not_found, problem_response
from api.schemas import BookingRequest
from api.spans import submit_span
from api.wait import HangUps, wait_for_result
from api.whole_response import WholeResponse, WireAnswer, json_answer
from shared.api_keys import Role
from shared.domain import CommandKind, OutcomeCode
from shared.errors import EventNotFound, TemporarilyUnavailable
from shared.identifiers import new_id
from shared.line.codec import book_payload
from shared.line.producer import Acceptance, Submission
from shared.records import (
    BookingView,
    CommandPayload,
    EventRecord,
    JobResult,
    LedgerRecord,
    booked_view,
)
from shared.trace import carried_trace

BOOKING_BODY = JsonBody(BookingRequest)

_Accept: TypeAlias = Callable[[Submission], Awaitable[JobDocument]]
"""Puts a command on its event's line; gives its job, which may be done already."""

_ASK_NOBODY = (Role.ANYONE, Role.CUSTOMER)
"""Callers of whom is known what they may do, without asking whose the event is."""


class SubmitHeaders(Struct, frozen=True, kw_only=True):
    """The headers that matter to a submit, as they came."""

    content_type: str | None = None
    prefer: str | None = None
    idempotency_key: str | None = None


async def submit_booking(
    context: ApiContext, caller: Caller, event_id: str, body: bytes, headers: SubmitHeaders, hang_ups: HangUps
) -> Response:
    """Read a booking straight from its bytes and put it on the line of the event with this id.

    Raises:
        ProblemError: the body or a header is wrong, there is no such event, or the caller may not.
        IdempotencyKeyReused, LineFull, TemporarilyUnavailable: it was not accepted.
    """
    id = known_event_id(event_id)
    request = BOOKING_BODY.read(body, headers.content_type)
    if caller is not ANYONE:
        await check_booking_for(context, caller, id, request.user_id)
    payload = book_payload(request.user_id, request.ticket_count)
    return await submit_command(context, caller, id, payload, headers, hang_ups)


def asks_nobody(context: ApiContext, caller: Caller) -> bool:
    """Whether what this caller books can be submitted as it is (`plain_booking`)."""
    return context.tracer is None and caller.role in _ASK_NOBODY


def plain_booking(caller: Caller, event_id: str, body: bytes, content_type: str | None) -> Submission:
    """A booking that has no key, read straight from its bytes. Nobody is asked before it is submitted.

    Raises:
        ProblemError: the body or its type is wrong, the event's id is none, or the caller may not.
    """
    id = known_event_id(event_id)
    request = BOOKING_BODY.read(body, content_type)
    check_books_for(caller, request.user_id)
    return Submission(
        job_id=new_id(),
        event_id=id,
        payload=book_payload(request.user_id, request.ticket_count),
        trace=carried_trace(),
    )


def place_given(booking: Submission, acceptance: Acceptance, preference: Preference) -> WireAnswer:
    """The answer to a plain booking that has got a place just now, where its client does not wait."""
    return _accepted_answer(accepted_document(booking, acceptance), preference)


def result_given(
    booking: Submission, acceptance: Acceptance, result: JobResult, preference: Preference
) -> WireAnswer | Response:
    """The answer to a plain booking whose result has come in time."""
    if result["outcome"] == OutcomeCode.BOOKED:
        booked = booked_view(booking.job_id, booking.event_id, booking.payload, result["applied_at"])
        return _booked_answer(booking.job_id, booked, preference)
    job = finished_document(accepted_document(booking, acceptance), result, booking.payload)
    return _final_answer(job, preference)


async def result_awaited(
    context: ApiContext, booking: Submission, acceptance: Acceptance, preference: Preference
) -> Response:
    """The answer to a plain booking whose result has not come in time, or may have been missed."""
    return _answer(await _read_again(context, accepted_document(booking, acceptance)), preference)


async def place_found(
    context: ApiContext,
    booking: Submission,
    acceptance: Acceptance | None,
    preference: Preference,
    hang_ups: HangUps,
) -> Response:
    """The answer to a plain booking that had a place already; without one its event was not known to Redis.

    Raises:
        ProblemError: there is no such event.
        SalesNotOpen, LineFull, TemporarilyUnavailable: it was not accepted.
    """

    async def accept(submission: Submission) -> JobDocument:
        found = acceptance or await _submit_to_found_event(context, submission)
        return await _placed(context, submission, found)

    return await _answer_to(context, booking, preference, hang_ups, accept)


async def submit_command(
    context: ApiContext,
    caller: Caller,
    event_id: str,
    payload: CommandPayload,
    headers: SubmitHeaders,
    hang_ups: HangUps,
) -> Response:
    """Put a command on its event's line; answer 202, or the result if the client waits and it comes in time.

    Where as many wait already as may, it is accepted all the same, and answered at once.

    Raises:
        ProblemError: a header is wrong, or there is no such event.
        IdempotencyKeyReused, LineFull, TemporarilyUnavailable: it was not accepted.
    """
    preference = read_preference(headers.prefer, seconds_max=context.settings.wait_seconds_max)
    key = headers.idempotency_key
    submission = Submission(
        job_id=new_id() if key is None else keyed_job_id(caller.id, key),
        event_id=event_id,
        payload=payload,
        trace=carried_trace(),
    )
    if key is not None:
        recalled = await recall(context, submission)
        if isinstance(recalled, LedgerRecord):
            return _answer(recorded_document(recalled), preference)
        submission = recalled
    return await _answer_to(context, submission, preference, hang_ups, partial(_accept, context))


async def _answer_to(
    context: ApiContext, submission: Submission, preference: Preference, hang_ups: HangUps, accept: _Accept
) -> Response:
    """Have a command accepted, and wait for its result where the client does and may."""
    if not preference.wait_seconds:
        return job_accepted(await accept(submission), preference)
    with context.waiters.take_if_free() as taken:
        if not taken:
            return job_accepted(await accept(submission), preference.at_once())
        return _answer(await _accept_and_wait(context, submission, preference, hang_ups, accept), preference)


async def _accept_and_wait(
    context: ApiContext, submission: Submission, preference: Preference, hang_ups: HangUps, accept: _Accept
) -> JobDocument:
    with context.replies.expect(submission.job_id) as reply:
        job = await accept(replace(submission, reply_to=context.replies.channel))
        if job["done"]:
            return job
        result = await wait_for_result(reply, hang_ups, preference.wait_seconds)
    if result is None:
        return await _read_again(context, job)
    return finished_document(job, result, submission.payload)


def job_accepted(job: JobDocument, preference: Preference) -> Response:
    """202 with the job, where to ask for it and, unless it is done, when."""
    return _accepted_answer(job, preference).response()


def retry_after(job: JobDocument) -> str:
    """The Retry-After header of a job that waits."""
    return str(retry_after_seconds(job, random.random()))  # noqa: S311 (spreads load)


def json_response(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON that has its final form already."""
    return WholeResponse(orjson.dumps(document), status, headers or {}, MEDIA_TYPE)


def _accepted_answer(job: JobDocument, preference: Preference) -> WireAnswer:
    lines = preference.lines(202)
    if job["done"]:
        return json_answer(job, 202, lines, b"location: /jobs/%b\r\n", job["id"].encode())
    place = (job["id"].encode(), retry_after(job).encode())
    return json_answer(job, 202, lines, b"location: /jobs/%b\r\nretry-after: %b\r\n", *place)


def _booked_answer(booking_id: str, booking: BookingView | None, preference: Preference) -> WireAnswer:
    lines = preference.lines(201)
    return json_answer(booking, 201, lines, b"location: /bookings/%b\r\n", booking_id.encode())


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
    if context.tracer is None:
        return await _enqueue(context, submission)
    with submit_span(context.tracer, submission) as traced:
        return await _enqueue(context, traced)


async def _enqueue(context: ApiContext, submission: Submission) -> JobDocument:
    try:
        acceptance = await context.producer.submit(submission)
    except EventNotFound:
        acceptance = await _submit_to_found_event(context, submission)
    return await _placed(context, submission, acceptance)


async def _submit_to_found_event(context: ApiContext, submission: Submission) -> Acceptance:
    """Redis has forgotten the event, or there is none."""
    await find_event(context, submission.event_id)
    return await context.producer.submit(submission)


async def _placed(context: ApiContext, submission: Submission, acceptance: Acceptance) -> JobDocument:
    job = accepted_document(submission, acceptance)
    return await _read_again(context, job, submission.reply_to) if acceptance.known else job


async def _read_again(context: ApiContext, job: JobDocument, reply_to: str = "") -> JobDocument:
    """A job that may be done by now. It was accepted, whoever is away now."""
    try:
        known = await read_job(context, job["id"], reply_to=reply_to)
    except TemporarilyUnavailable:
        return job
    return job if known is None else known.document


def _answer(job: JobDocument, preference: Preference) -> Response:
    if preference.wait_seconds and job["done"]:
        return _final_answer(job, preference)
    return job_accepted(job, preference)


def _final_answer(job: JobDocument, preference: Preference) -> Response:
    """What a synchronous API would have said."""
    if job["error"] is not None:
        return problem_response(job["error"], preference.headers(job["error"]["status"]))
    if job["kind"] == CommandKind.BOOK:
        return _booked_answer(str(job["booking_id"]), job["booking"], preference).response()
    shown = job["event"] if job["kind"] == CommandKind.CHANGE else job["booking"]
    return json_response(shown, 200, preference.headers(200))
