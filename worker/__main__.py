"""The worker's commands.

`python -m worker` consumes, `python -m worker webhooks` tells organisers what they asked to be told,
`python -m worker migrate` brings the schema up to date, `python -m worker verify` checks the database against
the rules, `python -m worker reconcile` compares Redis with PostgreSQL, `python -m worker archive` puts an
event that is over into a file.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from opentelemetry.trace import Tracer
from pydantic import ValidationError

from shared.clock import SystemClock
from shared.collector import calm_collector
from shared.database.engine import Database
from shared.errors import LineUnavailable
from shared.identifiers import canonical_id
from shared.line.connections import connect
from shared.line.consumer import Consumer, Sleeper
from shared.line.presence import (
    Presence,
    is_worker_alive_on_this_host,
    worker_name_of_this_host,
)
from shared.line.status import LineStatus, leave_verify_result
from shared.log import configure_logging, log_event
from shared.metrics import exposition
from shared.settings import Settings, SpanSettings, explain_settings_error, load_settings
from shared.tracing import tracing
from worker.consume import Worker
from worker.endpoint import endpoint
from worker.operations import archive, bring_schema_to, reconcile, verify_archive
from worker.verify import Counts, Verifier
from worker.webhooks.process import run_webhooks

logger = logging.getLogger("worker")

THREAD_SWITCH_SECONDS = 0.0002
"""How long one thread of a worker keeps the other waiting. One reads Redis's answers while the other
computes; with Python's default of 5 ms the reader waits that long for each part of a long answer."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named command; gives the exit status."""
    parsed = _parser().parse_args(arguments)
    if parsed.command == "verify" and parsed.archive is not None:
        return verify_archive(parsed.archive)
    try:
        settings, spans = load_settings(), SpanSettings()
    except ValidationError as error:
        print(explain_settings_error(error), file=sys.stderr)
        return 2
    configure_logging(settings.log_format, settings.log_level)
    match parsed.command:
        case "migrate":
            return bring_schema_to(settings, parsed.to)
        case "verify":
            return verify(settings, parsed.event)
        case "reconcile":
            return reconcile(settings, parsed.event, mend=parsed.redis_from_postgresql)
        case "archive":
            return archive(settings, parsed.event, parsed.to, remove=parsed.remove)
        case "alive":
            return 0 if is_worker_alive_on_this_host(connect(settings)) else 1
        case "webhooks":
            tell(settings)
            return 0
        case _:
            with tracing("onsale-worker", spans) as tracer:
                return consume(settings, tracer)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("consume", help="work until SIGTERM (the default)")
    commands.add_parser("webhooks", help="make and deliver the messages of webhooks until SIGTERM")
    migrate_parser = commands.add_parser("migrate", help="bring the schema up to date")
    migrate_parser.add_argument("--to", default="head", help="or to this revision, up or down")
    commands.add_parser("alive", help="exit with 0 if a worker of this host lives, as RQ's list has it")
    verify_parser = commands.add_parser("verify", help="check the database against the rules")
    checked = verify_parser.add_mutually_exclusive_group()
    checked.add_argument("--event", type=_event_id, help="check this event only")
    checked.add_argument("--archive", type=Path, metavar="FILE", help="check this archive, without servers")
    reconcile_parser = commands.add_parser("reconcile", help="compare Redis with PostgreSQL")
    reconcile_parser.add_argument("--event", type=_event_id, help="compare this event only")
    reconcile_parser.add_argument(
        "--redis-from-postgresql", action="store_true", help="mend Redis where the two differ"
    )
    archive_parser = commands.add_parser("archive", help="put an event that is over into a file")
    archive_parser.add_argument("event", type=_event_id)
    archive_parser.add_argument("--to", type=Path, required=True, metavar="FILE")
    archive_parser.add_argument(
        "--remove", action="store_true", help="then take it out of Redis and PostgreSQL, but for a trace"
    )
    return parser


def _event_id(text: str) -> str:
    id = canonical_id(text)
    if id is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not the id of an event; it must be a UUID")
    return id


def verify(settings: Settings, event_id: str | None) -> int:
    """Print each violation and a summary; gives 1 if there are violations."""
    database = Database(settings, connections_max=1)
    verifier = Verifier(database, report=print, progress=_show_progress)
    try:
        if event_id is None:
            verifier.verify_all()
        else:
            verifier.verify_event(event_id)
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


def consume(settings: Settings, tracer: Tracer | None = None) -> int:
    """Work until SIGTERM or SIGINT, then finish the batch, give the event back and leave."""
    sys.setswitchinterval(THREAD_SWITCH_SECONDS)
    name = worker_name_of_this_host()
    clock = SystemClock()
    client = connect(settings)
    sleeper = Sleeper(
        connect(settings, blocking_seconds=settings.idle_wait_seconds),
        idle_wait_seconds=settings.idle_wait_seconds,
    )
    worker = Worker(
        Database(settings, connections_max=1),
        Consumer(client, settings, worker_name=name),
        sleeper,
        Presence(client, clock, worker_name=name, ttl_seconds=settings.worker_ttl_seconds),
        clock,
        settings,
        tracer,
    )
    calm_collector()
    on_stop_signal(worker.stop)
    with ExitStack() as stack:
        try:
            port = _open_endpoint(stack, settings, worker)
        except OSError as error:
            print(f"ONSALE_WORKER_METRICS_PORT: {settings.worker_metrics_port}: {error}", file=sys.stderr)
            return 2
        log_event(logger, logging.INFO, "worker started", worker=name, metrics_port=port)
        worker.run()
        log_event(logger, logging.INFO, "worker stopped", worker=name)
    return 0


def _open_endpoint(stack: ExitStack, settings: Settings, worker: Worker) -> int | None:
    if not settings.worker_metrics_port:
        return None
    status = LineStatus(connect(settings), SystemClock())
    return stack.enter_context(
        endpoint(
            settings.worker_metrics_port,
            metrics=lambda: exposition(status),
            is_healthy=worker.is_turning,
        )
    )


def on_stop_signal(stop: Callable[[], None]) -> None:
    """Call `stop` at SIGTERM or SIGINT."""

    def handle(_signal: int, _frame: FrameType | None) -> None:
        stop()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


def tell(settings: Settings) -> None:
    """Make and deliver messages until SIGTERM or SIGINT, then finish the attempts that have begun."""
    stopping = threading.Event()
    calm_collector()
    on_stop_signal(stopping.set)
    log_event(logger, logging.INFO, "webhooks started")
    run_webhooks(settings, SystemClock(), stopping)
    log_event(logger, logging.INFO, "webhooks stopped")


if __name__ == "__main__":
    sys.exit(main())
