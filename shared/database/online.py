"""Steps of migrations that hold up nobody who sells.

A step either needs a lock that keeps sellers out, and then holds it for moments and gives up early if it
does not get it (`LOCK_TIMEOUT_MS`; `migrate` tries the revision again), or it may take long, and then
takes only locks that sellers don't feel. A revision that is tried again finds some of its steps done, so
every step can be repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from alembic import op
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

LOCK_TIMEOUT_MS = 500
"""Those who come after a waiting step wait behind it: so it waits for less than they do, and for less than
PostgreSQL takes to call two who wait for each other a deadlock."""

_IS_INVALID = text(
    "SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass(:name) AND NOT indisvalid)"
)


def create_index(name: str, table: str, columns: Sequence[str], *, where: str | None = None) -> None:
    """Make an index while others write. One that an earlier try left unfinished is made anew."""
    condition = "" if where is None else f" WHERE {where}"
    with _without_hurry():
        if op.get_bind().execute(_IS_INVALID, {"name": name}).scalar_one():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.execute(
            f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {table} ({', '.join(columns)}){condition}"
        )


def drop_index(name: str) -> None:
    """Remove an index while others write."""
    with _without_hurry():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")


def replace_check(table: str, name: str, condition: str) -> None:
    """Put another condition in the place of a check constraint.

    The rows are checked while others write; only to swap the names is the table locked, for a moment.

    Raises:
        sqlalchemy.exc.IntegrityError: a row is against the condition; the constraint is as it was.
    """
    unchecked = f"{name}_new"
    op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {unchecked}")
    op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {unchecked} CHECK ({condition}) NOT VALID")
    with _without_hurry():
        try:
            op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {unchecked}")
        except IntegrityError:
            op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {unchecked}")
            raise
    op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}")
    op.execute(f"ALTER TABLE {table} RENAME CONSTRAINT {unchecked} TO {name}")


@contextmanager
def _without_hurry() -> Iterator[None]:
    """Outside transactions, and without a limit on waiting: nobody waits behind a step of this kind."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        try:
            yield
        finally:
            op.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MS}")
