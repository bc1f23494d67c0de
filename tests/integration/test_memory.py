"""A batch that is decided from memory: one round trip, and never other than if it had been read first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from msgspec.structs import replace
from sqlalchemy import text

from shared import limits
from shared.clock import SystemClock
from shared.database import batches, statements
from shared.database.engine import Database
from shared.database.prepared import Statement
from shared.errors import DatabaseUnavailable, EventLocked, StaleClaim
from shared.line.codec import WaitingCommand
from shared.metrics import BATCHES_REFUSED_FROM_MEMORY, DATABASE_ERRORS
from shared.records import EventRecord
from shared.settings import Settings
from tests.builders import assert_books_balance, booking, create_event, tamper, wait_until
from tests.faults.boundaries import FROM_MEMORY, Boundaries, no_action, watch_database
from worker.applied_batch import AppliedBatch
from worker.batch import apply_to_database
from worker.memory import Memory, Remembered

CLOCK = SystemClock()
TOKEN = 7


class Worker:
    """A worker's way to the database, with its memory, and the names of the requests that it made."""

    def __init__(self, settings: Settings, event: EventRecord) -> None:
        self.database = Database(settings, connections_max=1)
        self.settings = settings
        self.memory = Memory()
        self.event_id = event.id
        self._boundaries = Boundaries(no_action)
        watch_database(self.database, self._boundaries)
        self._boundaries.watching = True

    def apply(self, waiting: Sequence[WaitingCommand], token: int = TOKEN) -> AppliedBatch:
        self._boundaries.names.clear()
        return apply_to_database(self.database, CLOCK, self.event_id, waiting, token, self.memory)

    def outcomes(self, waiting: Sequence[WaitingCommand], token: int = TOKEN) -> list[str]:
        return [result["outcome"] for _, result in self.apply(waiting, token).results]

    @property
    def requests(self) -> list[str]:
        """What the last batch asked of PostgreSQL, one after the other."""
        return [name.removeprefix("before ") for name in self._boundaries.names if name.startswith("before ")]


@pytest.fixture
def event(database: Database) -> EventRecord:
    return create_event(database)


@pytest.fixture
def worker(settings: Settings, event: EventRecord) -> Iterator[Worker]:
    """One that has booked a ticket for ann, as the first command."""
    worker = Worker(settings, event)
    worker.apply([booking(1, "ann")])
    yield worker
    worker.database.close()


@pytest.mark.parametrize("token", [TOKEN, TOKEN + 1])
def test_a_small_batch_after_another_is_one_round_trip(
    worker: Worker, database: Database, token: int
) -> None:
    assert worker.outcomes([booking(2, "bob", 2), booking(3, "ann")], token) == ["booked", "booked"]
    assert worker.requests == [FROM_MEMORY]
    assert worker.outcomes([booking(4, "cid")], token) == ["booked"]
    assert worker.requests == [FROM_MEMORY]
    assert_books_balance(database, worker.event_id)


def test_who_is_refused_is_read_first(
    settings: Settings, worker: Worker, database: Database, event: EventRecord
) -> None:
    """The limit is asked before the tickets, and where nobody is booked PostgreSQL looks at no limit."""
    forgetful = Worker(settings, event)
    others = [booking(position, f"user{position}") for position in range(2, 10)]
    forgetful.apply(others)
    assert forgetful.outcomes([booking(10, "bob"), booking(11, "ann"), booking(12, "ann")]) == [
        "booked",
        "not-enough-tickets",
        "not-enough-tickets",
    ]
    tamper(database, f"UPDATE events SET max_tickets_per_user = 1 WHERE id = '{event.id}'")
    forgetful.apply([booking(13, "cid")])
    assert forgetful.outcomes([booking(14, "ann")]) == ["user-limit-exceeded"]
    assert FROM_MEMORY not in forgetful.requests
    forgetful.database.close()


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ("sales_closed = true", "sales-closed"),
        ("sales_open_at = now() + interval '1 day'", "sales-not-open"),
        ("max_tickets_per_user = 1", "user-limit-exceeded"),
        ("available_tickets = 0", "not-enough-tickets"),
        ("archived_at = now()", "event-not-found"),
        ("name = 'Another'", "booked"),
        ("organiser_id = 'another'", "booked"),
    ],
)
def test_an_event_that_was_changed_by_hand_is_read_first(
    worker: Worker, database: Database, change: str, outcome: str
) -> None:
    tamper(database, f"UPDATE events SET {change} WHERE id = '{worker.event_id}'")
    batch = worker.apply([booking(2, "bob", 2)])
    assert [result["outcome"] for _, result in batch.results] == [outcome]
    assert worker.requests[0] == FROM_MEMORY
    assert len(worker.requests) > 1
    if "name" in change:
        assert batch.view is not None
        assert batch.view["name"] == "Another"


def test_an_event_that_is_gone_is_not_booked_from_memory(worker: Worker, database: Database) -> None:
    tamper(database, f"DELETE FROM events WHERE id = '{worker.event_id}'")
    assert worker.outcomes([booking(2, "bob")]) == ["event-not-found"]


def test_the_limit_holds_for_users_that_are_not_remembered(
    settings: Settings, worker: Worker, database: Database, event: EventRecord
) -> None:
    """And PostgreSQL's refusal of what was decided from memory is no error, but it is counted."""
    forgetful = Worker(settings, event)
    forgetful.apply([booking(2, "bob")])
    errors = DATABASE_ERRORS.labels("refused")._value.get()
    refused = BATCHES_REFUSED_FROM_MEMORY._value.get()
    assert forgetful.outcomes([booking(3, "ann", 2), booking(4, "cid")]) == ["user-limit-exceeded", "booked"]
    assert forgetful.requests[0] == FROM_MEMORY
    assert DATABASE_ERRORS.labels("refused")._value.get() == errors
    assert BATCHES_REFUSED_FROM_MEMORY._value.get() == refused + 1
    assert_books_balance(database, event.id)
    forgetful.database.close()


def test_nobody_is_refused_for_what_memory_says_that_they_hold(worker: Worker, database: Database) -> None:
    """Their booking was taken back by hand, and its ticket sold by hand, so that the counts are as before."""
    tamper(database, f"UPDATE bookings SET user_id = 'eve' WHERE event_id = '{worker.event_id}'")
    assert worker.outcomes([booking(2, "ann", 2)]) == ["booked"]
    assert FROM_MEMORY not in worker.requests


@pytest.mark.parametrize(
    "waiting",
    [
        [replace(booking(2, "bob"), unchecked=True)],
        [booking(None, "bob")],
        [booking(position, f"user{position}") for position in range(2, limits.COMMANDS_FROM_MEMORY_MAX + 3)],
    ],
    ids=["may repeat another", "has no position", "is large"],
)
def test_what_needs_reading_is_read(worker: Worker, waiting: list[WaitingCommand]) -> None:
    worker.apply(waiting)
    assert FROM_MEMORY not in worker.requests


@pytest.mark.parametrize(("more", "is_remembered"), [(0, True), (1, False)])
def test_a_large_batch_is_not_remembered(worker: Worker, more: int, is_remembered: bool) -> None:
    """To keep its users in mind costs more than the reading of the next small one."""
    last = 1 + limits.COMMANDS_FROM_MEMORY_MAX + more
    worker.apply([booking(position, f"user{position}") for position in range(2, last + 1)])
    assert (worker.memory.take(worker.event_id) is not None) is is_remembered


def test_a_batch_that_comes_again_gives_its_recorded_outcomes(worker: Worker, database: Database) -> None:
    waiting = [booking(2, "bob"), booking(3, "cid")]
    once = worker.apply(waiting)
    again = worker.apply(waiting)
    assert again.results == once.results
    assert again.entries == []
    assert_books_balance(database, worker.event_id)


def test_a_command_that_got_a_second_position_is_not_applied_twice(
    worker: Worker, database: Database
) -> None:
    first = booking(2, "bob")
    worker.apply([first])
    again = replace(first, position=3)
    assert worker.outcomes([again]) == ["booked"]
    assert_books_balance(database, worker.event_id)


def test_another_consumer_between_two_claims_is_reckoned_with(
    settings: Settings, worker: Worker, database: Database, event: EventRecord
) -> None:
    """By its token where this claim is newer than its, by PostgreSQL where it is older."""
    other = Worker(settings, event)
    other.apply([booking(2, "bob")], TOKEN + 1)
    assert worker.outcomes([booking(3, "cid")], TOKEN + 2) == ["booked"]
    assert FROM_MEMORY not in worker.requests
    other.apply([booking(4, "dan")], TOKEN + 3)
    with pytest.raises(StaleClaim):
        worker.apply([booking(4, "eve")], TOKEN + 2)
    assert worker.requests[0] == FROM_MEMORY
    assert_books_balance(database, event.id)
    other.database.close()


def test_a_change_that_was_waited_for_is_seen(worker: Worker, database: Database) -> None:
    with ThreadPoolExecutor(1) as pool, database.transaction() as connection:
        connection.execute(text("UPDATE events SET sales_closed = true"))
        applied = pool.submit(worker.outcomes, [booking(2, "bob")])
        waits = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        with database.engine.connect() as looking:
            wait_until(lambda: looking.execute(waits).scalar_one() == 1)
        connection.commit()
        assert applied.result(30) == ["sales-closed"]
    assert worker.requests[0] == FROM_MEMORY


def test_a_row_that_others_hold_is_waited_for_no_longer_than_it_may(
    settings: Settings, database: Database, event: EventRecord
) -> None:
    impatient = Worker(settings.model_copy(update={"lock_timeout_ms": 50}), event)
    impatient.apply([booking(1, "ann")])
    with database.transaction() as connection:
        statements.lock_event(connection, event.id)
        with pytest.raises(EventLocked):
            impatient.apply([booking(2, "bob")])
    assert impatient.requests[0] == FROM_MEMORY
    assert impatient.outcomes([booking(2, "bob")]) == ["booked"]
    assert_books_balance(database, event.id)
    impatient.database.close()


def test_behind_a_pooler_too(worker: Worker, database: Database) -> None:
    with closing(Database(worker.settings, connections_max=1)) as pooled:
        with pooled.transaction_from(Statement(["DEALLOCATE ALL"]), prepares=batches.PREPARED):
            pass
        boundaries = Boundaries(no_action)
        watch_database(pooled, boundaries)
        with pytest.raises(DatabaseUnavailable):
            apply_to_database(pooled, CLOCK, worker.event_id, [booking(2, "bob")], TOKEN, worker.memory)
        apply_to_database(pooled, CLOCK, worker.event_id, [booking(2, "bob")], TOKEN, worker.memory)
        boundaries.watching = True
        apply_to_database(pooled, CLOCK, worker.event_id, [booking(3, "cid")], TOKEN, worker.memory)
    assert boundaries.names == [f"before {FROM_MEMORY}", f"after {FROM_MEMORY}"]
    assert_books_balance(database, worker.event_id)


def test_after_a_failure_the_event_is_read(worker: Worker, database: Database) -> None:
    tamper(database, f"UPDATE events SET fencing_token = 100 WHERE id = '{worker.event_id}'")
    with pytest.raises(StaleClaim):
        worker.apply([booking(2, "bob")])
    assert worker.memory.take(worker.event_id) is None


def test_the_memory_is_bounded(event: EventRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EVENTS_REMEMBERED_MAX", 2)
    monkeypatch.setattr(limits, "USERS_REMEMBERED_MAX", 3)
    memory = Memory()
    first, second, third = (replace(event, id=id) for id in "abc")
    for each in (first, second, third):
        memory.keep(each, {}, None)
    assert [memory.take(id) is not None for id in "abc"] == [False, True, True]
    memory.keep(first, {"ann": 1, "bob": 1}, None)
    memory.keep(second, {"ann": 1, "bob": 1}, None)
    assert memory.take("a") is None
    kept = memory.take("b")
    assert kept == Remembered(second, {"ann": 1, "bob": 1})
    memory.keep(second, {"ann": 2, "cid": 1}, kept)
    kept = memory.take("b")
    assert kept == Remembered(second, {"ann": 2, "bob": 1, "cid": 1})
    memory.keep(second, {"dan": 1}, kept)
    assert memory.take("b") == Remembered(second, {})
