"""The consumer's process: works until it is told to stop."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType

from opentelemetry.trace import Tracer

from shared.clock import SystemClock
from shared.collector import calm_collector
from shared.database.engine import Database
from shared.line.connections import connect
from shared.line.consumer import Consumer, Sleeper
from shared.line.presence import Presence, worker_name_of_this_host
from shared.line.status import LineStatus
from shared.log import log_event
from shared.metrics import exposition
from shared.settings import Settings
from worker.consume import Worker
from worker.endpoint import endpoint
from worker.stretch import DATABASE_CONNECTIONS_MAX

logger = logging.getLogger("worker")

THREAD_SWITCH_SECONDS = 0.0002
"""How long one thread of a worker keeps the other waiting. One reads Redis's answers while the other
computes; with Python's default of 5 ms the reader waits that long for each part of a long answer."""


def consume(settings: Settings, tracer: Tracer | None = None) -> int:
    """Work until SIGTERM or SIGINT, then finish what is in hand, give the event back and leave."""
    sys.setswitchinterval(THREAD_SWITCH_SECONDS)
    name = worker_name_of_this_host()
    clock = SystemClock()
    client = connect(settings)
    sleeper = Sleeper(
        connect(settings, blocking_seconds=settings.idle_wait_seconds),
        idle_wait_seconds=settings.idle_wait_seconds,
    )
    worker = Worker(
        Database(settings, connections_max=DATABASE_CONNECTIONS_MAX),
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
