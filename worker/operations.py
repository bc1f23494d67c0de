"""What an operator runs now and then: each function prints what it found, and gives the exit status."""

from __future__ import annotations

import sys
from pathlib import Path

from shared.clock import SystemClock
from shared.database.engine import Database
from shared.database.migrate import migrate
from shared.errors import OnsaleError
from shared.line.connections import connect
from shared.line.repair import LineRepair
from shared.settings import Settings
from worker.archive import Archivist
from worker.archive_file import ArchiveRows
from worker.reconcile import Reconciler
from worker.verify import RowsVerifier


def bring_schema_to(settings: Settings, revision: str) -> int:
    """Bring the schema to a revision, up or down."""
    try:
        migrate(settings.database_url, revision, passwords_directory=settings.passwords_directory)
    except OnsaleError as error:
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
