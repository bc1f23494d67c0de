"""RQ as most would use it: one job per booking, each with a transaction of its own."""

from __future__ import annotations

import os
import uuid
from functools import lru_cache

from sqlalchemy import Engine, create_engine, text


@lru_cache(maxsize=1)
def _engine() -> Engine:
    return create_engine(os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg2://", 1))


def create_tables() -> None:
    """The tables of this program, and one event with a million tickets."""
    with _engine().begin() as connection:
        connection.execute(
            text("CREATE TABLE rq_events (id int PRIMARY KEY, available int CHECK (available >= 0))")
        )
        connection.execute(
            text("CREATE TABLE rq_bookings (id uuid PRIMARY KEY, event_id int, user_id text, n int)")
        )
        connection.execute(text("CREATE INDEX ON rq_bookings (event_id, user_id)"))
        connection.execute(text("INSERT INTO rq_events VALUES (1, 1000000)"))


def booked() -> int:
    """How many bookings there are."""
    with _engine().connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM rq_bookings")).scalar_one())


def book(user_id: str, tickets: int) -> bool:
    """Book under the lock of the event's row."""
    with _engine().begin() as connection:
        available = connection.execute(
            text("SELECT available FROM rq_events WHERE id = 1 FOR UPDATE")
        ).scalar_one()
        held = connection.execute(
            text("SELECT coalesce(sum(n), 0) FROM rq_bookings WHERE event_id = 1 AND user_id = :user_id"),
            {"user_id": user_id},
        ).scalar_one()
        if held + tickets > 2 or available < tickets:
            return False
        connection.execute(
            text("INSERT INTO rq_bookings VALUES (:id, 1, :user_id, :n)"),
            {"id": uuid.uuid4(), "user_id": user_id, "n": tickets},
        )
        connection.execute(
            text("UPDATE rq_events SET available = available - :n WHERE id = 1"), {"n": tickets}
        )
    return True
