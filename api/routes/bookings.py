"""Bookings: ask for tickets, give them back, look at what was sold."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.access import AnyCaller, check_manages, may_touch
from api.booking_lookup import find_booking, find_booking_origin
from api.callers import Caller
from api.context import ApiContext, Context
from api.event_lookup import known_event_id, refuse_archived
from api.headers import joined_header
from api.idempotency import IDEMPOTENCY_KEY_PATTERN, keyed_job_id
from api.jobs import read_job
from api.openapi import ACCEPTED, ADMISSION, NEXT_PAGE, PROBLEMS, REFUSED
from api.pages import PageQuery, is_id, is_text, page_response, read_cursor
from api.problems import ProblemError, booking_not_found, event_not_found, forbidden
from api.schemas import Booking, BookingPage, Job, UserId
from api.submit import BOOKING_BODY, SubmitHeaders, json_response, submit_booking, submit_command
from api.wait import hang_ups_of
from shared.api_keys import Role
from shared.database import lists, statements
from shared.domain import BookingStatus
from shared.identifiers import canonical_id
from shared.line.codec import cancel_payload
from shared.records import BookingRecord, booking_view

router = APIRouter(tags=["bookings"], responses=ADMISSION)

Prefer = Annotated[
    str | None,
    Header(
        description="`wait=N`: wait up to N seconds for the result. `respond-async`: don't wait longer",
        examples=["wait=10", "respond-async, wait=10"],
    ),
]
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
    openapi_extra=BOOKING_BODY.documented,
    responses={
        201: {"model": Booking, "description": "booked, if the client waited for it"},
        **ACCEPTED,
        **REFUSED,
        **PROBLEMS[403],
        **PROBLEMS[404],
        **PROBLEMS[409],
        **PROBLEMS[410],
        **PROBLEMS[413],
        **PROBLEMS[415],
        **PROBLEMS[422],
    },
)
async def book(
    event_id: str,
    request: Request,
    context: Context,
    caller: AnyCaller,
    prefer: Prefer = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """The command gets its place in the event's line, which is kept for ever. Poll the job for the result."""
    body = await request.body()
    return await submit_booking(
        context, caller, event_id, body, submit_headers(request), hang_ups_of(request.receive)
    )


class BookingsQuery(PageQuery):
    """Which bookings of an event, in the query."""

    user_id: UserId | None = None
    status: BookingStatus | None = None


@router.head("/events/{event_id}/bookings", include_in_schema=False)
@router.get(
    "/events/{event_id}/bookings",
    response_model=BookingPage,
    summary="List the bookings of an event",
    responses={**NEXT_PAGE, **PROBLEMS[403], **PROBLEMS[404], **PROBLEMS[410], **PROBLEMS[422]},
)
async def list_bookings(
    event_id: str, context: Context, caller: AnyCaller, query: Annotated[BookingsQuery, Query()]
) -> Response:
    """In order of user and id, as PostgreSQL has them. Customers see their own."""
    id = known_event_id(event_id)
    query = await _query_of(context, caller, id, query)
    after = read_cursor(query.cursor, is_text, is_id)
    found = await run_in_threadpool(_list_bookings, context, id, query, after)
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
        **PROBLEMS[409],
        **PROBLEMS[410],
        **PROBLEMS[422],
    },
)
async def cancel(
    booking_id: str,
    request: Request,
    context: Context,
    caller: AnyCaller,
    prefer: Prefer = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """The command stands in the same line as the bookings; a booking that still waits can be cancelled."""
    id, headers = canonical_id(booking_id), submit_headers(request)
    event_id = None if id is None else await _event_to_cancel_at(context, caller, id, headers.idempotency_key)
    if id is None or event_id is None:
        raise ProblemError(booking_not_found(booking_id))
    return await submit_command(
        context, caller, event_id, cancel_payload(id), headers, hang_ups_of(request.receive)
    )


@router.head("/bookings/{booking_id}", include_in_schema=False)
@router.get(
    "/bookings/{booking_id}",
    response_model=Booking,
    summary="Look at a booking",
    responses={**PROBLEMS[404]},
)
async def get_booking(booking_id: str, context: Context, caller: AnyCaller) -> Response:
    """As PostgreSQL has it."""
    id = canonical_id(booking_id)
    booking = None if id is None else await find_booking(context, id)
    if booking is None or not await may_touch(
        context, caller, event_id=booking.event_id, user_id=booking.user_id
    ):
        raise ProblemError(booking_not_found(booking_id))
    return json_response(booking_view(booking))


def submit_headers(request: Request) -> SubmitHeaders:
    """Read from the request itself: a header may come in several lines. The parameters document them."""
    return SubmitHeaders(
        content_type=joined_header(request, "content-type"),
        prefer=joined_header(request, "prefer"),
        idempotency_key=joined_header(request, "idempotency-key"),
    )


async def _event_to_cancel_at(
    context: ApiContext, caller: Caller, booking_id: str, key: str | None
) -> str | None:
    """The event of a booking that the caller may cancel; None if there is no such booking."""
    origin = await find_booking_origin(context, booking_id)
    if origin is not None and not origin.refused:
        may_cancel = await may_touch(context, caller, event_id=origin.event_id, user_id=origin.user_id)
        return origin.event_id if may_cancel else None
    if key is None:
        return None
    # Perhaps cancelled while it still waited: the same key is that job, whatever came of the booking.
    job = await read_job(context, keyed_job_id(caller.id, key))
    return None if job is None else job.document["event_id"]


async def _query_of(
    context: ApiContext, caller: Caller, event_id: str, query: BookingsQuery
) -> BookingsQuery:
    """What a caller may ask for: organisers and sellers for all of their event, customers for their own.

    Raises:
        ProblemError: they may not ask for that.
    """
    if caller.role is not Role.CUSTOMER:
        await check_manages(context, caller, event_id)
        return query
    if query.user_id not in (None, caller.user_id):
        raise ProblemError(forbidden("You can list your own bookings only. Leave user_id out."))
    return query.model_copy(update={"user_id": caller.user_id})


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
