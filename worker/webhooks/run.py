"""The process of webhooks: tells organisers until it is told to stop."""

from __future__ import annotations

import logging
import threading

from shared.clock import SystemClock
from shared.collector import calm_collector
from shared.log import log_event
from shared.settings import Settings
from worker.run import on_stop_signal
from worker.webhooks.process import run_webhooks

logger = logging.getLogger("worker")


def tell(settings: Settings) -> None:
    """Make and deliver messages until SIGTERM or SIGINT, then finish the attempts that have begun."""
    stopping = threading.Event()
    calm_collector()
    on_stop_signal(stopping.set)
    log_event(logger, logging.INFO, "webhooks started")
    run_webhooks(settings, SystemClock(), stopping)
    log_event(logger, logging.INFO, "webhooks stopped")
