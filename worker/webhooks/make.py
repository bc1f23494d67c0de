"""From ledger to messages, in steps: each moves the cursor of one webhook in the same transaction."""

from __future__ import annotations

from shared import limits
from shared.clock import Clock
from shared.database import webhook_messages as message_statements
from shared.database import webhooks as statements
from shared.database.engine import Database
from shared.webhooks.messages import messages_of


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
            pending = message_statements.count_pending(connection, webhook_id)
            room = limits.WEBHOOK_MESSAGES_PENDING_MAX - pending
            rows = min(limits.WEBHOOK_LEDGER_STEP, room // limits.WEBHOOK_MESSAGES_PER_ROW_MAX)
            if rows <= 0:
                return 0
            cursor = webhook.cursor_position
            until = min(applied_position, cursor + rows)
            entries = statements.ledger_between(connection, webhook.event_id, cursor, until)
            left, messages = messages_of(entries, webhook.cursor_available_tickets)
            wanted = [message for message in messages if message.type in webhook.types]
            message_statements.insert_messages(connection, webhook_id, wanted, self._clock.now())
            # The event's own count is right also where somebody has put more tickets on sale by hand.
            left = available_tickets if until == applied_position else left
            statements.move_cursor(connection, webhook_id, until, left)
        return until - cursor
