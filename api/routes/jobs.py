"""Jobs: how far a command has come."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Header, Response

from api.context import ApiContext, Context
from api.jobs import JobDocument, read_job_document
from api.openapi import PROBLEMS
from api.prefer import preferred_wait_seconds
from api.problems import ProblemError, job_not_found
from api.schemas import Job
from api.submit import job_accepted, json_response, retry_after_seconds
from shared.identifiers import canonical_id

router = APIRouter(tags=["jobs"])


@router.get(
    "/jobs/{job_id}",
    response_model=Job,
    summary="Ask how far a command has come",
    responses={**PROBLEMS[404], **PROBLEMS[503]},
)
async def get_job(
    job_id: str,
    context: Context,
    prefer: Annotated[
        str | None, Header(description="`wait=N`: wait up to N seconds until it is done")
    ] = None,
) -> Response:
    """Answers 200 for a job that waits and for one that is done, also if the rules refused it."""
    id = canonical_id(job_id)
    wait_seconds = preferred_wait_seconds(prefer, seconds_max=context.settings.wait_seconds_max)
    job = None if id is None else await _read_job(context, id, wait_seconds)
    if job is None:
        raise ProblemError(job_not_found(job_id))
    headers = {"Vary": "Prefer"}
    if wait_seconds:
        headers["Preference-Applied"] = f"wait={wait_seconds:.0f}"
    if not job["done"]:
        headers["Retry-After"] = str(retry_after_seconds(job))
    return json_response(job, 200, headers)


@router.delete(
    "/jobs/{job_id}",
    response_model=Job,
    summary="Withdraw a command that still waits",
    responses={
        200: {"description": "decided: `withdrawn`, or what became of it before"},
        202: {"model": Job, "description": "noted; the job tells whether it came in time"},
        **PROBLEMS[404],
        **PROBLEMS[503],
    },
)
async def withdraw_job(
    job_id: str,
    context: Context,
    prefer: Annotated[
        str | None, Header(description="`wait=N`: wait up to N seconds until it is decided")
    ] = None,
) -> Response:
    """Exactly one of `withdrawn` and applied becomes of the job, decided when its turn comes."""
    id = canonical_id(job_id)
    wait_seconds = preferred_wait_seconds(prefer, seconds_max=context.settings.wait_seconds_max)
    if id is not None:
        await context.producer.withdraw(id)
    job = None if id is None else await _read_job(context, id, wait_seconds)
    if job is None:
        raise ProblemError(job_not_found(job_id))
    applied = {"Preference-Applied": f"wait={wait_seconds:.0f}"} if wait_seconds else {}
    return (
        json_response(job, 200, {"Vary": "Prefer", **applied}) if job["done"] else job_accepted(job, applied)
    )


async def _read_job(context: ApiContext, job_id: str, wait_seconds: float) -> JobDocument | None:
    if not wait_seconds:
        return await read_job_document(context, job_id)
    async with context.replies.expect(job_id) as reply:
        job = await read_job_document(context, job_id, reply_to=context.replies.channel)
        if job is None or job["done"]:
            return job
        with suppress(TimeoutError):
            await asyncio.wait_for(reply, wait_seconds)
        return await read_job_document(context, job_id)
