"""A worker that works on three batches of a long line at once, and ends or loses a connection there."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.context import ForkServerContext

import pytest
import redis

from shared.database.engine import Database
from shared.domain import OutcomeCode
from shared.line.producer import Submission
from shared.settings import Settings
from tests.builders import (
    book,
    create_event,
    seed,
    submit,
    tamper,
)
from tests.faults.boundaries import FROM_MEMORY, LOOK, cut_at, no_action
from tests.faults.checks import assert_all_is_well, expire_claims
from tests.faults.roads import run_worker, run_worker_until_killed

USERS = [*range(9), *range(9), *range(6), *range(9, 21)]
"""The first six come a third time, when it is no longer known what they hold; behind them others come."""

TICKETS = 20
EXPECTED = [
    *[OutcomeCode.BOOKED] * 18,
    *[OutcomeCode.USER_LIMIT_EXCEEDED] * 6,
    *[OutcomeCode.BOOKED] * 2,
    *[OutcomeCode.NOT_ENOUGH_TICKETS] * 10,
]
STEP = 2
"""Every so many boundaries, since each takes a line of its own."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"batch_commands_max": 6, "lock_timeout_ms": 50, "redis_timeout_seconds": 5}
    )


@pytest.fixture
def renewed(
    settings: Settings, database: Database, redis_client: redis.Redis
) -> Callable[[], tuple[str, list[Submission]]]:
    """Makes a new event and its line."""

    def renew() -> tuple[str, list[Submission]]:
        redis_client.flushdb()
        tamper(database, "TRUNCATE events, bookings, ledger")
        event = create_event(database, total_tickets=TICKETS)
        seed(settings, event)
        commands = [book(event.id, f"user{number}") for number in USERS]
        submit(settings, commands)
        # So that each worker passes as many boundaries as the first, which loads the scripts.
        redis_client.script_flush()
        return event.id, commands

    return renew


def test_a_worker_that_is_killed_in_a_long_line_is_made_up_for(
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    processes: ForkServerContext,
    renewed: Callable[[], tuple[str, list[Submission]]],
) -> None:
    event_id, commands = renewed()
    names = run_worker(settings, no_action)
    assert_all_is_well(settings, database, redis_client, event_id, commands, EXPECTED)
    assert {f"after {LOOK}", f"after {FROM_MEMORY}", "after complete"} <= set(names)
    for number in range(0, len(names), STEP):
        event_id, commands = renewed()
        process = processes.Process(target=run_worker_until_killed, args=(settings, number))
        process.start()
        process.join(30)
        assert process.exitcode == -9
        expire_claims(redis_client)
        run_worker(settings, no_action)
        assert_all_is_well(settings, database, redis_client, event_id, commands, EXPECTED)


def test_a_worker_whose_connection_is_cut_in_a_long_line_goes_on(
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    renewed: Callable[[], tuple[str, list[Submission]]],
) -> None:
    renewed()
    names = run_worker(settings, no_action)
    for number in range(0, len(names), STEP):
        event_id, commands = renewed()
        run_worker(settings, cut_at(number))
        expire_claims(redis_client)
        run_worker(settings, no_action)
        assert_all_is_well(settings, database, redis_client, event_id, commands, EXPECTED)
