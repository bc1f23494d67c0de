"""The box office: a sale as its organiser watches it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from api.access import Organiser, check_manages
from api.box_office_stream import EVENT_SCHEMA, EXAMPLE, BoxOfficeStream
from api.context import ApiContext, Context
from api.event_lookup import known_event_id, refuse_archived
from api.headers import joined_header
from api.openapi import ADMISSION, PROBLEMS
from api.problems import ProblemError, event_not_found
from shared import limits
from shared.database import statements

router = APIRouter(tags=["events"], responses=ADMISSION)

Snapshots = Annotated[
    int | None,
    Query(
        ge=1,
        le=limits.BOX_OFFICE_SNAPSHOTS_MAX,
        description="end after so many snapshots; without it the stream goes on",
    ),
]


@router.get(
    "/events/{event_id}/box-office",
    operation_id="stream_box_office",
    response_class=StreamingResponse,
    summary="Watch an event being sold",
    responses={
        200: {
            "description": "`snapshot` at once and then about once a second: the line, what is sold, what"
            " became of the commands, how long they took, the newest entries of the ledger. Lines that begin"
            " with a colon are heartbeats.",
            "content": {"text/event-stream": {"schema": EVENT_SCHEMA, "example": EXAMPLE}},
        },
        **PROBLEMS[403],
        **PROBLEMS[404],
        **PROBLEMS[410],
        **PROBLEMS[422],
    },
)
async def stream_box_office(
    event_id: str, request: Request, context: Context, caller: Organiser, snapshots: Snapshots = None
) -> StreamingResponse:
    """Server-Sent Events. `outcomes` are counted up to `counted_position`; the ledger of a long sale takes a
    few snapshots. `not_answering` names the servers of which it says what they said last."""
    id = known_event_id(event_id)
    async with AsyncExitStack() as held:
        held.enter_context(context.box_office_streams.take())
        await check_manages(context, caller, id)
        await run_in_threadpool(_refuse_what_is_not_there, context, id)
        woken = asyncio.Event()
        office = held.enter_context(context.box_offices.watch(id, woken.set))
        authorization = joined_header(request, "authorization")
        return BoxOfficeStream(
            context,
            office,
            woken,
            snapshots,
            held.pop_all(),
            may_watch=lambda: context.gate.still_knows(authorization),
        )


def _refuse_what_is_not_there(context: ApiContext, event_id: str) -> None:
    with context.database.transaction() as connection:
        event = statements.find_event(connection, event_id)
    if event is None:
        raise ProblemError(event_not_found(event_id))
    refuse_archived(event)
