"""Events: put one on sale, and look at it."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import APIRouter, Response
from starlette.concurrency import run_in_threadpool

from api.conditional import IfNoneMatch, conditional_response
from api.context import ApiContext, Context
from api.openapi import NOT_MODIFIED, PROBLEMS
from api.problems import ProblemError, event_not_found
from api.schemas import Event, EventRequest
from api.submit import find_event, json_response
from shared import limits
from shared.database import statements
from shared.errors import LineUnavailable
from shared.identifiers import canonical_id, new_id
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
    """All tickets are for sale at once."""
    event = new_event(
        id=new_id(),
        name=request.name,
        total_tickets=request.total_tickets,
        max_tickets_per_user=limits.MAX_TICKETS_PER_USER_DEFAULT,
        created_at=context.clock.now(),
    )
    await run_in_threadpool(_insert_event, context, event)
    try:
        await context.events.tell_redis(event)
    except LineUnavailable as error:
        # The event is there; whoever asks for it first tells Redis.
        log_event(logger, logging.WARNING, "event made without Redis", event_id=event.id, reason=error)
    return json_response(event_view(event), 201, {"Location": f"/events/{event.id}"})


@router.head("/events/{event_id}", include_in_schema=False)
@router.get(
    "/events/{event_id}",
    response_model=Event,
    summary="Look at an event",
    responses={
        200: {"headers": _ETAG},
        **NOT_MODIFIED,
        **PROBLEMS[404],
        **PROBLEMS[503],
    },
)
async def get_event(event_id: str, context: Context, if_none_match: IfNoneMatch) -> Response:
    """As of the last applied batch."""
    id = canonical_id(event_id)
    if id is None:
        raise ProblemError(event_not_found(event_id))
    view, applied = await _read_event(context, id)
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
