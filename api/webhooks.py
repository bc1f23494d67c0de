"""What the webhook routes do in PostgreSQL, each in one transaction. For threads."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import anyio
from anyio import to_thread

from api.context import ApiContext
from api.event_lookup import refuse_archived
from api.problems import (
    ProblemError,
    event_not_found,
    invalid_request,
    message_not_found,
    webhook_disabled,
    webhook_not_found,
)
from api.webhook_schemas import WebhookRequest
from shared import limits
from shared.database import statements as event_statements
from shared.database import webhook_messages as message_statements
from shared.database import webhooks as statements
from shared.errors import AddressRefused
from shared.identifiers import canonical_id
from shared.records import EventRecord
from shared.webhooks.addresses import checked_addresses, port_of, read_url, resolve_with_system
from shared.webhooks.messages import MessageType
from shared.webhooks.records import AttemptRecord, MessageRecord, MessageStatus, WebhookRecord, new_webhook
from shared.webhooks.secrets import new_secret


def known_id(text: str) -> str:
    """An id in canonical form; what is none can't be the id of anything."""
    return canonical_id(text) or "00000000-0000-0000-0000-000000000000"


async def check_target(context: ApiContext, text: str) -> None:
    """See that a webhook may go to a URL. A host that has no address now may have one later.

    Raises:
        ProblemError: it may not; the problem says why.
    """
    allow_private = context.settings.webhooks_allow_private
    try:
        url = read_url(text, allow_private=allow_private)
        if not allow_private:
            found = await _addresses(url.raw_host.decode(), port_of(url))
            checked_addresses(found, allow_private=False)
    except AddressRefused as error:
        raise ProblemError(invalid_request([("url", str(error))])) from error


async def _addresses(host: str, port: int) -> list[str]:
    try:
        with anyio.fail_after(limits.WEBHOOK_RESOLVE_SECONDS_MAX):
            return await to_thread.run_sync(resolve_with_system, host, port, abandon_on_cancel=True)
    except (OSError, UnicodeError, TimeoutError):
        return []


def register(context: ApiContext, event_id: str, request: WebhookRequest) -> WebhookRecord:
    """Add a webhook that is told what happens from now on.

    Raises:
        ProblemError: there is no such event.
        EventArchived: there was one.
        TooManyWebhooks: it has as many as it may have.
    """
    with context.database.transaction() as connection:
        event = _found_event(event_statements.find_event(connection, known_id(event_id)), event_id)
        webhook = new_webhook(
            event,
            url=request.url,
            types=(MessageType(type) for type in request.types),
            secret=new_secret(),
            created_at=context.clock.now(),
        )
        statements.insert_webhook(connection, webhook)
    return webhook


def webhooks_of(context: ApiContext, event_id: str) -> list[WebhookRecord]:
    """The webhooks of an event.

    Raises:
        ProblemError: there is no such event.
        EventArchived: there was one.
    """
    with context.database.transaction() as connection:
        event = _found_event(event_statements.find_event(connection, known_id(event_id)), event_id)
        return statements.webhooks_of_event(connection, event.id)


def get(context: ApiContext, webhook_id: str) -> WebhookRecord:
    """A webhook.

    Raises:
        ProblemError: there is none with this id.
    """
    with context.database.transaction() as connection:
        return _found(statements.find_webhook(connection, known_id(webhook_id)), webhook_id)


def forget(context: ApiContext, webhook_id: str) -> None:
    """Delete a webhook; nothing is sent any more.

    Raises:
        ProblemError: there is none with this id.
    """
    with context.database.transaction() as connection:
        if not statements.mark_webhook_deleted(connection, known_id(webhook_id), context.clock.now()):
            raise ProblemError(webhook_not_found(webhook_id))


def enable(context: ApiContext, webhook_id: str) -> WebhookRecord:
    """Let a webhook go on where it stopped.

    Raises:
        ProblemError: there is none with this id.
    """
    with context.database.transaction() as connection:
        webhook = _found(statements.find_webhook(connection, known_id(webhook_id), lock=True), webhook_id)
        enabled = replace(
            webhook,
            disabled_at=None,
            disabled_reason=None,
            failures=0,
            failing_since=None,
            resting_until=None,
        )
        statements.update_webhook(connection, enabled)
    return enabled


def rotate_secret(context: ApiContext, webhook_id: str) -> WebhookRecord:
    """Give a webhook a new secret; for a while messages are signed with the old one too.

    Raises:
        ProblemError: there is none with this id.
    """
    with context.database.transaction() as connection:
        webhook = _found(statements.find_webhook(connection, known_id(webhook_id), lock=True), webhook_id)
        secret = new_secret()
        old_until = context.clock.now() + timedelta(seconds=limits.WEBHOOK_OLD_SECRET_SECONDS)
        statements.replace_secret(connection, webhook.id, secret, old_until)
    return replace(webhook, secret=secret)


def messages_of(
    context: ApiContext,
    webhook_id: str,
    *,
    before: tuple[int, str] | None,
    status: MessageStatus | None,
    count: int,
) -> list[MessageRecord]:
    """Messages of a webhook, newest first, before the position and type in `before`.

    Raises:
        ProblemError: there is no such webhook.
    """
    with context.database.transaction() as connection:
        webhook = _found(statements.find_webhook(connection, known_id(webhook_id)), webhook_id)
        return message_statements.page_of_messages(
            connection, webhook.id, limit=count, before=before, status=status
        )


def message_with_log(
    context: ApiContext, webhook_id: str, message_id: str
) -> tuple[MessageRecord, list[AttemptRecord]]:
    """A message and the attempts to deliver it, newest first.

    Raises:
        ProblemError: there is no such webhook or message.
    """
    with context.database.transaction() as connection:
        webhook = _found(statements.find_webhook(connection, known_id(webhook_id)), webhook_id)
        message = message_statements.find_message(connection, webhook.id, known_id(message_id))
        if message is None:
            raise ProblemError(message_not_found(message_id))
        return message, message_statements.attempts_of_message(connection, message.id)


def redeliver(context: ApiContext, webhook_id: str, message_id: str) -> MessageRecord:
    """Have a message delivered again, whatever became of it, and also to a target that rests.

    Raises:
        ProblemError: there is no such webhook or message, or nothing is delivered to this webhook.
    """
    with context.database.transaction() as connection:
        webhook = _found(statements.find_webhook(connection, known_id(webhook_id), lock=True), webhook_id)
        if webhook.disabled_reason is not None:
            raise ProblemError(webhook_disabled(webhook.disabled_reason))
        message = message_statements.find_message(connection, webhook.id, known_id(message_id))
        if message is None:
            raise ProblemError(message_not_found(message_id))
        again = replace(message, status=MessageStatus.PENDING, next_attempt_at=context.clock.now(), tries=0)
        message_statements.update_message(connection, again)
        statements.update_webhook(connection, replace(webhook, resting_until=None))
    return again


def _found_event(event: EventRecord | None, event_id: str) -> EventRecord:
    if event is None:
        raise ProblemError(event_not_found(event_id))
    refuse_archived(event)
    return event


def _found(webhook: WebhookRecord | None, webhook_id: str) -> WebhookRecord:
    if webhook is None:
        raise ProblemError(webhook_not_found(webhook_id))
    return webhook
