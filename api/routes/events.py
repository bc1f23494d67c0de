"""Events: put one on sale, look at it, change its terms."""

from __future__ import annotations

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from starlette.concurrency import run_in_threadpool

from api.context import ApiContext, Context
from api.openapi import ACCEPTED, NEXT_PAGE, PROBLEMS, REFUSED
from api.pages import PageQuery, page_response, read_cursor
from api.problems import ProblemError, event_not_found, invalid_request
from api.routes.bookings import IdempotencyKey, Prefer
from api.schemas import Event, EventChange, EventPage, EventRequest, Job
from api.submit import SubmitHeaders, find_event, json_response, submit_command
from shared.database import lists, statements
from shared.domain import SaleTerms
from shared.errors import LineUnavailable
from shared.identifiers import canonical_id, new_id
from shared.line.codec import change_payload
from shared.log import log_event
from shared.records import EventRecord, EventView, event_view
from shared.seals import new_event

logger = logging.getLogger(__name__)

router = APIRouter(tags=["events"])

_LOCATION: dict[str, Any] = {"Location": {"description": "the new event", "schema": {"type": "string"}}}
_ETAG: dict[str, Any] = {"ETag": {"description": "changes with the event", "schema": {"type": "string"}}}


@router.post(
    "/events",
    status_code=201,
    response_model=Event,
    summary="Put an event on sale",
    responses={201: {"headers": _LOCATION}, **PROBLEMS[413], **PROBLEMS[422], **PROBLEMS[503]},
)
async def create_event(request: EventRequest, context: Context) -> Response:
    """All tickets are for sale at once, or from `sales_open_at` on."""
    terms = SaleTerms(
        name=request.name,
        total_tickets=request.total_tickets,
        max_tickets_per_user=request.max_tickets_per_user,
        sales_open_at=request.sales_open_at,
    )
    event = new_event(id=new_id(), terms=terms, created_at=context.clock.now())
    await run_in_threadpool(_insert_event, context, event)
    try:
        await context.producer.seed_event(event)
    except LineUnavailable as error:
        # The event is there; whoever asks for it first tells Redis.
        log_event(logger, logging.WARNING, "event made without Redis", event_id=event.id, reason=error)
    return json_response(event_view(event), 201, {"Location": f"/events/{event.id}"})


@router.get(
    "/events",
    response_model=EventPage,
    summary="List events",
    responses={**NEXT_PAGE, **PROBLEMS[422], **PROBLEMS[503]},
)
async def list_events(context: Context, query: Annotated[PageQuery, Query()]) -> Response:
    """The newest first, as PostgreSQL has them."""
    before = read_cursor(query.cursor, str)
    found = await run_in_threadpool(_list_events, context, before, query.limit + 1)
    return page_response("/events", query, [(event_view(event), (event.id,)) for event in found])


@router.patch(
    "/events/{event_id}",
    status_code=202,
    response_model=Job,
    summary="Change an event",
    responses={
        200: {"model": Event, "description": "changed, if the client waited for it"},
        **ACCEPTED,
        **REFUSED,
        **PROBLEMS[404],
        **PROBLEMS[410],
        **PROBLEMS[409],
        **PROBLEMS[413],
        **PROBLEMS[422],
        **PROBLEMS[429],
        **PROBLEMS[503],
    },
)
async def change_event(
    event_id: str,
    request: EventChange,
    context: Context,
    prefer: Prefer = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """The change stands in the same line as the bookings: those before it are decided under the old terms.

    The total never goes below what is sold.
    """
    id = canonical_id(event_id)
    if id is None:
        raise ProblemError(event_not_found(event_id))
    if not request:
        raise ProblemError(invalid_request([("body", "name at least one thing to change")]))
    payload = change_payload(**request)
    headers = SubmitHeaders(prefer=prefer, idempotency_key=idempotency_key)
    return await submit_command(context, id, payload, headers)


@router.get(
    "/events/{event_id}",
    response_model=Event,
    summary="Look at an event",
    responses={
        200: {"headers": _ETAG},
        304: {"description": "it has not changed since the ETag that was sent"},
        **PROBLEMS[404],
        **PROBLEMS[410],
        **PROBLEMS[503],
    },
)
async def get_event(
    event_id: str, context: Context, if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    """As of the last applied batch."""
    id = canonical_id(event_id)
    if id is None:
        raise ProblemError(event_not_found(event_id))
    view, applied = await _read_event(context, id)
    etag = f'"{applied}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    if if_none_match is not None and etag in (tag.strip() for tag in if_none_match.split(",")):
        return Response(status_code=304, headers=headers)
    return json_response(view, 200, headers)


async def _read_event(context: ApiContext, event_id: str) -> tuple[EventView, int]:
    known = await context.producer.read_event(event_id)
    if known is not None:
        return known
    event = await find_event(context, event_id)
    return event_view(event), event.applied_position


def _insert_event(context: ApiContext, event: EventRecord) -> None:
    with context.database.transaction() as connection:
        statements.insert_event(connection, event)


def _list_events(context: ApiContext, before: tuple[str] | None, count: int) -> list[EventRecord]:
    with context.database.transaction() as connection:
        return lists.newest_events(connection, before_id=before[0] if before else None, count=count)
