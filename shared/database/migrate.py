"""Bring the schema up to date, once, however many ask for it at the same time, while others sell."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from psycopg2.errors import DeadlockDetected, LockNotAvailable
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import IntegrityError, OperationalError

from shared.database.online import LOCK_TIMEOUT_MS
from shared.database.roles import grant_rights
from shared.errors import DatabaseUnavailable, MigrationRefused

MIGRATION_LOCK = 0x4F4E53414C45
"""Key of the advisory lock under which migrations run: the bytes of `ONSALE`."""

TRIES_MAX = 60
"""How often a step asks for a lock that others hold."""

PAUSE_SECONDS = 1.0
"""How long those who waited behind a step may go on before it asks again."""

_POLL_SECONDS = 0.1


def migrate(database_url: str, revision: str = "head", *, passwords_directory: Path | None = None) -> None:
    """Bring a database to a revision, up or down. Waits for another process that does the same.

    Each revision is a transaction, or several: see `shared.database.online`. At the
    newest revision the roles get their rights, and the passwords that the directory has for them.

    Raises:
        MigrationRefused: others have held a lock that it needs through all tries, or the revision can't be
            left with the rows that are there. The schema is that of some revision.
        DatabaseUnavailable: PostgreSQL can't be reached, or has been lost. What was done stays done.
        OSError: a password can't be read.
    """
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg2://", 1))
    try:
        with engine.connect() as connection, _only_one(connection):
            _try_until_reached(connection, revision)
            if revision == "head":
                grant_rights(connection, passwords_directory)
                connection.commit()
    except OperationalError as error:
        raise DatabaseUnavailable(f"PostgreSQL: {error.orig}") from error
    finally:
        engine.dispose()


def _try_until_reached(connection: Connection, revision: str) -> None:
    for _ in range(TRIES_MAX):
        if _try(connection, revision):
            return
        threading.Event().wait(PAUSE_SECONDS)
    raise MigrationRefused(
        f"in {TRIES_MAX} tries others have not let go of a table; look for a long transaction in"
        " pg_stat_activity, end it, and run this again"
    )


def _try(connection: Connection, revision: str) -> bool:
    """Whether the revision is reached; not if a lock was not to be had."""
    connection.execute(text(f"SET lock_timeout = {LOCK_TIMEOUT_MS}"))
    connection.commit()
    configuration = _configuration(connection)
    current = MigrationContext.configure(connection).get_current_revision()
    connection.commit()
    down = revision != "head" and current is not None and revision < current
    try:
        (command.downgrade if down else command.upgrade)(configuration, revision)
    except OperationalError as error:
        connection.rollback()
        if not isinstance(error.orig, LockNotAvailable | DeadlockDetected):
            raise
        return False
    except IntegrityError as error:
        connection.rollback()
        raise MigrationRefused(f"the rows that are there forbid it: {error.orig}") from error
    return True


@contextmanager
def _only_one(connection: Connection) -> Iterator[None]:
    """Hold the lock of migrations. It belongs to the session: a revision may need several transactions.

    It is asked for again and again, not waited for: an index that is made while others write waits
    for every statement that began before it, and so it would for one that waits for this lock.
    """
    asked = {"key": MIGRATION_LOCK}
    while not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), asked).scalar_one():
        connection.commit()
        threading.Event().wait(_POLL_SECONDS)
    connection.commit()
    try:
        yield
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), asked)
        connection.commit()


def _configuration(connection: Connection) -> Config:
    configuration = Config()
    configuration.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    configuration.attributes["connection"] = connection
    return configuration
