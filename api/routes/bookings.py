"""Bookings: ask for tickets, give them back, look at what was sold."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.context import ApiContext, Context
from api.event_lookup import refuse_archived
from api.idempotency import IDEMPOTENCY_KEY_PATTERN
from api.openapi import ACCEPTED, NEXT_PAGE, PROBLEMS, REFUSED
from api.pages import PageQuery, page_response, read_cursor
from api.problems import ProblemError, booking_not_found, event_not_found
from api.schemas import Booking, BookingPage, BookingRequest, Job, UserId
from api.submit import SubmitHeaders, json_response, submit_booking, submit_command
from shared.database import lists, statements
from shared.domain import BookingStatus, CommandKind, OutcomeCode
from shared.identifiers import canonical_id
from shared.line.codec import cancel_payload
from shared.records import BookingRecord, booking_view

router = APIRouter(tags=["bookings"])

Prefer = Annotated[str | None, Header(description="`wait=N`: wait up to N seconds for the result")]
IdempotencyKey = Annotated[
    str | None,
    # Checked where it is used, since a malformed key is answered with 400.
    Header(
        description="1 to 255 visible characters: the same key and request give the same job, for ever",
        json_schema_extra={"pattern": IDEMPOTENCY_KEY_PATTERN},
    ),
]


@router.post(
    "/events/{event_id}/bookings",
    status_code=202,
    response_model=Job,
    summary="Book tickets",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": BookingRequest.model_json_schema()}},
        }
    },
    responses={
        201: {"model": Booking, "description": "booked, if the client waited for it"},
        **ACCEPTED,
        **REFUSED,
        **PROBLEMS[404],
        **PROBLEMS[410],
        **PROBLEMS[413],
        **PROBLEMS[415],
        **PROBLEMS[422],
        **PROBLEMS[429],
        **PROBLEMS[503],
    },
)
async def book(
    event_id: str,
    request: Request,
    context: Context,
    prefer: Prefer = None,
    idempotency_key: IdempotencyKey = None,
    content_type: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> Response:
    """The command gets its place in the event's line, which is kept for ever. Poll the job for the result."""
    headers = SubmitHeaders(content_type=content_type, prefer=prefer, idempotency_key=idempotency_key)
    return await submit_booking(context, event_id, await request.body(), headers)


class BookingsQuery(PageQuery):
    """Which bookings of an event, in the query."""

    user_id: UserId | None = None
    status: BookingStatus | None = None


@router.get(
    "/events/{event_id}/bookings",
    response_model=BookingPage,
    summary="List the bookings of an event",
    responses={**NEXT_PAGE, **PROBLEMS[404], **PROBLEMS[410], **PROBLEMS[422], **PROBLEMS[503]},
)
async def list_bookings(
    event_id: str, context: Context, query: Annotated[BookingsQuery, Query()]
) -> Response:
    """In order of user and id, as PostgreSQL has them."""
    id = canonical_id(event_id)
    after = read_cursor(query.cursor, str, str)
    found = None if id is None else await run_in_threadpool(_list_bookings, context, id, query, after)
    if found is None:
        raise ProblemError(event_not_found(event_id))
    path = f"/events/{id}/bookings"
    return page_response(path, query, [(booking_view(each), (each.user_id, each.id)) for each in found])


@router.delete(
    "/bookings/{booking_id}",
    status_code=202,
    response_model=Job,
    summary="Cancel a booking",
    responses={
        200: {"model": Booking, "description": "cancelled, if the client waited for it"},
        **ACCEPTED,
        **REFUSED,
        **PROBLEMS[404],
        **PROBLEMS[410],
        **PROBLEMS[422],
        **PROBLEMS[429],
        **PROBLEMS[503],
    },
)
async def cancel(
    booking_id: str, context: Context, prefer: Prefer = None, idempotency_key: IdempotencyKey = None
) -> Response:
    """The command stands in the same line as the bookings; a booking that still waits can be cancelled."""
    id = canonical_id(booking_id)
    event_id = None if id is None else await _event_of_booking(context, id)
    if id is None or event_id is None:
        raise ProblemError(booking_not_found(booking_id))
    headers = SubmitHeaders(prefer=prefer, idempotency_key=idempotency_key)
    return await submit_command(context, event_id, cancel_payload(id), headers)


@router.get(
    "/bookings/{booking_id}",
    response_model=Booking,
    summary="Look at a booking",
    responses={**PROBLEMS[404], **PROBLEMS[503]},
)
async def get_booking(booking_id: str, context: Context) -> Response:
    """As PostgreSQL has it."""
    id = canonical_id(booking_id)
    booking = None if id is None else await run_in_threadpool(_find_booking, context, id)
    if booking is None:
        raise ProblemError(booking_not_found(booking_id))
    return json_response(booking_view(booking))


async def _event_of_booking(context: ApiContext, booking_id: str) -> str | None:
    """The event in whose line the booking was, or still is; None if no booking came or can come of it."""
    job = await context.producer.read_job(booking_id)
    if job is not None and job.payload is not None and job.payload.get("kind") == CommandKind.BOOK:
        refused = job.result is not None and job.result["outcome"] != OutcomeCode.BOOKED
        return None if refused else job.event_id
    booking = await run_in_threadpool(_find_booking, context, booking_id)
    return None if booking is None else booking.event_id


def _list_bookings(
    context: ApiContext, event_id: str, query: BookingsQuery, after: tuple[str, str] | None
) -> list[BookingRecord] | None:
    with context.database.transaction() as connection:
        event = statements.find_event(connection, event_id)
        if event is None:
            return None
        refuse_archived(event)
        return lists.bookings_of_event(
            connection,
            event_id,
            user_id=query.user_id,
            status=query.status,
            after=after,
            count=query.limit + 1,
        )


def _find_booking(context: ApiContext, booking_id: str) -> BookingRecord | None:
    with context.database.transaction() as connection:
        return statements.find_bookings(connection, [booking_id]).get(booking_id)
