"""Jobs: how far a command has come."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from starlette.responses import StreamingResponse

from api.access import AnyCaller
from api.callers import Caller
from api.conditional import IfNoneMatch, conditional_response, weak_etag
from api.context import ApiContext, Context
from api.job_stream import EVENT_SCHEMA, EXAMPLE, JobStream, is_told
from api.jobs import JobDocument, await_job, find_job, known_job_id, stays_so
from api.openapi import ADMISSION, JOB_HEADERS, NOT_MODIFIED, PREFERENCE_HEADERS, PROBLEMS, noted
from api.prefer import Preference, PreferHeader
from api.schemas import Job
from api.submit import job_accepted, json_response, retry_after
from api.wait import hang_ups_of

router = APIRouter(tags=["jobs"], responses=ADMISSION)

_FOR_NOW = {"Cache-Control": "private, no-cache"}
_FOR_EVER = {"Cache-Control": "private, max-age=31536000, immutable"}


@router.head("/jobs/{job_id}", include_in_schema=False)
@router.get(
    "/jobs/{job_id}",
    operation_id="get_job",
    response_model=Job,
    summary="Ask how far a command has come",
    responses={
        200: {"headers": JOB_HEADERS},
        **NOT_MODIFIED,
        **PROBLEMS[404],
        **PROBLEMS[422],
    },
)
async def get_job(
    job_id: str,
    request: Request,
    context: Context,
    caller: AnyCaller,
    preference: PreferHeader,
    if_none_match: IfNoneMatch,
) -> Response:
    """Answers 200 for a job that waits and for one that is done, also if the rules refused it.

    A job that is done never changes again.
    """
    if preference.wait_seconds:
        with context.waiters.take():
            job = await await_job(
                context, caller, job_id, hang_ups_of(request.receive), preference.wait_seconds
            )
    else:
        job = (await find_job(context, caller, job_id)).document
    headers = {**(_FOR_EVER if stays_so(job) else _FOR_NOW), **preference.headers(200)}
    if not job["done"]:
        headers["Retry-After"] = retry_after(job)
    return conditional_response(job, headers, etag=weak_etag(job), if_none_match=if_none_match)


@router.delete(
    "/jobs/{job_id}",
    operation_id="withdraw_job",
    response_model=Job,
    summary="Withdraw a command that still waits",
    responses={
        200: {
            "description": "decided: `withdrawn`, or what became of it before",
            "headers": PREFERENCE_HEADERS,
        },
        **noted("noted; the job tells whether it came in time"),
        **PROBLEMS[404],
        **PROBLEMS[422],
    },
)
async def withdraw_job(
    job_id: str, request: Request, context: Context, caller: AnyCaller, preference: PreferHeader
) -> Response:
    """Exactly one of `withdrawn` and applied becomes of the job, decided when its turn comes."""
    known = await find_job(context, caller, job_id)
    await context.producer.withdraw(known.document["id"])
    job, preference = await _decided(context, caller, job_id, request, preference)
    if job["done"]:
        return json_response(job, 200, preference.headers(200))
    return job_accepted(job, preference)


@router.get(
    "/jobs/{job_id}/events",
    operation_id="stream_job",
    response_class=StreamingResponse,
    summary="Be told how far a command has come",
    responses={
        200: {
            "description": "`snapshot` at once, `position` while the line moves, `result` at the end; each"
            " has the job as its data. Lines that begin with a colon are heartbeats.",
            "content": {"text/event-stream": {"schema": EVENT_SCHEMA, "example": EXAMPLE}},
        },
        204: {"description": "the client has been told the result; it need not come again"},
        **PROBLEMS[404],
        **PROBLEMS[422],
    },
)
async def stream_job(
    job_id: str,
    context: Context,
    caller: AnyCaller,
    last_event_id: Annotated[
        str | None, Header(description="what was told last; the newest state is told, not what came between")
    ] = None,
) -> Response:
    """Server-Sent Events, until the job is done."""
    async with AsyncExitStack() as held:
        held.enter_context(context.streams.take())
        reply = held.enter_context(context.replies.expect(known_job_id(job_id)))
        job = await find_job(context, caller, job_id, reply_to=context.replies.channel)
        if is_told(job, last_event_id):
            return Response(status_code=204)
        return JobStream(context, job, reply, held.pop_all())


async def _decided(
    context: ApiContext, caller: Caller, job_id: str, request: Request, preference: Preference
) -> tuple[JobDocument, Preference]:
    """The job, after the wait that is preferred if there is room, and the preference as honoured."""
    if preference.wait_seconds:
        with context.waiters.take_if_free() as taken:
            if taken:
                job = await await_job(
                    context, caller, job_id, hang_ups_of(request.receive), preference.wait_seconds
                )
                return job, preference
    return (await find_job(context, caller, job_id)).document, preference.at_once()
