"""The worker's commands.

`python -m worker` consumes, `python -m worker webhooks` tells organisers what they asked to be told,
`python -m worker migrate` brings the schema up to date, `python -m worker verify` checks the database against
the rules, `python -m worker reconcile` compares Redis with PostgreSQL, `python -m worker archive` puts an
event that is over into a file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from shared.errors import LineUnavailable
from shared.identifiers import canonical_id
from shared.log import configure_logging
from shared.settings import Settings, SpanSettings, explain_settings_error, load_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named command; gives the exit status."""
    parsed = _parser().parse_args(arguments)
    if parsed.command == "verify" and parsed.archive is not None:
        from worker.operations import verify_archive

        return verify_archive(parsed.archive)
    try:
        settings, spans = load_settings(), SpanSettings()
    except ValidationError as error:
        print(explain_settings_error(error), file=sys.stderr)
        return 2
    configure_logging(settings.log_format, settings.log_level)
    return _run(parsed, settings, spans)


def _run(parsed: argparse.Namespace, settings: Settings, spans: SpanSettings) -> int:
    """Each command loads only what it needs: containers ask `alive` every few seconds."""
    match parsed.command:
        case "alive":
            from shared.line.connections import connect
            from shared.line.presence import is_worker_alive_on_this_host

            try:
                return 0 if is_worker_alive_on_this_host(connect(settings)) else 1
            except LineUnavailable as error:
                print(error, file=sys.stderr)
                return 1
        case "migrate" | "verify" | "reconcile" | "archive":
            return _operate(parsed, settings)
        case "webhooks":
            from worker.webhooks.run import tell

            tell(settings)
            return 0
        case _:
            from shared.tracing import tracing
            from worker.run import consume

            with tracing("onsale-worker", spans) as tracer:
                return consume(settings, tracer)


def _operate(parsed: argparse.Namespace, settings: Settings) -> int:
    from worker import operations

    match parsed.command:
        case "migrate":
            return operations.bring_schema_to(settings, parsed.to)
        case "verify":
            return operations.verify(settings, parsed.event)
        case "reconcile":
            return operations.reconcile(settings, parsed.event, mend=parsed.redis_from_postgresql)
        case _:
            return operations.archive(settings, parsed.event, parsed.to, remove=parsed.remove)


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


if __name__ == "__main__":
    sys.exit(main())
