"""The SQL of the messages of webhooks and of the log of their attempts. Call it inside a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, delete, exists, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as insert_or_ignore

from shared import limits
from shared.database.tables import webhook_attempts, webhook_messages, webhooks
from shared.webhooks.messages import LedgerMessage, MessageType, message_id
from shared.webhooks.records import AttemptRecord, MessageRecord, MessageStatus

_PENDING = MessageStatus.PENDING.value
_OF_ITS_WEBHOOK = webhook_messages.c.webhook_id == webhooks.c.id


def insert_messages(
    connection: Connection, webhook_id: str, messages: Sequence[LedgerMessage], moment: datetime
) -> None:
    """Add messages, to be delivered at once; one that is there already stays as it is."""
    rows = [
        {
            "id": message_id(webhook_id, message.position, message.type),
            "webhook_id": webhook_id,
            "position": message.position,
            "type": message.type.value,
            "body": message.body,
            "status": _PENDING,
            "next_attempt_at": moment,
            "created_at": moment,
        }
        for message in messages
    ]
    if rows:
        connection.execute(insert_or_ignore(webhook_messages).on_conflict_do_nothing(), rows)


def count_pending(connection: Connection, webhook_id: str) -> int:
    """How many messages of a webhook wait to be delivered."""
    statement = select(func.count()).where(
        webhook_messages.c.webhook_id == webhook_id, webhook_messages.c.status == _PENDING
    )
    return connection.execute(statement).scalar_one()


def due_messages(connection: Connection, webhook_id: str, moment: datetime) -> list[MessageRecord]:
    """The next messages of a webhook to deliver now, in the order of their time and their making."""
    statement = (
        _select_due(moment)
        .where(webhook_messages.c.webhook_id == webhook_id)
        .order_by(webhook_messages.c.next_attempt_at, webhook_messages.c.position, webhook_messages.c.type)
        .limit(limits.WEBHOOK_DUE_BATCH_MAX)
    )
    return [_message_record(row) for row in connection.execute(statement)]


def update_message(connection: Connection, message: MessageRecord) -> None:
    """Write what an attempt, or being asked for again, made of a message."""
    connection.execute(
        update(webhook_messages)
        .where(webhook_messages.c.id == message.id)
        .values(
            status=message.status.value,
            next_attempt_at=message.next_attempt_at,
            attempts=message.attempts,
            tries=message.tries,
        )
    )


def fail_pending_messages(connection: Connection, webhook_id: str) -> None:
    """Give up on the messages of a webhook that wait."""
    connection.execute(
        update(webhook_messages)
        .where(webhook_messages.c.webhook_id == webhook_id, webhook_messages.c.status == _PENDING)
        .values(status=MessageStatus.FAILED.value, next_attempt_at=None)
    )


def insert_attempt(connection: Connection, attempt: AttemptRecord) -> None:
    """Log an attempt, and forget the oldest one of its message if there are many."""
    connection.execute(
        insert_or_ignore(webhook_attempts)
        .values(
            message_id=attempt.message_id,
            number=attempt.number,
            attempted_at=attempt.attempted_at,
            duration_ms=attempt.duration_ms,
            status_code=attempt.status_code,
            error=attempt.error,
        )
        .on_conflict_do_nothing()
    )
    connection.execute(
        delete(webhook_attempts).where(
            webhook_attempts.c.message_id == attempt.message_id,
            webhook_attempts.c.number <= attempt.number - limits.WEBHOOK_ATTEMPTS_LOGGED_MAX,
        )
    )


def page_of_messages(
    connection: Connection,
    webhook_id: str,
    *,
    limit: int,
    before: tuple[int, str] | None,
    status: MessageStatus | None,
) -> list[MessageRecord]:
    """Messages of a webhook, newest first, from those before a position and type on."""
    key = tuple_(webhook_messages.c.position, webhook_messages.c.type)
    statement = select(webhook_messages).where(webhook_messages.c.webhook_id == webhook_id)
    if before is not None:
        statement = statement.where(key < before)
    if status is not None:
        statement = statement.where(webhook_messages.c.status == status.value)
    statement = statement.order_by(webhook_messages.c.position.desc(), webhook_messages.c.type.desc())
    return [_message_record(row) for row in connection.execute(statement.limit(limit))]


def find_message(connection: Connection, webhook_id: str, message_id: str) -> MessageRecord | None:
    """A message of this webhook."""
    statement = select(webhook_messages).where(
        webhook_messages.c.id == message_id, webhook_messages.c.webhook_id == webhook_id
    )
    row = connection.execute(statement).one_or_none()
    return None if row is None else _message_record(row)


def attempts_of_message(connection: Connection, message_id: str) -> list[AttemptRecord]:
    """The logged attempts at a message, newest first."""
    statement = select(webhook_attempts).where(webhook_attempts.c.message_id == message_id)
    rows = connection.execute(statement.order_by(webhook_attempts.c.number.desc()))
    return [AttemptRecord(**row._asdict()) for row in rows]


def remove_old_log(connection: Connection, moment: datetime, keep: timedelta) -> int:
    """Remove some messages that are done and old, or whose webhook was deleted; gives how many."""
    old = select(webhook_messages.c.id).where(
        webhook_messages.c.created_at < moment - keep, webhook_messages.c.status != _PENDING
    )
    orphaned = (
        select(webhook_messages.c.id)
        .join(webhooks, webhooks.c.id == webhook_messages.c.webhook_id)
        .where(webhooks.c.deleted_at.is_not(None))
    )
    removed = 0
    for found in (old, orphaned):
        some = found.limit(limits.WEBHOOK_LOG_STEP).with_for_update(of=webhook_messages, skip_locked=True)
        removal = delete(webhook_messages).where(webhook_messages.c.id.in_(some))
        removed += connection.execute(removal).rowcount
    has_messages = exists(select(1).where(_OF_ITS_WEBHOOK))
    connection.execute(delete(webhooks).where(webhooks.c.deleted_at.is_not(None), ~has_messages))
    return removed


def has_due_message(moment: datetime) -> ColumnElement[bool]:
    """Whether a webhook has a message to deliver now, as a condition on its row."""
    return exists(_select_due(moment).where(_OF_ITS_WEBHOOK))


def _select_due(moment: datetime) -> Select[Any]:
    return select(webhook_messages).where(
        webhook_messages.c.status == _PENDING, webhook_messages.c.next_attempt_at <= moment
    )


def _message_record(row: Row[*tuple[Any, ...]]) -> MessageRecord:
    return MessageRecord(
        **{**row._asdict(), "type": MessageType(row.type), "status": MessageStatus(row.status)}
    )
