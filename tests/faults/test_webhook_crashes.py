"""A webhooks process that is killed at any of its I/O boundaries: everything is told, with the same ids."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext

import pytest
import redis

from shared.database.engine import Database
from shared.settings import Settings
from shared.webhooks.records import MessageStatus, WebhookRecord
from tests.builders import create_event, tamper
from tests.faults.boundaries import no_action
from tests.faults.webhook_roads import run_webhooks_once, run_webhooks_until_killed
from tests.receivers import Receiver, running_receiver
from tests.webhooks import messages_of, register, sell

_TURNS_MAX = 4


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhooks_allow_private": True, "redis_timeout_seconds": 5})


@pytest.fixture(scope="session")
def webhook_processes() -> ForkServerContext:
    """Processes that begin in a few milliseconds, forked from one that has everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.roads", "tests.faults.webhook_roads"])
    return context


def renew(database: Database, redis_client: redis.Redis, receiver: Receiver) -> WebhookRecord:
    """An event that one booking sells out, which is to be told."""
    redis_client.flushdb()
    tamper(database, "TRUNCATE events, bookings, ledger, webhooks, webhook_messages, webhook_attempts")
    receiver.received.clear()
    event = create_event(database, total_tickets=1)
    webhook = register(database, event, receiver.url)
    sell(database, event, "ann")
    return webhook


def assert_all_is_told(
    settings: Settings, database: Database, webhook: WebhookRecord, receiver: Receiver
) -> None:
    for _ in range(_TURNS_MAX):
        run_webhooks_once(settings, no_action)
        messages = messages_of(database, webhook)
        if messages and all(message.status is MessageStatus.DELIVERED for message in messages):
            break
    assert [message.type.value for message in messages] == ["booking.created", "event.sold_out"]
    assert {message.status for message in messages} == {MessageStatus.DELIVERED}
    ids = [received.id for received in receiver.received]
    assert list(dict.fromkeys(ids)) == [message.id for message in messages]
    assert len(ids) <= 3
    for received in receiver.received:
        received.verified(webhook.secret)


def changes_something(name: str, name_before: str) -> bool:
    """Whether others see a difference here: between two such boundaries it is the same where it ends.

    A transaction of Redis gives many answers; only the first is a step.
    """
    return name.split()[1] in ("COMMIT", "BLMOVE", "MULTI", "POST") and name != name_before


def test_a_webhooks_process_that_is_killed_at_any_boundary_is_made_up_for(
    settings: Settings, database: Database, redis_client: redis.Redis, webhook_processes: ForkServerContext
) -> None:
    with running_receiver() as receiver:
        webhook = renew(database, redis_client, receiver)
        names = run_webhooks_once(settings, no_action)
        assert_all_is_told(settings, database, webhook, receiver)
        assert set(names) >= {
            "before SELECT from webhooks",
            "after INSERT INTO",
            "after COMMIT",
            "before BLMOVE",
            "before POST",
            "after POST",
        }
        for number, name in enumerate(names):
            if not changes_something(name, names[number - 1]):
                continue
            webhook = renew(database, redis_client, receiver)
            process = webhook_processes.Process(target=run_webhooks_until_killed, args=(settings, number))
            process.start()
            process.join(30)
            assert process.exitcode == -9, name
            # What a claim waits for is time alone.
            tamper(database, "UPDATE webhooks SET claimed_until = NULL")
            assert_all_is_told(settings, database, webhook, receiver)
