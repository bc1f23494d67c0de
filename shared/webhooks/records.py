"""What is stored about webhooks, their messages and the attempts to deliver them, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypedDict

from shared.clock import format_time
from shared.identifiers import new_id
from shared.records import EventRecord
from shared.webhooks.messages import MessageType


class MessageStatus(StrEnum):
    """How far a message has come."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRecord:
    """A row of `webhooks`.

    Messages have been made of the ledger up to `cursor_position`, where `cursor_available_tickets` were
    left. Until `claimed_until` it belongs to one delivery, until `resting_until` it is left alone after
    `failures` in a row. `slow`: its last answer took long.
    """

    id: str
    event_id: str
    url: str
    types: Sequence[MessageType]
    secret: str
    old_secret: str | None
    old_secret_until: datetime | None
    cursor_position: int
    cursor_available_tickets: int
    claimed_until: datetime | None
    resting_until: datetime | None
    failures: int
    failing_since: datetime | None
    slow: bool
    created_at: datetime
    disabled_at: datetime | None
    disabled_reason: str | None
    deleted_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRecord:
    """A row of `webhook_messages`. `attempts` are all ever made, `tries` those that the schedule counts."""

    id: str
    webhook_id: str
    position: int
    type: MessageType
    body: str
    status: MessageStatus
    attempts: int
    tries: int
    next_attempt_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """A row of `webhook_attempts`: what came of one attempt. No error means that it was delivered."""

    message_id: str
    number: int
    attempted_at: datetime
    duration_ms: int
    status_code: int | None
    error: str | None


def new_webhook(
    event: EventRecord, *, url: str, types: Iterable[MessageType], secret: str, created_at: datetime
) -> WebhookRecord:
    """A webhook that is told what happens to an event from the state on that it has here."""
    return WebhookRecord(
        id=new_id(),
        event_id=event.id,
        url=url,
        types=tuple(sorted(set(types))),
        secret=secret,
        old_secret=None,
        old_secret_until=None,
        cursor_position=event.applied_position,
        cursor_available_tickets=event.available_tickets,
        claimed_until=None,
        resting_until=None,
        failures=0,
        failing_since=None,
        slow=False,
        created_at=created_at,
        disabled_at=None,
        disabled_reason=None,
        deleted_at=None,
    )


class WebhookView(TypedDict):
    """A webhook as the HTTP API shows it."""

    id: str
    event_id: str
    url: str
    types: list[str]
    status: str
    disabled_reason: str | None
    failures: int
    told_position: int
    created_at: str


class MessageView(TypedDict):
    """A message as the HTTP API shows it in a list."""

    id: str
    webhook_id: str
    type: str
    position: int
    status: str
    attempts: int
    next_attempt_at: str | None
    created_at: str


class AttemptView(TypedDict):
    """An attempt as the HTTP API shows it."""

    number: int
    attempted_at: str
    duration_ms: int
    status_code: int | None
    error: str | None


def webhook_view(webhook: WebhookRecord) -> WebhookView:
    """Show a webhook, without its secret."""
    return WebhookView(
        id=webhook.id,
        event_id=webhook.event_id,
        url=webhook.url,
        types=[type.value for type in webhook.types],
        status="active" if webhook.disabled_at is None else "disabled",
        disabled_reason=webhook.disabled_reason,
        failures=webhook.failures,
        told_position=webhook.cursor_position,
        created_at=format_time(webhook.created_at),
    )


def message_view(message: MessageRecord) -> MessageView:
    """Show a message."""
    return MessageView(
        id=message.id,
        webhook_id=message.webhook_id,
        type=message.type.value,
        position=message.position,
        status=message.status.value,
        attempts=message.attempts,
        next_attempt_at=None if message.next_attempt_at is None else format_time(message.next_attempt_at),
        created_at=format_time(message.created_at),
    )


def attempt_view(attempt: AttemptRecord) -> AttemptView:
    """Show an attempt."""
    return AttemptView(
        number=attempt.number,
        attempted_at=format_time(attempt.attempted_at),
        duration_ms=attempt.duration_ms,
        status_code=attempt.status_code,
        error=attempt.error,
    )
