"""Whoever writes to the tables, PostgreSQL keeps I1 (never oversold) and I2 (the limit per user)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from shared.database.engine import Database
from shared.errors import WriteRefused
from shared.identifiers import new_id
from shared.records import EventRecord
from tests.builders import create_event


@pytest.fixture
def event(database: Database) -> EventRecord:
    """Ten tickets, of which ann holds two and bob one; bob has also cancelled one."""
    event = create_event(database)
    for user_id, ticket_count, status in (
        ("ann", 2, "active"),
        ("bob", 1, "active"),
        ("bob", 1, "cancelled"),
    ):
        write(database, insertion(event.id, user_id, ticket_count, status))
    return event


def insertion(event_id: str, user_id: str, ticket_count: int, status: str = "active") -> str:
    return (
        f"INSERT INTO bookings VALUES ('{new_id()}', '{event_id}', '{user_id}', {ticket_count},"
        f" '{status}', now(), now())"
    )


def write(database: Database, *statements: str) -> None:
    with database.transaction() as connection:
        for statement in statements:
            connection.execute(text(statement))


def read(database: Database) -> tuple[int, dict[str, int]]:
    with database.transaction() as connection:
        available = connection.execute(text("SELECT available_tickets FROM events")).scalar_one()
        held = connection.execute(
            text("SELECT user_id, sum(ticket_count) FROM bookings WHERE status = 'active' GROUP BY user_id")
        )
        return available, {user_id: int(tickets) for user_id, tickets in held}


def test_the_database_counts_for_whoever_writes(database: Database, event: EventRecord) -> None:
    assert read(database) == (7, {"ann": 2, "bob": 1})
    write(
        database,
        insertion(event.id, "cid", 2),
        "UPDATE bookings SET status = 'cancelled' WHERE user_id = 'ann'",
    )
    assert read(database) == (7, {"bob": 1, "cid": 2})
    write(database, "DELETE FROM bookings WHERE user_id = 'bob'")
    assert read(database) == (8, {"cid": 2})


REFUSED = {
    "more tickets than are left": (
        "INSERT INTO bookings SELECT gen_random_uuid(), id, 'user' || n, 2, 'active', now(), now()"
        " FROM events, generate_series(1, 4) n"
    ),
    "a user over the limit": (
        "INSERT INTO bookings SELECT gen_random_uuid(), id, 'bob', 2, 'active', now(), now() FROM events"
    ),
    "a user over the limit in one statement": (
        "INSERT INTO bookings SELECT gen_random_uuid(), id, 'cid', 1, 'active', now(), now()"
        " FROM events, generate_series(1, 3)"
    ),
    "a cancelled booking revived over the limit": (
        "UPDATE bookings SET status = 'active', user_id = 'ann' WHERE status = 'cancelled'"
    ),
    "a booking grown over the limit": "UPDATE bookings SET ticket_count = 3 WHERE user_id = 'bob'",
    "a booking handed to a user at the limit": "UPDATE bookings SET user_id = 'ann'",
    "the count set by hand": "UPDATE events SET available_tickets = available_tickets + 1",
    "the total raised without the count": "UPDATE events SET total_tickets = 11",
    "the total lowered below what is sold": (
        "UPDATE events SET total_tickets = 2, available_tickets = available_tickets - 8"
    ),
    "the limit lowered below what is held": "UPDATE events SET max_tickets_per_user = 1",
    "an event that begins with tickets missing": (
        "INSERT INTO events SELECT gen_random_uuid(), name, total_tickets, 1, max_tickets_per_user, 0, 0,"
        " created_at, updated_at, ledger_digest, seal FROM events"
    ),
    "the bookings truncated": "TRUNCATE bookings",
    "an event deleted with its bookings": "DELETE FROM events",
}


@pytest.mark.parametrize("statement", REFUSED.values(), ids=REFUSED.keys())
def test_the_database_refuses(database: Database, event: EventRecord, statement: str) -> None:
    with pytest.raises(WriteRefused):
        write(database, statement)
    assert read(database) == (7, {"ann": 2, "bob": 1})


def test_the_total_may_be_raised_together_with_the_count(database: Database, event: EventRecord) -> None:
    write(database, "UPDATE events SET total_tickets = 15, available_tickets = available_tickets + 5")
    assert read(database)[0] == 12


def test_writers_at_the_same_time_do_not_get_past_the_limit(database: Database, event: EventRecord) -> None:
    def insert(_: int) -> bool:
        try:
            write(database, insertion(event.id, "cid", 1))
        except WriteRefused:
            return False
        return True

    with ThreadPoolExecutor(5) as pool:
        assert sum(pool.map(insert, range(20))) == 2
    assert read(database) == (5, {"ann": 2, "bob": 1, "cid": 2})
