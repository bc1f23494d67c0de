"""A line of the log: one per event, readable by programs or by people, whatever its fields contain."""

from __future__ import annotations

import contextvars
import io
import json
import logging

import pytest

from shared.log import JsonFormatter, TextFormatter, log_event
from shared.trace import begin_trace

EVIL = 'x\n{"level":"error"}\r\x1b[31m\u2028 "quoted" \ud800'


def logged(formatter: logging.Formatter, action: str, **fields: object) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.Logger("test")
    logger.addHandler(handler)
    log_event(logger, logging.WARNING, action, **fields)
    return stream.getvalue()


def test_json_is_an_object_per_line() -> None:
    line = logged(JsonFormatter(), "event taken over", event_id="e", token=3, taken_from=None)
    document = json.loads(line)
    assert document.pop("time").endswith("Z")
    assert document == {
        "level": "warning",
        "logger": "test",
        "action": "event taken over",
        "event_id": "e",
        "token": 3,
    }


def test_text_is_a_readable_line() -> None:
    line = logged(TextFormatter("%(levelname)s %(message)s"), "event blocked", reason="12 waits", n=1)
    assert line == "WARNING event blocked reason=12 waits n=1\n"


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter("%(message)s")])
def test_no_field_breaks_a_line(formatter: logging.Formatter) -> None:
    line = logged(formatter, f"action {EVIL}", plain="x\ny\x1b", reason=EVIL, error=ValueError(EVIL))
    assert line.endswith("\n")
    assert not {"\n", "\r", "\x1b"} & set(line[:-1])
    line.encode()


def test_json_keeps_what_a_field_says() -> None:
    assert json.loads(logged(JsonFormatter(), "a", reason="a\nb"))["reason"] == "a\nb"


def test_an_exception_stands_in_its_line() -> None:
    record = logging.LogRecord("test", logging.ERROR, "", 0, "unexpected error", (), None)
    try:
        raise ValueError("no")
    except ValueError as error:
        record.exc_info = (type(error), error, error.__traceback__)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["exception"].endswith("ValueError: no")


def test_what_is_logged_while_a_request_is_answered_has_its_id() -> None:
    def run() -> str:
        begin_trace("mine", None)
        return logged(JsonFormatter(), "temporarily unavailable", path="/events")

    assert json.loads(contextvars.Context().run(run))["request_id"] == "mine"
