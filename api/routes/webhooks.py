"""Webhooks: have an organiser told what happens to an event, and see what was told."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api import webhooks
from api.access import Organiser, check_manages, may_touch
from api.callers import Caller
from api.context import ApiContext, Context
from api.event_lookup import known_event_id
from api.json_body import JsonBody
from api.openapi import ADMISSION, NEXT_PAGE, PROBLEMS
from api.pages import PageQuery, is_position, is_text, page_response, read_cursor
from api.problems import ProblemError, webhook_not_found
from api.submit import json_response
from api.webhook_schemas import (
    Message,
    Messages,
    MessageWithAttempts,
    Webhook,
    WebhookRequest,
    Webhooks,
    WebhookWithSecret,
)
from shared.api_keys import Role
from shared.webhooks.records import MessageStatus, attempt_view, message_view, webhook_view

router = APIRouter(
    tags=["webhooks"], responses={**ADMISSION, **PROBLEMS[403], **PROBLEMS[404], **PROBLEMS[422]}
)

_WEBHOOK_BODY = JsonBody(WebhookRequest)
_STRING = {"type": "string"}
_LOCATION: dict[str, Any] = {"Location": {"description": "the new webhook", "schema": _STRING}}


@router.post(
    "/events/{event_id}/webhooks",
    status_code=201,
    response_model=WebhookWithSecret,
    summary="Register a webhook",
    openapi_extra=_WEBHOOK_BODY.documented,
    responses={
        201: {"headers": _LOCATION},
        **PROBLEMS[409],
        **PROBLEMS[410],
        **PROBLEMS[413],
        **PROBLEMS[415],
    },
)
async def register_webhook(event_id: str, request: Request, context: Context, caller: Organiser) -> Response:
    """It is told what happens from now on. The secret is shown this once."""
    await check_manages(context, caller, known_event_id(event_id))
    wanted = await _WEBHOOK_BODY.of(request)
    await webhooks.check_target(context, wanted.url)
    webhook = await run_in_threadpool(webhooks.register, context, event_id, wanted)
    document = {**webhook_view(webhook), "secret": webhook.secret}
    headers = {"Location": f"/webhooks/{webhook.id}", "Cache-Control": "no-store"}
    return json_response(document, 201, headers)


@router.head("/events/{event_id}/webhooks", include_in_schema=False)
@router.get(
    "/events/{event_id}/webhooks",
    response_model=Webhooks,
    summary="List the webhooks of an event",
    responses=PROBLEMS[410],
)
async def list_webhooks(event_id: str, context: Context, caller: Organiser) -> Response:
    """All of them, oldest first; there are ten at most."""
    await check_manages(context, caller, known_event_id(event_id))
    found = await run_in_threadpool(webhooks.webhooks_of, context, event_id)
    return json_response({"items": [webhook_view(webhook) for webhook in found]})


@router.head("/webhooks/{webhook_id}", include_in_schema=False)
@router.get(
    "/webhooks/{webhook_id}",
    response_model=Webhook,
    summary="Look at a webhook",
)
async def get_webhook(webhook_id: str, context: Context, caller: Organiser) -> Response:
    """Without its secret."""
    await check_webhook(context, caller, webhook_id)
    return json_response(webhook_view(await run_in_threadpool(webhooks.get, context, webhook_id)))


@router.delete(
    "/webhooks/{webhook_id}",
    status_code=204,
    summary="Delete a webhook",
)
async def delete_webhook(webhook_id: str, context: Context, caller: Organiser) -> Response:
    """Nothing more is sent, but for an attempt that has begun; its log goes with it."""
    await check_webhook(context, caller, webhook_id)
    await run_in_threadpool(webhooks.forget, context, webhook_id)
    return Response(status_code=204)


@router.post(
    "/webhooks/{webhook_id}/enable",
    response_model=Webhook,
    summary="Enable a webhook that was disabled",
)
async def enable_webhook(webhook_id: str, context: Context, caller: Organiser) -> Response:
    """It is told everything since it was disabled. What had failed by then can be redelivered."""
    await check_webhook(context, caller, webhook_id)
    return json_response(webhook_view(await run_in_threadpool(webhooks.enable, context, webhook_id)))


@router.post(
    "/webhooks/{webhook_id}/secret",
    response_model=WebhookWithSecret,
    summary="Make a new secret",
)
async def rotate_secret(webhook_id: str, context: Context, caller: Organiser) -> Response:
    """For a day messages are signed with the old secret too. The new one is shown this once."""
    await check_webhook(context, caller, webhook_id)
    webhook = await run_in_threadpool(webhooks.rotate_secret, context, webhook_id)
    document = {**webhook_view(webhook), "secret": webhook.secret}
    return json_response(document, 200, {"Cache-Control": "no-store"})


class MessagesQuery(PageQuery):
    """Which messages of a webhook, in the query."""

    status: MessageStatus | None = None


@router.head("/webhooks/{webhook_id}/messages", include_in_schema=False)
@router.get(
    "/webhooks/{webhook_id}/messages",
    response_model=Messages,
    summary="Read the log",
    responses=NEXT_PAGE,
)
async def list_messages(
    webhook_id: str, context: Context, caller: Organiser, query: Annotated[MessagesQuery, Query()]
) -> Response:
    """Newest first, in pages."""
    await check_webhook(context, caller, webhook_id)
    before = read_cursor(query.cursor, is_position, is_text)
    found = await run_in_threadpool(
        webhooks.messages_of,
        context,
        webhook_id,
        before=before,
        status=query.status,
        count=query.limit + 1,
    )
    path = f"/webhooks/{webhook_id.lower()}/messages"
    return page_response(
        path, query, [(message_view(message), (message.position, message.type.value)) for message in found]
    )


@router.head("/webhooks/{webhook_id}/messages/{message_id}", include_in_schema=False)
@router.get(
    "/webhooks/{webhook_id}/messages/{message_id}",
    response_model=MessageWithAttempts,
    summary="Look at a message and the attempts to deliver it",
)
async def get_message(webhook_id: str, message_id: str, context: Context, caller: Organiser) -> Response:
    """With what is sent, and the newest attempts."""
    await check_webhook(context, caller, webhook_id)
    message, log = await run_in_threadpool(webhooks.message_with_log, context, webhook_id, message_id)
    document = {**message_view(message), "body": message.body, "log": [attempt_view(each) for each in log]}
    return json_response(document)


@router.post(
    "/webhooks/{webhook_id}/messages/{message_id}/redeliver",
    status_code=202,
    response_model=Message,
    summary="Deliver a message again",
    responses=PROBLEMS[409],
)
async def redeliver_message(
    webhook_id: str, message_id: str, context: Context, caller: Organiser
) -> Response:
    """Soon, with the same id and a new schedule of retries, whether it was delivered, failed or waits."""
    await check_webhook(context, caller, webhook_id)
    message = await run_in_threadpool(webhooks.redeliver, context, webhook_id, message_id)
    return json_response(message_view(message), 202)


async def check_webhook(context: ApiContext, caller: Caller, webhook_id: str) -> None:
    """A webhook is its event's organiser's.

    Raises:
        ProblemError: there is no such webhook, or it is not theirs.
    """
    if caller.role is Role.ANYONE:
        return
    webhook = await run_in_threadpool(webhooks.get, context, webhook_id)
    if not await may_touch(context, caller, event_id=webhook.event_id, user_id=None):
        raise ProblemError(webhook_not_found(webhook_id))
