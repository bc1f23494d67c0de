"""The SQL of webhooks, as functions named for what they are for. Call them inside a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert as insert_or_ignore

from shared import limits
from shared.database.statements import ledger_record
from shared.database.tables import events, ledger, webhook_attempts, webhook_messages, webhooks
from shared.errors import TooManyWebhooks
from shared.records import LedgerRecord
from shared.webhooks.messages import LedgerMessage, MessageType, message_id
from shared.webhooks.records import AttemptRecord, MessageRecord, MessageStatus, WebhookRecord

_PENDING = MessageStatus.PENDING.value
_KEPT = webhooks.c.deleted_at.is_(None)
_ACTIVE = and_(_KEPT, webhooks.c.disabled_at.is_(None))


def insert_webhook(connection: Connection, webhook: WebhookRecord) -> None:
    """Add a webhook.

    Raises:
        TooManyWebhooks: its event has as many as it may have.
    """
    connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended('webhooks of ' || :event_id, 0))"),
        {"event_id": webhook.event_id},
    )
    if len(webhooks_of_event(connection, webhook.event_id)) >= limits.WEBHOOKS_PER_EVENT_MAX:
        raise TooManyWebhooks
    connection.execute(
        insert(webhooks).values(
            id=webhook.id,
            event_id=webhook.event_id,
            url=webhook.url,
            types=[type.value for type in webhook.types],
            secret=webhook.secret,
            cursor_position=webhook.cursor_position,
            cursor_available_tickets=webhook.cursor_available_tickets,
            created_at=webhook.created_at,
        )
    )


def webhooks_of_event(connection: Connection, event_id: str) -> list[WebhookRecord]:
    """The webhooks of an event, oldest first."""
    statement = select(webhooks).where(webhooks.c.event_id == event_id, _KEPT)
    rows = connection.execute(statement.order_by(webhooks.c.created_at, webhooks.c.id))
    return [_webhook_record(row) for row in rows]


def find_webhook(connection: Connection, webhook_id: str, *, lock: bool = False) -> WebhookRecord | None:
    """A webhook that was not deleted; with `lock` its row is held until the transaction ends."""
    statement = select(webhooks).where(webhooks.c.id == webhook_id, _KEPT)
    row = connection.execute(statement.with_for_update() if lock else statement).one_or_none()
    return None if row is None else _webhook_record(row)


def replace_secret(connection: Connection, webhook_id: str, secret: str, old_until: datetime) -> None:
    """Give a webhook a new secret; messages are signed with the old one too, for a while."""
    connection.execute(
        update(webhooks)
        .where(webhooks.c.id == webhook_id)
        .values(old_secret=webhooks.c.secret, old_secret_until=old_until, secret=secret)
    )


def update_webhook(connection: Connection, webhook: WebhookRecord) -> None:
    """Write what changes about a webhook by being delivered, disabled and enabled. Lock it before."""
    connection.execute(
        update(webhooks)
        .where(webhooks.c.id == webhook.id)
        .values(
            claimed_until=webhook.claimed_until,
            resting_until=webhook.resting_until,
            failures=webhook.failures,
            failing_since=webhook.failing_since,
            slow=webhook.slow,
            disabled_at=webhook.disabled_at,
            disabled_reason=webhook.disabled_reason,
        )
    )


def fail_pending_messages(connection: Connection, webhook_id: str) -> None:
    """Give up on the messages of a webhook that wait."""
    connection.execute(
        update(webhook_messages)
        .where(webhook_messages.c.webhook_id == webhook_id, webhook_messages.c.status == _PENDING)
        .values(status=MessageStatus.FAILED.value, next_attempt_at=None)
    )


def mark_webhook_deleted(connection: Connection, webhook_id: str, moment: datetime) -> bool:
    """Forget a webhook; its log is removed later, in steps. Gives whether it was there."""
    statement = update(webhooks).where(webhooks.c.id == webhook_id, _KEPT).values(deleted_at=moment)
    return connection.execute(statement).rowcount == 1


def webhooks_behind(connection: Connection, moment: datetime) -> list[str]:
    """Webhooks whose event's ledger has rows that no messages were made of; not those that are left alone.

    In no order, so that many without room for more don't hide the others.
    """
    statement = (
        select(webhooks.c.id)
        .join(events, events.c.id == webhooks.c.event_id)
        .where(_ACTIVE, _is_rested(moment), events.c.applied_position > webhooks.c.cursor_position)
        .order_by(func.random())
        .limit(limits.WEBHOOKS_LOOKED_UP_MAX)
    )
    return list(connection.execute(statement).scalars())


def lock_webhook_behind(connection: Connection, webhook_id: str) -> tuple[WebhookRecord, int, int] | None:
    """Hold a webhook to make messages for it; with its event's last applied position and tickets left.

    None if another process does, or there is nothing to do any more.
    """
    statement = (
        select(webhooks, events.c.applied_position, events.c.available_tickets)
        .join(events, events.c.id == webhooks.c.event_id)
        .where(webhooks.c.id == webhook_id, _ACTIVE, events.c.applied_position > webhooks.c.cursor_position)
        .with_for_update(of=webhooks, skip_locked=True)
    )
    row = connection.execute(statement).one_or_none()
    if row is None:
        return None
    *columns, applied_position, available_tickets = row
    record = _webhook_from(dict(zip(webhooks.c.keys(), columns, strict=True)))
    return record, applied_position, available_tickets


def count_pending(connection: Connection, webhook_id: str) -> int:
    """How many messages of a webhook wait to be delivered."""
    statement = select(func.count()).where(
        webhook_messages.c.webhook_id == webhook_id, webhook_messages.c.status == _PENDING
    )
    return connection.execute(statement).scalar_one()


def ledger_between(connection: Connection, event_id: str, after: int, until: int) -> list[LedgerRecord]:
    """The rows of an event's ledger after one position and up to another, in order."""
    statement = (
        select(ledger)
        .where(ledger.c.event_id == event_id, ledger.c.position > after, ledger.c.position <= until)
        .order_by(ledger.c.position)
    )
    return [ledger_record(row) for row in connection.execute(statement)]


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


def move_cursor(connection: Connection, webhook_id: str, position: int, available_tickets: int) -> None:
    """Remember up to where messages have been made."""
    connection.execute(
        update(webhooks)
        .where(webhooks.c.id == webhook_id)
        .values(cursor_position=position, cursor_available_tickets=available_tickets)
    )


def webhooks_due(connection: Connection, moment: datetime) -> list[tuple[str, bool]]:
    """Webhooks with a message to deliver now that nobody delivers to, in no order; and if they are slow."""
    statement = (
        select(webhooks.c.id, webhooks.c.slow)
        .where(_ACTIVE, _is_free(moment), exists(_due_messages(moment).where(_is_its_message())))
        .order_by(func.random())
        .limit(limits.WEBHOOKS_LOOKED_UP_MAX)
    )
    return [(str(id), slow) for id, slow in connection.execute(statement)]


def claim_webhook(
    connection: Connection, webhook_id: str, moment: datetime, until: datetime
) -> WebhookRecord | None:
    """Have a webhook to oneself for a while; None if another delivery has it, or it may not be tried."""
    statement = (
        update(webhooks)
        .where(webhooks.c.id == webhook_id, _ACTIVE, _is_free(moment))
        .values(claimed_until=until)
        .returning(webhooks)
    )
    row = connection.execute(statement).one_or_none()
    return None if row is None else _webhook_record(row)


def due_messages(connection: Connection, webhook_id: str, moment: datetime) -> list[MessageRecord]:
    """The next messages of a webhook to deliver now, in the order of their time and their making."""
    statement = (
        _due_messages(moment)
        .where(webhook_messages.c.webhook_id == webhook_id)
        .order_by(webhook_messages.c.next_attempt_at, webhook_messages.c.position, webhook_messages.c.type)
        .limit(limits.WEBHOOK_DUE_BATCH_MAX)
    )
    return [_message_record(row) for row in connection.execute(statement)]


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
    has_messages = exists(select(1).where(_is_its_message()))
    connection.execute(delete(webhooks).where(webhooks.c.deleted_at.is_not(None), ~has_messages))
    return removed


def _is_free(moment: datetime) -> ColumnElement[bool]:
    """No delivery has the webhook, and it is not left alone."""
    unclaimed = or_(webhooks.c.claimed_until.is_(None), webhooks.c.claimed_until <= moment)
    return and_(unclaimed, _is_rested(moment))


def _is_rested(moment: datetime) -> ColumnElement[bool]:
    return or_(webhooks.c.resting_until.is_(None), webhooks.c.resting_until <= moment)


def _is_its_message() -> ColumnElement[bool]:
    return webhook_messages.c.webhook_id == webhooks.c.id


def _due_messages(moment: datetime) -> Select[Any]:
    return select(webhook_messages).where(
        webhook_messages.c.status == _PENDING, webhook_messages.c.next_attempt_at <= moment
    )


def _webhook_record(row: Row[*tuple[Any, ...]]) -> WebhookRecord:
    return _webhook_from(row._asdict())


def _webhook_from(columns: dict[str, Any]) -> WebhookRecord:
    return WebhookRecord(**{**columns, "types": tuple(MessageType(type) for type in columns["types"])})


def _message_record(row: Row[*tuple[Any, ...]]) -> MessageRecord:
    return MessageRecord(
        **{**row._asdict(), "type": MessageType(row.type), "status": MessageStatus(row.status)}
    )
