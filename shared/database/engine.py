"""The way to PostgreSQL, and the context managers that commit: here and nowhere else."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg2
from psycopg2.errors import (
    DuplicatePreparedStatement,
    FeatureNotSupported,
    InvalidSqlStatementName,
    LockNotAvailable,
    ReadOnlySqlTransaction,
)
from sqlalchemy import Connection, Engine, ExceptionContext, create_engine, event, text
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
from shared.database.prepared import Prepared, Statement, prepare, prepare_no_more, run
from shared.errors import DatabaseUnavailable, EventLocked, WriteRefused
from shared.log import log_event
from shared.metrics import DATABASE_ERRORS
from shared.settings import Settings

logger = logging.getLogger(__name__)

_TIME_LIMITS = (
    "SELECT set_config('lock_timeout', {lock_timeout}, true),"
    " set_config('statement_timeout', {statement_timeout}, true),"
    " set_config('idle_in_transaction_session_timeout', {idle_timeout}, true)"
)
# A plan that is kept must be right when tables that are empty now are large, and for all parameters.
_PLANS_BY_INDEX = (
    ", set_config('enable_seqscan', 'off', true), set_config('plan_cache_mode', 'force_generic_plan', true)"
)
_LIMITS = ("lock_timeout", "statement_timeout", "idle_timeout")
_SET_TIME_LIMITS = text(_TIME_LIMITS.format(**{name: f":{name}" for name in _LIMITS}))
_BEGINNING = Prepared(
    "onsale_begin",
    _TIME_LIMITS.format(**{name: f"%({name})s" for name in _LIMITS}) + _PLANS_BY_INDEX,
    dict.fromkeys(_LIMITS, "text"),
)

# SQLAlchemy wraps what a statement raises; what is run by the driver alone raises the driver's errors.
_UNAVAILABLE = (
    OperationalError,
    InterfaceError,
    TimeoutError,
    psycopg2.OperationalError,
    psycopg2.InterfaceError,
    DuplicatePreparedStatement,
    # A migration has changed what a kept plan gives; on another connection it is made anew.
    FeatureNotSupported,
    # It has become a standby, or was set to read only, as some do when their disk is nearly full.
    ReadOnlySqlTransaction,
)
_REFUSED = (IntegrityError, DataError, psycopg2.IntegrityError, psycopg2.DataError)


# A pooler between us and the server has given our connection another's place at the server.
_NOT_PREPARED = (InvalidSqlStatementName, DuplicatePreparedStatement)

_NOTHING = Statement([])
_COMMIT = "COMMIT"
_ROLLBACK = Statement(["ROLLBACK"])


@dataclass(slots=True)
class OpenTransaction:
    """A transaction that has begun: its connection, and the rows that its first statement gave.

    `ending` is sent together with the COMMIT; where it fails, nothing is committed.
    """

    connection: Connection
    rows: Sequence[tuple[Any, ...]]
    ending: Statement = _NOTHING


class Database:
    """Pools of connections, one for each way to begin. Nothing is connected before the first transaction."""

    def __init__(self, settings: Settings, *, connections_max: int) -> None:
        self._settings = settings
        self._deadlines = Deadlines(SystemClock())
        # A consumer that is frozen in the middle of a batch loses its row lock together with its claim.
        self._usual_limits = self._limits(settings.statement_timeout_ms / 1000, settings.lease_seconds)
        self.engine = _engine(settings, connections_max)
        # With connections of its own: the driver begins nothing on them, which would be a round trip, and to
        # turn that on and off on shared ones would be another.
        self.engine_by_hand = _engine(settings, connections_max, isolation_level="AUTOCOMMIT")
        self._idle_by_hand: deque[Connection] = deque()
        self._may_prepare = True
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
            DatabaseUnavailable: PostgreSQL can't be reached, ended the connection, takes no writes, or a
                time limit passed.
            WriteRefused: a constraint was violated, or a value can't be stored.
        """
        engine = self._snapshots if snapshot else self.engine
        with self._connection(engine, seconds_max) as connection, connection.begin():
            connection.execute(
                _SET_TIME_LIMITS, self._usual_limits if seconds_max is None else self._limits(seconds_max)
            )
            yield connection

    @contextmanager
    def transaction_from(
        self, first: Statement, *, prepares: Sequence[Prepared]
    ) -> Iterator[OpenTransaction]:
        """The same in two round trips: one begins it with its first statement, one ends it with its last.

        Its connection is kept for the next, with what it `prepares`, always the same.
        Behind a pooler that keeps nothing for a connection everything is sent as text instead, from the first
        failure on.

        Raises: as `transaction`.
        """
        opening = Statement(["BEGIN", _BEGINNING, *first.parts], {**self._usual_limits, **first.parameters})
        with _our_errors(), self._connection_by_hand([_BEGINNING, *prepares]) as connection:
            transaction = OpenTransaction(connection, run(connection, opening))
            yield transaction
            ending = transaction.ending
            run(connection, Statement([*ending.parts, _COMMIT], ending.parameters))

    def transact(self, whole: Statement, *, prepares: Sequence[Prepared]) -> None:
        """A transaction in one round trip; on the connection of `transaction_from`, and as that does it.

        Raises: as `transaction`. A `WriteRefused` is not counted as an error: who asks so reckons with it.
        """
        parts = ["BEGIN", _BEGINNING, *whole.parts, _COMMIT]
        statement = Statement(parts, {**self._usual_limits, **whole.parameters})
        with (
            _our_errors(counts_refusals=False),
            self._connection_by_hand([_BEGINNING, *prepares]) as connection,
        ):
            run(connection, statement)

    def look(
        self, statement: Statement, *, prepares: Sequence[Prepared], seconds_max: float
    ) -> list[tuple[Any, ...]]:
        """The rows of the last part, from what is committed, in one round trip; on such a connection too.

        Raises: as `transaction`. `DatabaseUnavailable` also if it takes longer than so many seconds.
        """
        # The server makes a transaction of what comes in one request, so that the limits end with it.
        parts = [_BEGINNING, *statement.parts]
        looking = Statement(parts, {**self._usual_limits, **statement.parameters})
        with _our_errors(), self._connection_by_hand([_BEGINNING, *prepares], seconds_max) as connection:
            return run(connection, looking)

    @contextmanager
    def _connection_by_hand(
        self, prepares: Sequence[Prepared], seconds_max: float | None = None
    ) -> Iterator[Connection]:
        """A connection for one transaction that the block begins and ends, kept for the next one."""
        try:
            connection = self._idle_by_hand.pop()
        except IndexError:
            connection = self.engine_by_hand.connect()
        try:
            with self._deadlines.limit(connection, seconds_max or self._settings.transaction_seconds_max):
                try:
                    if self._may_prepare:
                        prepare(connection, prepares)
                    else:
                        prepare_no_more(connection)
                    yield connection
                except BaseException:
                    _roll_back(connection)
                    raise
        except BaseException as error:
            if isinstance(error, psycopg2.Error) and not isinstance(error, (*_REFUSED, LockNotAvailable)):
                # What the server keeps for it may be what it stumbles over.
                connection.invalidate()
            if isinstance(error, _NOT_PREPARED):
                self._prepare_no_more(error)
            connection.close()
            raise
        if connection.in_transaction():
            # SQLAlchemy's own count, begun by statements that went through it; the server has nothing open.
            connection.rollback()
        self._idle_by_hand.append(connection)

    def _prepare_no_more(self, error: psycopg2.Error) -> None:
        self._may_prepare = False
        log_event(
            logger,
            logging.WARNING,
            "statements are not prepared any more: a pooler gives each transaction another connection",
            reason=_first_line(error),
        )

    @contextmanager
    def _connection(self, engine: Engine, seconds_max: float | None) -> Iterator[Connection]:
        """A connection for one transaction, whose errors become ours."""
        with (
            _our_errors(),
            engine.connect() as connection,
            self._deadlines.limit(connection, seconds_max or self._settings.transaction_seconds_max),
        ):
            yield connection

    def close_idle(self) -> None:
        """Close every idle connection; one in use is closed when it comes back."""
        while self._idle_by_hand:
            self._idle_by_hand.pop().close()
        self.engine.dispose()
        self.engine_by_hand.dispose()

    def close(self) -> None:
        """Close every connection; there will be no more transactions."""
        self.close_idle()
        self._deadlines.stop()

    def _limits(self, statement_seconds: float, idle_seconds: float | None = None) -> dict[str, str]:
        """The time limits that the server keeps."""
        idle_seconds = statement_seconds if idle_seconds is None else idle_seconds
        return {
            "lock_timeout": f"{self._settings.lock_timeout_ms}ms",
            "statement_timeout": f"{statement_seconds * 1000:.0f}ms",
            "idle_timeout": f"{idle_seconds * 1000:.0f}ms",
        }


@contextmanager
def _our_errors(*, counts_refusals: bool = True) -> Iterator[None]:
    """Turn what SQLAlchemy and the driver raise into errors of ours."""
    try:
        yield
    except _UNAVAILABLE as error:
        if isinstance(_cause(error), LockNotAvailable):
            DATABASE_ERRORS.labels("locked").inc()
            raise EventLocked(f"PostgreSQL: {_first_line(error)}") from error
        DATABASE_ERRORS.labels("unavailable").inc()
        raise DatabaseUnavailable(f"PostgreSQL: {_first_line(error)}") from error
    except _REFUSED as error:
        if counts_refusals:
            DATABASE_ERRORS.labels("refused").inc()
        raise WriteRefused(f"PostgreSQL: {_first_line(error)}") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            DATABASE_ERRORS.labels("unavailable").inc()
            raise DatabaseUnavailable(f"PostgreSQL: {_first_line(error)}") from error
        raise


def _engine(settings: Settings, connections_max: int, **options: Any) -> Engine:
    engine = create_engine(
        settings.database_url.replace("postgresql://", "postgresql+psycopg2://", 1),
        pool_size=connections_max,
        max_overflow=0,
        pool_timeout=settings.database_connect_seconds,
        connect_args={
            "connect_timeout": settings.database_connect_seconds,
            "application_name": "onsale",
        },
        **options,
    )
    event.listen(engine, "handle_error", _leave_if_read_only)
    return engine


def _leave_if_read_only(context: ExceptionContext) -> None:
    """A connection that takes no writes would stay so; a new one may lead to the server that does."""
    if isinstance(context.original_exception, ReadOnlySqlTransaction):
        context.is_disconnect = True


def _roll_back(connection: Connection) -> None:
    """End a transaction that was begun by hand; a connection on which that fails is not used again."""
    if connection.invalidated:
        return
    try:
        run(connection, _ROLLBACK)
    except BaseException as error:
        connection.invalidate()
        if not isinstance(error, psycopg2.Error):
            raise


def _cause(error: Exception) -> BaseException:
    """The driver's error, whether or not SQLAlchemy has wrapped it."""
    return error.orig if isinstance(error, DBAPIError) and error.orig else error


def _first_line(error: Exception) -> str:
    cause = _cause(error)
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]
