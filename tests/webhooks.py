"""Builders for what is told to organisers."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Sequence

from sqlalchemy import select

from shared.clock import SystemClock
from shared.database import statements as event_statements
from shared.database import webhook_messages as message_statements
from shared.database import webhooks as statements
from shared.database.engine import Database
from shared.database.tables import webhook_messages, webhooks
from shared.domain import BookTickets, CancelBooking, Command, kind_of
from shared.identifiers import new_id
from shared.line.codec import WaitingCommand, book_payload, cancel_payload
from shared.line.consumer import NO_CLAIM
from shared.records import EventRecord
from shared.settings import Settings
from shared.webhooks.addresses import Resolve, resolve_with_system
from shared.webhooks.messages import MessageType
from shared.webhooks.records import AttemptRecord, MessageRecord, WebhookRecord, new_webhook
from shared.webhooks.secrets import new_secret
from worker.batch import apply_to_database
from worker.webhooks.deliver import Deliverer
from worker.webhooks.make import Maker
from worker.webhooks.sender import Sender, public_certificates


def sell(database: Database, event: EventRecord, *user_ids: str, ticket_count: int = 1) -> list[str]:
    """Book for these users, in this order; gives the ids of the jobs, and so of the bookings."""
    accepted_at = SystemClock().now()
    commands = [
        BookTickets(id=new_id(), user_id=user_id, ticket_count=ticket_count, accepted_at=accepted_at)
        for user_id in user_ids
    ]
    _apply(database, event, commands)
    return [command.id for command in commands]


def cancel(database: Database, event: EventRecord, *booking_ids: str) -> list[str]:
    """Cancel these bookings, in this order; gives the ids of the jobs."""
    commands = [CancelBooking(id=new_id(), booking_id=booking_id) for booking_id in booking_ids]
    _apply(database, event, commands)
    return [command.id for command in commands]


def _apply(database: Database, event: EventRecord, commands: Sequence[Command]) -> None:
    clock = SystemClock()
    with database.transaction() as connection:
        newest = event_statements.last_ledger_position(connection, event.id)
    waiting = []
    for position, command in enumerate(commands, start=newest + 1):
        if isinstance(command, BookTickets):
            payload = book_payload(command.user_id, command.ticket_count)
        else:
            assert isinstance(command, CancelBooking)
            payload = cancel_payload(command.booking_id)
        waiting.append(
            WaitingCommand(
                command=command,
                kind=kind_of(command),
                payload=payload,
                position=position,
                accepted_at=clock.now(),
            )
        )
    apply_to_database(database, clock, event.id, waiting, NO_CLAIM)


def register(
    database: Database, event: EventRecord, url: str, types: Iterable[MessageType] = MessageType
) -> WebhookRecord:
    """A webhook for what happens to the event from now on."""
    with database.transaction() as connection:
        current = event_statements.find_event(connection, event.id)
        assert current is not None
        webhook = new_webhook(
            current, url=url, types=types, secret=new_secret(), created_at=SystemClock().now()
        )
        statements.insert_webhook(connection, webhook)
    return webhook


def make_all(database: Database) -> None:
    """Make every message that there is room for."""
    maker = Maker(database, SystemClock())
    behind = maker.behind()
    while behind:
        behind = [webhook_id for webhook_id in behind if maker.step(webhook_id)]


def messages_of(database: Database, webhook: WebhookRecord) -> list[MessageRecord]:
    """All messages of a webhook, oldest first."""
    with database.transaction() as connection:
        found = message_statements.page_of_messages(
            connection, webhook.id, limit=10_000, before=None, status=None
        )
    return found[::-1]


def attempts_of(database: Database, message: MessageRecord) -> list[AttemptRecord]:
    """The log of a message, oldest first."""
    with database.transaction() as connection:
        return message_statements.attempts_of_message(connection, message.id)[::-1]


def current(database: Database, webhook: WebhookRecord) -> WebhookRecord:
    """The webhook as it is now."""
    with database.transaction() as connection:
        found = statements.find_webhook(connection, webhook.id)
    assert found is not None
    return found


def count_rows(database: Database) -> tuple[int, int]:
    """How many webhooks and messages there are, deleted ones too."""
    with database.transaction() as connection:
        return (
            len(connection.execute(select(webhooks.c.id)).all()),
            len(connection.execute(select(webhook_messages.c.id)).all()),
        )


def deliverer(
    database: Database,
    settings: Settings,
    clock: SystemClock | None = None,
    *,
    resolve: Resolve = resolve_with_system,
    certificates: ssl.SSLContext | None = None,
) -> Deliverer:
    """Delivers on this machine."""
    clock = clock or SystemClock()

    def open_sender() -> Sender:
        trusted = certificates or public_certificates()
        return Sender(clock, settings, resolve=resolve, certificates=trusted)

    return Deliverer(database, clock, settings, open_sender)
