"""Logs as events with fields: `log_event(logger, "batch applied", event_id=…, commands=…)`."""

from __future__ import annotations

import logging
import sys

_FORMAT = "%(asctime)s %(levelname)-7s %(name)s %(message)s"


def configure_logging() -> None:
    """Send this process's logs to standard error, one readable line per event."""
    logging.basicConfig(level=logging.INFO, format=_FORMAT, stream=sys.stderr)


def log_event(logger: logging.Logger, level: int, action: str, **fields: object) -> None:
    """Log what happened, with its fields as `name=value`."""
    if logger.isEnabledFor(level):
        rendered = " ".join(f"{name}={value}" for name, value in fields.items() if value is not None)
        logger.log(level, "%s %s", action, rendered)
