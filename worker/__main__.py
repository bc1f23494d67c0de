"""`python -m worker` consumes; `python -m worker migrate` brings the schema up to date."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from types import FrameType

from pydantic import ValidationError

from shared.clock import SystemClock
from shared.database.engine import Database
from shared.database.migrate import migrate
from shared.identifiers import new_id
from shared.line.connections import connect
from shared.line.consumer import Consumer, Sleeper
from shared.line.presence import Presence
from shared.log import configure_logging, log_event
from shared.settings import Settings, explain_settings_error, load_settings
from worker.consume import Worker

logger = logging.getLogger("worker")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named command; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    parser.add_argument("command", nargs="?", choices=("consume", "migrate"), default="consume")
    command = parser.parse_args(arguments).command
    configure_logging()
    try:
        settings = load_settings()
    except ValidationError as error:
        print(explain_settings_error(error), file=sys.stderr)
        return 2
    if command == "migrate":
        migrate(settings.database_url)
    else:
        consume(settings)
    return 0


def consume(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT, then finish the batch, give the event back and leave."""
    name = _worker_name()
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
    )

    def stop(_signal: int, _frame: FrameType | None) -> None:
        worker.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    log_event(logger, logging.INFO, "worker started", worker=name)
    worker.run()
    log_event(logger, logging.INFO, "worker stopped", worker=name)


def _worker_name() -> str:
    """Never used twice: RQ refuses a name whose last owner was killed, until its entry expires."""
    return f"{socket.gethostname()}-{os.getpid()}-{new_id()[-6:]}"


if __name__ == "__main__":
    sys.exit(main())
