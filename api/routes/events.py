"""Events: put one on sale, look at it, change its terms."""

from __future__ import annotations

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.access import AnyCaller, Organiser, check_manages
from api.conditional import IfNoneMatch, conditional_response
from api.context import ApiContext, Context
from api.event_lookup import known_event_id
from api.json_body import JsonBody
from api.openapi import ACCEPTED, ADMISSION, NEXT_PAGE, NOT_MODIFIED, PROBLEMS, REFUSED
from api.pages import PageQuery, is_id, page_response, read_cursor
from api.problems import ProblemError, condition_not_supported, invalid_request
from api.routes.bookings import IdempotencyKey, Prefer, submit_headers
from api.schemas import Event, EventChange, EventPage, EventRequest, Job
from api.submit import find_event, json_response, submit_command
from api.wait import hang_ups_of
from shared.database import lists, statements
from shared.domain import SaleTerms
from shared.errors import LineUnavailable
from shared.identifiers import new_id
from shared.line.codec import change_payload
from shared.log import log_event
from shared.records import EventRecord, EventView, event_view
from shared.seals import new_event

logger = logging.getLogger(__name__)

router = APIRouter(tags=["events"], responses=ADMISSION)

_EVENT_BODY = JsonBody(EventRequest)
_CHANGE_BODY = JsonBody(EventChange)
_LOCATION: dict[str, Any] = {"Location": {"description": "the new event", "schema": {"type": "string"}}}
_ETAG: dict[str, Any] = {"ETag": {"description": "changes with the event", "schema": {"type": "string"}}}


@router.post(
    "/events",
    status_code=201,
    response_model=Event,
    summary="Put an event on sale",
    openapi_extra=_EVENT_BODY.documented,
    responses={
        201: {"headers": _LOCATION},
        **PROBLEMS[403],
        **PROBLEMS[413],
        **PROBLEMS[415],
        **PROBLEMS[422],
    },
)
async def create_event(request: Request, context: Context, caller: Organiser) -> Response:
    """All tickets are for sale at once, or from `sales_open_at` on."""
    wanted = await _EVENT_BODY.of(request)
    terms = SaleTerms(
        name=wanted.name,
        total_tickets=wanted.total_tickets,
        max_tickets_per_user=wanted.max_tickets_per_user,
        sales_open_at=wanted.sales_open_at,
    )
    event = new_event(id=new_id(), terms=terms, created_at=context.clock.now(), organiser_id=caller.account)
    await run_in_threadpool(_insert_event, context, event)
    try:
        await context.producer.seed_event(event)
    except LineUnavailable as error:
        # The event is there; whoever asks for it first tells Redis.
        log_event(logger, logging.WARNING, "event made without Redis", event_id=event.id, reason=error)
    return json_response(event_view(event), 201, {"Location": f"/events/{event.id}"})


@router.head("/events", include_in_schema=False)
@router.get(
    "/events",
    response_model=EventPage,
    summary="List events",
    responses={**NEXT_PAGE, **PROBLEMS[422]},
)
async def list_events(context: Context, caller: AnyCaller, query: Annotated[PageQuery, Query()]) -> Response:
    """The newest first, as PostgreSQL has them. Organisers and sellers see those of their account."""
    before = read_cursor(query.cursor, is_id)
    found = await run_in_threadpool(_list_events, context, caller.account, before, query.limit + 1)
    return page_response("/events", query, [(event_view(event), (event.id,)) for event in found])


@router.patch(
    "/events/{event_id}",
    status_code=202,
    response_model=Job,
    summary="Change an event",
    openapi_extra=_CHANGE_BODY.documented,
    responses={
        200: {"model": Event, "description": "changed, if the client waited for it"},
        **ACCEPTED,
        **REFUSED,
        **PROBLEMS[403],
        **PROBLEMS[404],
        **PROBLEMS[410],
        **PROBLEMS[409],
        **PROBLEMS[413],
        **PROBLEMS[415],
        **PROBLEMS[422],
    },
)
async def change_event(
    event_id: str,
    request: Request,
    context: Context,
    caller: Organiser,
    prefer: Prefer = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """The change stands in the same line as the bookings: those before it are decided under the old terms.

    The total never goes below what is sold.
    """
    id = known_event_id(event_id)
    await check_manages(context, caller, id)
    if "if-match" in request.headers:
        raise ProblemError(condition_not_supported())
    change = await _CHANGE_BODY.of(request)
    if not change:
        raise ProblemError(invalid_request([("body", "name at least one thing to change")]))
    payload = change_payload(**change)
    return await submit_command(
        context, caller, id, payload, submit_headers(request), hang_ups_of(request.receive)
    )


@router.head("/events/{event_id}", include_in_schema=False)
@router.get(
    "/events/{event_id}",
    response_model=Event,
    summary="Look at an event",
    responses={
        200: {"headers": _ETAG},
        **NOT_MODIFIED,
        **PROBLEMS[404],
        **PROBLEMS[410],
    },
)
async def get_event(
    event_id: str, context: Context, caller: AnyCaller, if_none_match: IfNoneMatch
) -> Response:
    """As of the last applied batch. Events are for everybody to see."""
    view, applied = await _read_event(context, known_event_id(event_id))
    return conditional_response(
        view, {"Cache-Control": "no-cache"}, etag=f'"{applied}"', if_none_match=if_none_match
    )


async def _read_event(context: ApiContext, event_id: str) -> tuple[EventView, int]:
    known = await context.producer.read_event(event_id)
    if known is not None:
        return known
    event = await find_event(context, event_id)
    return event_view(event), event.applied_position


def _insert_event(context: ApiContext, event: EventRecord) -> None:
    with context.database.transaction() as connection:
        statements.insert_event(connection, event)


def _list_events(
    context: ApiContext, organiser_id: str | None, before: tuple[str] | None, count: int
) -> list[EventRecord]:
    before_id = before[0] if before else None
    with context.database.transaction() as connection:
        return lists.newest_events(connection, before_id=before_id, count=count, organiser_id=organiser_id)
