"""Logs as events with fields: `log_event(logger, logging.INFO, "batch applied", event_id=…, commands=…)`.

One line per event: JSON for programs, `name=value` for who reads along. No field can break a line.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum

import orjson

from shared.clock import format_time
from shared.trace import current_trace

_TEXT = "%(asctime)s %(levelname)-7s %(name)s %(message)s"


class LogFormat(StrEnum):
    """How a line looks. `auto` is text on a terminal and JSON elsewhere."""

    AUTO = "auto"
    JSON = "json"
    TEXT = "text"


class LogLevel(StrEnum):
    """What is logged: this and what is worse."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def configure_logging(form: LogFormat = LogFormat.AUTO, level: LogLevel = LogLevel.INFO) -> None:
    """Send this process's logs to standard error, uvicorn's own too."""
    as_json = form is LogFormat.JSON or (form is LogFormat.AUTO and not sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter(_TEXT))
    logging.basicConfig(level=level.value.upper(), handlers=[handler])
    server = logging.getLogger("uvicorn")
    server.handlers.clear()
    server.propagate = True


def log_event(logger: logging.Logger, level: int, action: str, **fields: object) -> None:
    """Log what happened, with its fields; those that are None are left out.

    What is logged while a request is answered gets its `request_id`, and `traceparent` if it has one.
    """
    if logger.isEnabledFor(level):
        logger.log(level, "%s", action, extra={"fields": fields})


class JsonFormatter(logging.Formatter):
    """An event as a JSON object: time, level, logger, action, its fields, the exception if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Write an event as one line."""
        document: dict[str, object] = {
            "time": format_time(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "action": record.getMessage(),
        }
        document |= _fields(record)
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(_storable(document), default=str).decode()


class TextFormatter(logging.Formatter):
    """An event as a readable line, its fields as `name=value` behind it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Write an event as one line."""
        record.message = _one_line(record.getMessage())
        rendered = "".join(f" {name}={_quoted(value)}" for name, value in _fields(record).items())
        return super().formatMessage(record) + rendered


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = getattr(record, "fields", {})
    trace = current_trace()
    if trace is not None:
        fields = {**fields, "request_id": trace.request_id, "traceparent": trace.traceparent}
    return {name: value for name, value in fields.items() if value is not None}


def _storable(document: dict[str, object]) -> dict[str, object]:
    """With texts that JSON can hold: half of a surrogate pair would be refused."""
    return {
        name: value if isinstance(value, int | float) else str(value).encode(errors="replace").decode()
        for name, value in document.items()
    }


def _quoted(value: object) -> str:
    """As it is where that is one plain word or number, else in quotes with what is special escaped."""
    text = str(value)
    return text if text and text.isprintable() and '"' not in text else repr(text)


def _one_line(text: str) -> str:
    return text if text.isprintable() else repr(text)[1:-1]
