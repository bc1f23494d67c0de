"""Migrations up and down on data, while others sell."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from local.servers import PostgresServer
from shared.database import migrate as migrations
from shared.database.engine import Database
from shared.database.migrate import migrate
from shared.errors import MigrationRefused
from shared.identifiers import new_id
from shared.settings import Settings
from tests import earlier_versions
from tests.builders import in_new_database, violations, wait_until

VERSIONS = Path(migrations.__file__).parent / "migrations" / "versions"
REVISIONS = sorted(path.name[:4] for path in VERSIONS.glob("*.py"))
FIRST, ONLINE_FROM = "0001", "0002"
SELLERS = 3
_TRIES_TO_CHANGE_EVENTS = (
    "SELECT count(*) FROM pg_locks WHERE relation = 'events'::regclass AND mode = 'AccessExclusiveLock'"
)


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return in_new_database(postgres, f"online_{new_id()[-12:]}")


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg2://"))
    yield engine
    engine.dispose()


@pytest.fixture
def quick_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.database.migrate.PAUSE_SECONDS", 0.05)


def verified(url: str) -> list[str]:
    database = Database(Settings(database_url=url, redis_url="redis://localhost"), connections_max=1)
    try:
        return violations(database)
    finally:
        database.close()


def revision(engine: Engine) -> str:
    return str(ask(engine, "SELECT version_num FROM alembic_version"))


def ask(engine: Engine, question: str) -> object:
    with engine.begin() as connection:
        return connection.execute(text(question)).scalar_one()


def new_event(engine: Engine, *, with_seal: bool = True, total_tickets: int = 100_000) -> str:
    with engine.begin() as connection:
        return earlier_versions.insert_event(connection, total_tickets=total_tickets, with_seal=with_seal)


def sell(engine: Engine, event_id: str, user_id: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '20s'"))
        waiting = [earlier_versions.booking(user_id)]
        earlier_versions.apply(connection, event_id, waiting, with_seal=True)


def rows_of_every_kind(engine: Engine) -> None:
    """Bookings, refusals, cancellations and a failed command, by a worker of the first version."""
    event_id = new_event(engine, with_seal=False, total_tickets=4)
    first = earlier_versions.booking("ann", 2)
    for waiting in (
        [first, earlier_versions.booking("bob", 1), earlier_versions.booking("ann", 1)],
        [earlier_versions.booking("cid", 2), earlier_versions.unreadable()],
        [earlier_versions.cancellation(first.command.id)],
        [earlier_versions.cancellation(first.command.id)],
        [earlier_versions.cancellation(event_id), earlier_versions.booking("dan", 2)],
    ):
        with engine.begin() as connection:
            earlier_versions.apply(connection, event_id, waiting, with_seal=False)
    new_event(engine, with_seal=False)


def contents(engine: Engine) -> list[object]:
    """All that the first version knows, as text."""
    questions = (
        "SELECT id, name, total_tickets, available_tickets FROM events ORDER BY id",
        "SELECT * FROM bookings ORDER BY id",
        "SELECT event_id, position, job_id, kind, payload, outcome FROM ledger ORDER BY event_id, position",
    )
    with engine.begin() as connection:
        return [row for question in questions for row in connection.execute(text(question))]


def test_rows_of_every_kind_survive_every_revision_up_and_down_and_up(url: str, engine: Engine) -> None:
    migrate(url, FIRST)
    rows_of_every_kind(engine)
    before = contents(engine)
    migrate(url)
    assert verified(url) == []
    for each in (*reversed(REVISIONS[:-1]), *REVISIONS[1:]):
        migrate(url, each)
        assert revision(engine) == each
        assert contents(engine) == before
    assert verified(url) == []


def test_a_way_down_that_the_rows_forbid_is_refused_and_changes_nothing(url: str, engine: Engine) -> None:
    migrate(url, "0003")
    event_id = new_event(engine)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO ledger (job_id, event_id, position, kind, outcome, accepted_at, applied_at)"
                " VALUES (gen_random_uuid(), :id, 1, 'change', 'changed', now(), now())"
            ),
            {"id": event_id},
        )
    definitions = "SELECT string_agg(pg_get_constraintdef(oid), ',' ORDER BY conname) FROM pg_constraint"
    before = ask(engine, definitions)
    with pytest.raises(MigrationRefused, match="ledger_kind_check"):
        migrate(url, "0002")
    assert revision(engine) == "0003"
    assert ask(engine, definitions) == before


def test_sellers_go_on_while_the_schema_changes_and_nothing_of_theirs_is_lost(
    url: str, engine: Engine, quick_pauses: None
) -> None:
    migrate(url, ONLINE_FROM)
    event_ids = [new_event(engine) for _ in range(SELLERS)]
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(
            text(
                "INSERT INTO bookings SELECT gen_random_uuid(), gen_random_uuid(), 'user' || n, 1, 'active',"
                " now(), now() FROM generate_series(1, 30000) n"
            )
        )
    stopping = threading.Event()

    def sell_until_stopped(event_id: str) -> int:
        sold = 0
        while not stopping.is_set():
            sell(engine, event_id, f"user{sold}")
            sold += 1
        return sold

    with ThreadPoolExecutor(SELLERS) as pool:
        sellers = [pool.submit(sell_until_stopped, event_id) for event_id in event_ids]
        try:
            wait_until(lambda: ask(engine, "SELECT min(applied_position) FROM events") != 0)
            migrate(url)
            assert not any(seller.done() for seller in sellers)
        finally:
            stopping.set()
        sold = [seller.result() for seller in sellers]
    for event_id, count in zip(event_ids, sold, strict=True):
        assert ask(engine, f"SELECT applied_position FROM events WHERE id = '{event_id}'") == count
        assert ask(engine, f"SELECT count(*) FROM bookings WHERE event_id = '{event_id}'") == count
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("DELETE FROM bookings WHERE event_id NOT IN (SELECT id FROM events)"))
    assert verified(url) == []


@contextmanager
def migrating(url: str) -> Iterator[Callable[[], None]]:
    """A migration to the newest revision in a thread; gives how to wait for its end."""
    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(migrate, url)
        yield ending.result


def hold(engine: Engine, statement: str) -> Connection:
    connection = engine.connect()
    connection.execute(text(statement))
    return connection


def index_waiting_for(long_one: Connection, *, asking: str = "count(*)") -> str:
    """The question for an index that is being made and waits for this transaction's end.

    Any wait would not do: an index waits for a moment for each who asks, and so for this question too.
    """
    long_pid = long_one.execute(text("SELECT pg_backend_pid()")).scalar_one()
    return (
        f"SELECT {asking} FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%'"
        f" AND {long_pid} = ANY (pg_blocking_pids(pid))"
    )


def test_an_index_that_waits_for_a_long_transaction_keeps_no_seller_waiting(
    url: str, engine: Engine, quick_pauses: None
) -> None:
    migrate(url, ONLINE_FROM)
    event_id = new_event(engine)
    with hold(engine, "LOCK TABLE bookings IN ROW EXCLUSIVE MODE") as long_one, migrating(url) as ended:
        try:
            wait_until(lambda: ask(engine, index_waiting_for(long_one)))
            sell(engine, event_id, "ann")
            assert ask(engine, index_waiting_for(long_one))
        finally:
            long_one.rollback()
        ended()
    assert verified(url) == []


def test_a_step_that_needs_a_table_for_itself_gives_way_until_it_gets_it(
    url: str, engine: Engine, quick_pauses: None
) -> None:
    migrate(url, ONLINE_FROM)
    event_id = new_event(engine)
    with hold(engine, "SELECT FROM events") as long_one, migrating(url) as ended:
        try:
            for user in range(3):
                wait_until(lambda: ask(engine, _TRIES_TO_CHANGE_EVENTS))
                sell(engine, event_id, f"user{user}")
            assert revision(engine) == ONLINE_FROM
        finally:
            long_one.rollback()
        ended()
    assert verified(url) == []


def test_a_table_that_is_never_let_go_of_is_given_up_with_the_schema_as_it_was(
    url: str, engine: Engine, quick_pauses: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.database.migrate.TRIES_MAX", 2)
    migrate(url, ONLINE_FROM)
    with hold(engine, "SELECT FROM events"), pytest.raises(MigrationRefused, match="pg_stat_activity"):
        migrate(url)
    assert revision(engine) == ONLINE_FROM
    migrate(url)


def test_an_index_that_an_earlier_try_left_unfinished_is_made_anew(
    url: str, engine: Engine, quick_pauses: None
) -> None:
    migrate(url, ONLINE_FROM)
    unfinished = "CREATE INDEX CONCURRENTLY bookings_active_idx ON bookings (event_id)"
    with hold(engine, "LOCK TABLE bookings IN ROW EXCLUSIVE MODE") as long_one, ThreadPoolExecutor(1) as pool:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as other:
            making = pool.submit(other.execute, text(unfinished))
            cancelling = index_waiting_for(long_one, asking="count(pg_cancel_backend(pid))")
            wait_until(lambda: ask(engine, cancelling))
            with pytest.raises(DBAPIError):
                making.result()
        long_one.rollback()
    assert ask(engine, "SELECT count(*) FROM pg_index WHERE NOT indisvalid") == 1
    migrate(url)
    assert ask(engine, "SELECT count(*) FROM pg_index WHERE NOT indisvalid") == 0
    assert "user_id" in str(ask(engine, "SELECT pg_get_indexdef('bookings_active_idx'::regclass)"))
