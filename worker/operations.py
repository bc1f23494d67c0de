"""What an operator runs now and then: each function prints what it found, and gives the exit status."""

from __future__ import annotations

import logging
import sqlite3
import sys
from pathlib import Path

from shared.clock import SystemClock
from shared.database.engine import Database
from shared.errors import LineUnavailable, OnsaleError
from shared.line.connections import connect
from shared.line.repair import LineRepair
from shared.line.status import leave_verify_result
from shared.log import log_event
from shared.settings import Settings
from worker.archive import Archivist
from worker.archive_file import ArchiveRows
from worker.reconcile import Reconciler
from worker.verify import Counts, RowsVerifier, Verifier

logger = logging.getLogger("worker")


def bring_schema_to(settings: Settings, revision: str) -> int:
    """Bring the schema to a revision, up or down; gives 1 if that did not succeed."""
    # It tells of each of its plugins as it is loaded, and nobody but `migrate` needs it.
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
    from shared.database.migrate import migrate

    try:
        migrate(settings.database_url, revision, passwords_directory=settings.passwords_directory)
    except (OnsaleError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def reconcile(settings: Settings, event_id: str | None, *, mend: bool) -> int:
    """Compare Redis with PostgreSQL; gives 1 if they differ and that was not mended."""
    database, client = Database(settings, connections_max=1), connect(settings)
    reconciler = Reconciler(database, LineRepair(client), SystemClock(), settings, print, mend=mend)
    try:
        if event_id is None:
            reconciler.reconcile_all()
        else:
            reconciler.reconcile(event_id)
    except OnsaleError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        client.close()
        database.close()
    compared = reconciler.compared
    print(f"{compared.events} events compared: {compared.differing} differ, {compared.left} of them still")
    if compared.left and not mend:
        print("run `python -m worker reconcile --redis-from-postgresql` to mend what can be mended")
    return 1 if compared.left else 0


def archive(settings: Settings, event_id: str, path: Path, *, remove: bool) -> int:
    """Write an event that is over to a file and, if that is asked for, take it out of the servers."""
    database, client = Database(settings, connections_max=1), connect(settings)
    archivist = Archivist(database, LineRepair(client), SystemClock(), print)
    try:
        if remove:
            archivist.remove(event_id, path)
        else:
            archivist.export(event_id, path)
    except (OnsaleError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        client.close()
        database.close()
    return 0


def verify(settings: Settings, event_id: str | None) -> int:
    """Print each violation and a summary; gives 1 if there are violations, 2 if that can't be said.

    What was found before an interruption counts as ever.
    """
    database = Database(settings, connections_max=1)
    verifier = Verifier(database, report=print, progress=_show_progress)
    try:
        if event_id is None:
            verifier.verify_all()
        else:
            verifier.verify_event(event_id)
    except (OnsaleError, OSError, sqlite3.Error) as error:
        # The last is what a full disk is to the file of what is replayed.
        print(f"not all could be checked: {error}", file=sys.stderr)
        if not verifier.counts.violations:
            return 2
    finally:
        database.close()
    counts = verifier.counts
    if event_id is None or counts.violations:
        _leave_result(settings, counts.violations)
    print(
        f"{counts.events} events, {counts.commands} commands and {counts.bookings} bookings checked:"
        f" {counts.violations} violations"
    )
    return 1 if counts.violations else 0


def _leave_result(settings: Settings, violations: int) -> None:
    """For `/metrics`; one event that is right does not take back what was found at others."""
    try:
        leave_verify_result(connect(settings), SystemClock(), violations)
    except LineUnavailable as error:
        log_event(logger, logging.WARNING, "metrics don't show this result", reason=error)


def _show_progress(counts: Counts) -> None:
    """A line that is written over, for who watches."""
    if sys.stderr.isatty():
        line = f"{counts.events} events, {counts.commands} commands, {counts.bookings} bookings"
        print(f"\r{line}", end="", file=sys.stderr, flush=True)


def verify_archive(path: Path) -> int:
    """Check an archive against the rules; gives 1 if it is not what it should be. Needs no server."""
    verifier = RowsVerifier(print, progress=lambda counts: None)
    rows = ArchiveRows(path)
    try:
        rows.check()
        event = rows.event()
        verifier.verify_rows(event.id, rows)
    except OnsaleError as error:
        print(error, file=sys.stderr)
        return 1
    counts = verifier.counts
    print(
        f"event {event.id} {event.name!r}: {counts.commands} commands and {counts.bookings} bookings checked:"
        f" {counts.violations} violations"
    )
    return 1 if counts.violations else 0
