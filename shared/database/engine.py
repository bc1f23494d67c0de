"""The way to PostgreSQL, and the one context manager that commits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
from psycopg2.errors import LockNotAvailable
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    TimeoutError,
)

from shared.clock import SystemClock
from shared.database.deadlines import Deadlines
from shared.errors import DatabaseUnavailable, EventLocked, WriteRefused
from shared.metrics import DATABASE_ERRORS
from shared.settings import Settings

_SET_TIME_LIMITS = text(
    "SELECT set_config('lock_timeout', :lock_timeout, true),"
    " set_config('statement_timeout', :statement_timeout, true),"
    " set_config('idle_in_transaction_session_timeout', :idle_timeout, true)"
)

# SQLAlchemy wraps what a statement raises; COPY is the driver's own and raises the driver's errors.
_UNAVAILABLE = (
    OperationalError,
    InterfaceError,
    TimeoutError,
    psycopg2.OperationalError,
    psycopg2.InterfaceError,
)
_REFUSED = (IntegrityError, DataError, psycopg2.IntegrityError, psycopg2.DataError)


class Database:
    """A pool of connections. Nothing is connected before the first transaction."""

    def __init__(self, settings: Settings, *, connections_max: int) -> None:
        self._settings = settings
        self._deadlines = Deadlines(SystemClock())
        # A consumer that is frozen in the middle of a batch loses its row lock together with its claim.
        self._usual_limits = self._limits(settings.statement_timeout_ms / 1000, settings.lease_seconds)
        self.engine = create_engine(
            settings.database_url.replace("postgresql://", "postgresql+psycopg2://", 1),
            pool_size=connections_max,
            max_overflow=0,
            pool_timeout=settings.database_connect_seconds,
            connect_args={
                "connect_timeout": settings.database_connect_seconds,
                "application_name": "onsale",
            },
        )

        self._snapshots = self.engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )

    @contextmanager
    def transaction(
        self, *, snapshot: bool = False, seconds_max: float | None = None
    ) -> Iterator[Connection]:
        """One transaction: committed at the end of the block, rolled back if the block raises.

        With `snapshot` it only reads, and sees one moment however long it reads. `seconds_max` is for one
        that needs longer than the settings allow.

        Raises:
            EventLocked: another transaction holds the lock of a row for too long.
            DatabaseUnavailable: PostgreSQL can't be reached, ended the connection, or a time limit
                passed.
            WriteRefused: a constraint was violated, or a value can't be stored.
        """
        try:
            with (
                (self._snapshots if snapshot else self.engine).connect() as connection,
                self._deadlines.limit(connection, seconds_max or self._settings.transaction_seconds_max),
                connection.begin(),
            ):
                connection.execute(
                    _SET_TIME_LIMITS, self._usual_limits if seconds_max is None else self._limits(seconds_max)
                )
                yield connection
        except _UNAVAILABLE as error:
            if isinstance(error, OperationalError) and isinstance(error.orig, LockNotAvailable):
                DATABASE_ERRORS.labels("locked").inc()
                raise EventLocked(f"PostgreSQL: {_first_line(error)}") from error
            DATABASE_ERRORS.labels("unavailable").inc()
            raise DatabaseUnavailable(f"PostgreSQL: {_first_line(error)}") from error
        except _REFUSED as error:
            DATABASE_ERRORS.labels("refused").inc()
            raise WriteRefused(f"PostgreSQL: {_first_line(error)}") from error
        except DBAPIError as error:
            if error.connection_invalidated:
                DATABASE_ERRORS.labels("unavailable").inc()
                raise DatabaseUnavailable(f"PostgreSQL: {_first_line(error)}") from error
            raise

    def close(self) -> None:
        """Close every idle connection; one in use is closed when it comes back."""
        self.engine.dispose()
        self._deadlines.stop()

    def _limits(self, statement_seconds: float, idle_seconds: float | None = None) -> dict[str, str]:
        """The time limits that the server keeps."""
        idle_seconds = statement_seconds if idle_seconds is None else idle_seconds
        return {
            "lock_timeout": f"{self._settings.lock_timeout_ms}ms",
            "statement_timeout": f"{statement_seconds * 1000:.0f}ms",
            "idle_timeout": f"{idle_seconds * 1000:.0f}ms",
        }


def _first_line(error: Exception) -> str:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]
