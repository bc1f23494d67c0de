"""Messages made of the ledger: each once, in order, within bounds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from shared import limits
from shared.clock import SystemClock
from shared.database import webhook_messages as message_statements
from shared.database import webhooks as statements
from shared.database.engine import Database
from shared.errors import TooManyWebhooks
from shared.records import EventRecord
from shared.webhooks.messages import MessageType
from shared.webhooks.records import MessageStatus
from tests.builders import create_event, tamper
from tests.webhooks import cancel, count_rows, current, make_all, messages_of, register, sell
from worker.webhooks.make import Maker

URL = "https://example.com/hook"


@pytest.fixture
def event(database: Database) -> EventRecord:
    return create_event(database, total_tickets=3)


def told(database: Database, event: EventRecord, *types: MessageType) -> list[tuple[int, str]]:
    """Sell three, take one back, sell it again, to a webhook for these types."""
    webhook = register(database, event, URL, types)
    first, *_ = sell(database, event, "ann", "bob", "eve", "joe")
    cancel(database, event, first)
    sell(database, event, "joe")
    make_all(database)
    return [(message.position, message.type.value) for message in messages_of(database, webhook)]


def test_what_happens_is_told_in_order(database: Database, event: EventRecord) -> None:
    assert told(database, event, *MessageType) == [
        (1, "booking.created"),
        (2, "booking.created"),
        (3, "booking.created"),
        (3, "event.sold_out"),
        (5, "booking.cancelled"),
        (6, "booking.created"),
        (6, "event.sold_out"),
    ]


def test_only_the_types_that_were_asked_for_are_told(database: Database, event: EventRecord) -> None:
    assert told(database, event, MessageType.EVENT_SOLD_OUT) == [(3, "event.sold_out"), (6, "event.sold_out")]


def test_a_webhook_is_told_what_happens_from_then_on(database: Database, event: EventRecord) -> None:
    sell(database, event, "ann", "bob")
    webhook = register(database, event, URL)
    sell(database, event, "eve")
    make_all(database)
    told = [(message.position, message.type.value) for message in messages_of(database, webhook)]
    assert told == [(3, "booking.created"), (3, "event.sold_out")]


def test_one_registered_when_all_is_sold_is_told_when_it_is_sold_out_again(
    database: Database, event: EventRecord
) -> None:
    bookings = sell(database, event, "ann", "bob", "eve")
    webhook = register(database, event, URL, [MessageType.EVENT_SOLD_OUT])
    sell(database, event, "joe")
    make_all(database)
    assert messages_of(database, webhook) == []
    cancel(database, event, bookings[0])
    sell(database, event, "joe")
    make_all(database)
    assert [message.position for message in messages_of(database, webhook)] == [6]


def test_tickets_put_on_sale_by_hand_are_counted(database: Database, event: EventRecord) -> None:
    webhook = register(database, event, URL, [MessageType.EVENT_SOLD_OUT])
    sell(database, event, "ann", "bob")
    tamper(database, "UPDATE events SET total_tickets = 4, available_tickets = 2")
    make_all(database)
    sell(database, event, "eve")
    make_all(database)
    assert messages_of(database, webhook) == []
    sell(database, event, "joe")
    make_all(database)
    assert [message.position for message in messages_of(database, webhook)] == [4]


def test_making_messages_twice_changes_nothing(database: Database, event: EventRecord) -> None:
    webhook = register(database, event, URL)
    sell(database, event, "ann", "bob")
    make_all(database)
    made = messages_of(database, webhook)
    tamper(database, "UPDATE webhooks SET cursor_position = 0, cursor_available_tickets = 3")
    make_all(database)
    assert messages_of(database, webhook) == made


def test_processes_that_make_messages_at_the_same_time_make_each_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WEBHOOK_LEDGER_STEP", 3)
    event = create_event(database, total_tickets=100)
    hooks = [register(database, event, URL) for _ in range(4)]
    sell(database, event, *(f"user{number}" for number in range(40)))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: make_all(database), range(4)))
    make_all(database)
    for webhook in hooks:
        assert [message.position for message in messages_of(database, webhook)] == list(range(1, 41))
        assert current(database, webhook).cursor_available_tickets == 60


def test_what_there_is_no_room_for_waits_in_the_ledger(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WEBHOOK_MESSAGES_PENDING_MAX", 4)
    event = create_event(database, total_tickets=10)
    webhook = register(database, event, URL)
    sell(database, event, *(f"user{number}" for number in range(10)))
    seen: set[str] = set()
    for _ in range(20):
        make_all(database)
        pending = [each for each in messages_of(database, webhook) if each.status is MessageStatus.PENDING]
        assert len(pending) <= 4
        seen.update(message.id for message in pending)
        tamper(database, "UPDATE webhook_messages SET status = 'delivered', next_attempt_at = NULL")
    assert len(seen) == 11


def test_more_that_wait_than_there_is_room_for_change_nothing(
    database: Database, event: EventRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as an organiser has asked for again."""
    webhook = register(database, event, URL)
    sell(database, event, "ann", "bob")
    make_all(database)
    monkeypatch.setattr(limits, "WEBHOOK_MESSAGES_PENDING_MAX", 1)
    sell(database, event, "eve")
    before = current(database, webhook)
    make_all(database)
    assert current(database, webhook) == before
    assert len(messages_of(database, webhook)) == 2


def test_nothing_is_made_for_a_target_that_rests(database: Database, event: EventRecord) -> None:
    webhook = register(database, event, URL)
    sell(database, event, "ann")
    tamper(database, "UPDATE webhooks SET resting_until = now() + interval '1 minute'")
    make_all(database)
    assert messages_of(database, webhook) == []
    tamper(database, "UPDATE webhooks SET resting_until = now()")
    make_all(database)
    assert len(messages_of(database, webhook)) == 1


@pytest.mark.parametrize("column", ["disabled_at", "deleted_at"])
def test_a_webhook_that_is_not_active_is_told_nothing(
    database: Database, event: EventRecord, column: str
) -> None:
    webhook = register(database, event, URL)
    tamper(database, f"UPDATE webhooks SET {column} = now()")
    sell(database, event, "ann")
    make_all(database)
    assert messages_of(database, webhook) == []


@pytest.mark.parametrize(
    "spoilt", ["outcome = 'of another version'", "payload = NULL", """payload = '{"ticket_count": "two"}'"""]
)
def test_a_ledger_that_is_not_of_the_rules_holds_up_nobody_else(
    database: Database, event: EventRecord, spoilt: str
) -> None:
    other = create_event(database, total_tickets=1)
    webhook, healthy = register(database, event, URL), register(database, other, URL)
    for each in (event, other):
        sell(database, each, "ann")
    with database.transaction() as connection:
        connection.exec_driver_sql(f"UPDATE ledger SET {spoilt} WHERE event_id = '{event.id}'")
    make_all(database)
    assert messages_of(database, webhook) == []
    assert current(database, webhook).resting_until is not None
    assert len(messages_of(database, healthy)) == 2
    with database.transaction() as connection:
        connection.exec_driver_sql(
            """UPDATE ledger SET outcome = 'booked', payload = '{"user_id": "ann", "ticket_count": 1}'"""
        )
    tamper(database, "UPDATE webhooks SET resting_until = NULL")
    make_all(database)
    assert len(messages_of(database, webhook)) == 1


def test_a_step_without_work_does_nothing(database: Database, event: EventRecord) -> None:
    webhook = register(database, event, URL)
    maker = Maker(database, SystemClock())
    assert maker.behind() == []
    assert maker.step(webhook.id) == 0


def test_an_event_has_a_bounded_number_of_webhooks(database: Database, event: EventRecord) -> None:
    def try_to_register(_: int) -> bool:
        try:
            register(database, event, URL)
        except TooManyWebhooks:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        registered = list(pool.map(try_to_register, range(limits.WEBHOOKS_PER_EVENT_MAX + 4)))
    assert registered.count(True) == limits.WEBHOOKS_PER_EVENT_MAX


def test_the_log_is_removed_when_it_is_old_and_done(database: Database, event: EventRecord) -> None:
    webhook = register(database, event, URL)
    sell(database, event, "ann", "bob", "eve")
    make_all(database)
    tamper(
        database,
        "UPDATE webhook_messages SET status = 'failed', next_attempt_at = NULL WHERE position > 1;"
        "UPDATE webhook_messages SET created_at = now() - interval '31 days' WHERE position < 3",
    )
    with database.transaction() as connection:
        removed = message_statements.remove_old_log(connection, SystemClock().now(), timedelta(days=30))
    assert removed == 1
    assert {message.position for message in messages_of(database, webhook)} == {1, 3}


def test_a_deleted_webhook_goes_with_its_log_in_steps(
    database: Database, event: EventRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WEBHOOK_LOG_STEP", 3)
    webhook = register(database, event, URL)
    kept = register(database, event, URL)
    sell(database, event, "ann", "bob", "eve")
    make_all(database)
    now = SystemClock().now()
    with database.transaction() as connection:
        assert statements.mark_webhook_deleted(connection, webhook.id, now)
        assert not statements.mark_webhook_deleted(connection, webhook.id, now)
        assert statements.find_webhook(connection, webhook.id) is None
    removed = []
    for _ in range(3):
        with database.transaction() as connection:
            removed.append(message_statements.remove_old_log(connection, now, timedelta(days=30)))
    assert removed == [3, 1, 0]
    assert count_rows(database) == (1, 4)
    assert len(messages_of(database, kept)) == 4
