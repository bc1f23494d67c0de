"""The ledger of an event: every applied command and its outcome, in order."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from starlette.concurrency import run_in_threadpool

from api.access import Organiser, check_manages
from api.context import ApiContext, Context
from api.event_lookup import known_event_id, refuse_archived
from api.openapi import ADMISSION, NEXT_PAGE, PROBLEMS
from api.pages import PageQuery, is_position, page_response, read_cursor
from api.problems import ProblemError, event_not_found
from api.schemas import LedgerPage
from shared.database import lists, statements
from shared.records import LedgerRecord, ledger_view

router = APIRouter(tags=["ledger"], responses=ADMISSION)


@router.head("/events/{event_id}/ledger", include_in_schema=False)
@router.get(
    "/events/{event_id}/ledger",
    response_model=LedgerPage,
    summary="Read the ledger of an event",
    responses={**NEXT_PAGE, **PROBLEMS[403], **PROBLEMS[404], **PROBLEMS[410], **PROBLEMS[422]},
)
async def list_ledger(
    event_id: str, context: Context, caller: Organiser, query: Annotated[PageQuery, Query()]
) -> Response:
    """In order of position, that is, of acceptance. Rows never change, so a full page is final."""
    id = known_event_id(event_id)
    await check_manages(context, caller, id)
    after = read_cursor(query.cursor, is_position)
    found = await run_in_threadpool(_list, context, id, after[0] if after else 0, query.limit + 1)
    if found is None:
        raise ProblemError(event_not_found(event_id))
    path = f"/events/{id}/ledger"
    return page_response(path, query, [(ledger_view(entry), (entry.position,)) for entry in found])


def _list(context: ApiContext, event_id: str, after_position: int, count: int) -> list[LedgerRecord] | None:
    with context.database.transaction() as connection:
        event = statements.find_event(connection, event_id)
        if event is None:
            return None
        refuse_archived(event)
        return lists.ledger_of_event(connection, event_id, after_position=after_position, count=count)
