"""Webhooks: have an organiser told what happens to an event, and see what was told."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from starlette.concurrency import run_in_threadpool

from api import webhooks
from api.context import Context
from api.openapi import PROBLEMS
from api.submit import json_response
from api.webhook_schemas import (
    Message,
    Messages,
    MessageStatusName,
    MessageWithAttempts,
    Webhook,
    WebhookRequest,
    Webhooks,
    WebhookWithSecret,
)
from shared import limits
from shared.webhooks.records import MessageStatus, attempt_view, message_view, webhook_view

router = APIRouter(tags=["webhooks"], responses={**PROBLEMS[404], **PROBLEMS[422], **PROBLEMS[503]})

_STRING = {"type": "string"}
_LOCATION: dict[str, Any] = {"Location": {"description": "the new webhook", "schema": _STRING}}
_LINK: dict[str, Any] = {
    "Link": {"description": 'the next page, as `<…>; rel="next"`, if there is one', "schema": _STRING}
}


@router.post(
    "/events/{event_id}/webhooks",
    status_code=201,
    response_model=WebhookWithSecret,
    summary="Register a webhook",
    responses={201: {"headers": _LOCATION}, **PROBLEMS[409], **PROBLEMS[413]},
)
async def register_webhook(event_id: str, request: WebhookRequest, context: Context) -> Response:
    """It is told what happens from now on. The secret is shown this once."""
    await webhooks.check_target(context, request.url)
    webhook = await run_in_threadpool(webhooks.register, context, event_id, request)
    document = {**webhook_view(webhook), "secret": webhook.secret}
    headers = {"Location": f"/webhooks/{webhook.id}", "Cache-Control": "no-store"}
    return json_response(document, 201, headers)


@router.get(
    "/events/{event_id}/webhooks",
    response_model=Webhooks,
    summary="List the webhooks of an event",
)
async def list_webhooks(event_id: str, context: Context) -> Response:
    """All of them, oldest first; there are ten at most."""
    found = await run_in_threadpool(webhooks.webhooks_of, context, event_id)
    return json_response({"items": [webhook_view(webhook) for webhook in found]})


@router.get(
    "/webhooks/{webhook_id}",
    response_model=Webhook,
    summary="Look at a webhook",
)
async def get_webhook(webhook_id: str, context: Context) -> Response:
    """Without its secret."""
    return json_response(webhook_view(await run_in_threadpool(webhooks.get, context, webhook_id)))


@router.delete(
    "/webhooks/{webhook_id}",
    status_code=204,
    summary="Delete a webhook",
)
async def delete_webhook(webhook_id: str, context: Context) -> Response:
    """Nothing more is sent, but for an attempt that has begun; its log goes with it."""
    await run_in_threadpool(webhooks.forget, context, webhook_id)
    return Response(status_code=204)


@router.post(
    "/webhooks/{webhook_id}/enable",
    response_model=Webhook,
    summary="Enable a webhook that was disabled",
)
async def enable_webhook(webhook_id: str, context: Context) -> Response:
    """It is told everything since it was disabled. What had failed by then can be redelivered."""
    return json_response(webhook_view(await run_in_threadpool(webhooks.enable, context, webhook_id)))


@router.post(
    "/webhooks/{webhook_id}/secret",
    response_model=WebhookWithSecret,
    summary="Make a new secret",
)
async def rotate_secret(webhook_id: str, context: Context) -> Response:
    """For a day messages are signed with the old secret too. The new one is shown this once."""
    webhook = await run_in_threadpool(webhooks.rotate_secret, context, webhook_id)
    document = {**webhook_view(webhook), "secret": webhook.secret}
    return json_response(document, 200, {"Cache-Control": "no-store"})


@router.get(
    "/webhooks/{webhook_id}/messages",
    response_model=Messages,
    summary="Read the log",
    responses={200: {"headers": _LINK}},
)
async def list_messages(
    webhook_id: str,
    context: Context,
    limit: Annotated[
        int, Query(ge=1, le=limits.WEBHOOK_MESSAGES_PAGE_MAX)
    ] = limits.WEBHOOK_MESSAGES_PAGE_DEFAULT,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before")] = None,
    status: Annotated[MessageStatusName | None, Query(description="only those with this status")] = None,
) -> Response:
    """Newest first, in pages."""
    wanted = None if status is None else MessageStatus(status)
    found, following = await run_in_threadpool(
        webhooks.page, context, webhook_id, limit=limit, cursor=cursor, status=wanted
    )
    headers = {}
    if following is not None:
        query = f"limit={limit}&cursor={following}" + ("" if status is None else f"&status={status}")
        headers["Link"] = f'</webhooks/{found[0].webhook_id}/messages?{query}>; rel="next"'
    items = [message_view(message) for message in found]
    return json_response({"items": items, "next_cursor": following}, 200, headers)


@router.get(
    "/webhooks/{webhook_id}/messages/{message_id}",
    response_model=MessageWithAttempts,
    summary="Look at a message and the attempts to deliver it",
)
async def get_message(webhook_id: str, message_id: str, context: Context) -> Response:
    """With what is sent, and the newest attempts."""
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
async def redeliver_message(webhook_id: str, message_id: str, context: Context) -> Response:
    """Soon, with the same id and a new schedule of retries, whether it was delivered, failed or waits."""
    message = await run_in_threadpool(webhooks.redeliver, context, webhook_id, message_id)
    return json_response(message_view(message), 202)
