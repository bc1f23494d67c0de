"""The SQL of webhooks, as functions named for what they are for. Call them inside a transaction."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    func,
    insert,
    or_,
    select,
    text,
    update,
)

from shared import limits
from shared.database.statements import ledger_record
from shared.database.tables import events, ledger, webhooks
from shared.database.webhook_messages import has_due_message
from shared.errors import TooManyWebhooks
from shared.records import LedgerRecord
from shared.webhooks.messages import MessageType
from shared.webhooks.records import MessageStatus, WebhookRecord

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


def ledger_between(connection: Connection, event_id: str, after: int, until: int) -> list[LedgerRecord]:
    """The rows of an event's ledger after one position and up to another, in order."""
    statement = (
        select(ledger)
        .where(ledger.c.event_id == event_id, ledger.c.position > after, ledger.c.position <= until)
        .order_by(ledger.c.position)
    )
    return [ledger_record(row) for row in connection.execute(statement)]


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
        .where(_ACTIVE, _is_free(moment), has_due_message(moment))
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


def _is_free(moment: datetime) -> ColumnElement[bool]:
    """No delivery has the webhook, and it is not left alone."""
    unclaimed = or_(webhooks.c.claimed_until.is_(None), webhooks.c.claimed_until <= moment)
    return and_(unclaimed, _is_rested(moment))


def _is_rested(moment: datetime) -> ColumnElement[bool]:
    return or_(webhooks.c.resting_until.is_(None), webhooks.c.resting_until <= moment)


def _webhook_record(row: Row[*tuple[Any, ...]]) -> WebhookRecord:
    return _webhook_from(row._asdict())


def _webhook_from(columns: dict[str, Any]) -> WebhookRecord:
    return WebhookRecord(**{**columns, "types": tuple(MessageType(type) for type in columns["types"])})
