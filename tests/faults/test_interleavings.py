"""Two consumers of one event, each frozen at any of its boundaries while the other goes on."""

from __future__ import annotations

import threading

import pytest
import redis

from shared.database.engine import Database
from shared.settings import Settings
from tests.faults.boundaries import Action, Boundaries, Gate, no_action
from tests.faults.checks import assert_all_is_well, expire_claims, renew
from tests.faults.roads import watched_worker

SHARES = 4
"""In so many tests are the interleavings, so that processes can share them: together they take long."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"lock_timeout_ms": 10})


class Consumer(threading.Thread):
    """A worker that works until nothing is left for it, and may be stopped at a gate."""

    def __init__(self, settings: Settings, name: str, gate: Gate | None) -> None:
        super().__init__(name=name)
        self.names: list[str] = []
        self.finished = threading.Event()
        action = no_action if gate is None else gate.action
        self._worker, self._database, self._clients = watched_worker(
            settings, Boundaries(self._requests_after_claiming(action)), name=name, wait_when_idle=False
        )

    def _requests_after_claiming(self, action: Action) -> Action:
        """To stop after an answer is to stop before the next request, so only requests count."""

        def count(_number: int, name: str) -> bool:
            if name.startswith("before ") and (self.names or name == "before claim"):
                self.names.append(name)
                return action(len(self.names) - 1, name)
            return False

        return count

    def run(self) -> None:
        self._worker.run()
        self.finished.set()
        for client in self._clients:
            client.close()
        self._database.close()


def road(settings: Settings, database: Database, client: redis.Redis) -> list[str]:
    renew(settings, database, client, flush_scripts=False)
    alone = Consumer(settings, "alone", None)
    alone.start()
    alone.join()
    return alone.names


@pytest.mark.parametrize("share", range(SHARES))
def test_any_interleaving_of_two_consumers_keeps_the_books(
    settings: Settings, database: Database, redis_client: redis.Redis, share: int
) -> None:
    road(settings, database, redis_client)
    names = road(settings, database, redis_client)
    assert {
        "before claim",
        "before EXECUTE onsale_insert_bookings",
        "before complete",
    } <= set(names)
    for first_stop in range(share, len(names), SHARES):
        for second_stop in range(len(names)):
            event_id, commands = renew(settings, database, redis_client, flush_scripts=False)
            first_gate, second_gate = Gate(first_stop), Gate(second_stop)
            first = Consumer(settings, "first", first_gate)
            first.start()
            first_gate.wait_until_reached(first.finished)
            expire_claims(redis_client)
            second = Consumer(settings, "second", second_gate)
            second.start()
            second_gate.wait_until_reached(second.finished)
            first_gate.open()
            first.join(30)
            second_gate.open()
            second.join(30)
            expire_claims(redis_client)
            last = Consumer(settings, "last", None)
            last.start()
            last.join(30)
            assert_all_is_well(settings, database, redis_client, event_id, commands)
