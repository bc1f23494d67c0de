"""From ledger to messages, in steps: each moves the cursor of one webhook in the same transaction."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta

from sqlalchemy import Connection

from shared import limits
from shared.clock import Clock
from shared.database import webhook_messages as message_statements
from shared.database import webhooks as statements
from shared.database.engine import Database
from shared.log import log_event
from shared.webhooks.messages import messages_of
from shared.webhooks.records import WebhookRecord

logger = logging.getLogger(__name__)


class Maker:
    """Makes the messages of all webhooks. Any number may run: a webhook is worked on by one at a time."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def behind(self) -> list[str]:
        """The webhooks for which there may be messages to make.

        Raises:
            DatabaseUnavailable: PostgreSQL does not answer.
        """
        with self._database.transaction() as connection:
            return statements.webhooks_behind(connection, self._clock.now())

    def step(self, webhook_id: str) -> int:
        """Make some messages of a webhook; gives by how many rows of the ledger it has come further.

        None are made while too many wait already, or another process makes them.

        Raises:
            DatabaseUnavailable: PostgreSQL does not answer; all was made or nothing.
        """
        with self._database.transaction() as connection:
            locked = statements.lock_webhook_behind(connection, webhook_id)
            if locked is None:
                return 0
            webhook, applied_position, available_tickets = locked
            until = min(applied_position, webhook.cursor_position + _rows_with_room(connection, webhook_id))
            if until <= webhook.cursor_position:
                return 0
            try:
                left = self._make(connection, webhook, until)
            except (ValueError, KeyError, TypeError) as error:
                self._put_off(connection, webhook, error)
                return 0
            # The event's own count is right also where somebody has put more tickets on sale by hand.
            left = available_tickets if until == applied_position else left
            statements.move_cursor(connection, webhook_id, until, left)
        return until - webhook.cursor_position

    def _make(self, connection: Connection, webhook: WebhookRecord, until: int) -> int:
        """Make the messages up to a position; gives the tickets that are left there."""
        entries = statements.ledger_between(connection, webhook.event_id, webhook.cursor_position, until)
        left, messages = messages_of(entries, webhook.cursor_available_tickets)
        wanted = [message for message in messages if message.type in webhook.types]
        message_statements.insert_messages(connection, webhook.id, wanted, self._clock.now())
        return left

    def _put_off(self, connection: Connection, webhook: WebhookRecord, error: Exception) -> None:
        """Leave a webhook alone whose ledger was not written by the rules, or by newer ones; others go on."""
        rest = timedelta(seconds=limits.WEBHOOK_UNREADABLE_SECONDS)
        statements.update_webhook(connection, replace(webhook, resting_until=self._clock.now() + rest))
        log_event(
            logger,
            logging.ERROR,
            "ledger not readable for a webhook",
            webhook_id=webhook.id,
            event_id=webhook.event_id,
            after_position=webhook.cursor_position,
            reason=repr(error),
        )


def _rows_with_room(connection: Connection, webhook_id: str) -> int:
    """Of how many rows of the ledger there is room for the messages, in one step."""
    room = limits.WEBHOOK_MESSAGES_PENDING_MAX - message_statements.count_pending(connection, webhook_id)
    return min(limits.WEBHOOK_LEDGER_STEP, room // limits.WEBHOOK_MESSAGES_PER_ROW_MAX)
