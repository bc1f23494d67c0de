"""Where time comes from, and the one way in which it is written down."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

_TIMES_REMEMBERED = 4_096
"""Commands that came together share their times, so that most of them are not written or read anew."""


class Clock(Protocol):
    """Tells the time; passed in, so that a test can stop or move it."""

    def now(self) -> datetime:
        """The time of day, in UTC."""
        ...

    def monotonic_seconds(self) -> float:
        """Seconds since some moment; never goes back."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now(self) -> datetime:
        """The time of day, in UTC."""
        return datetime.now(UTC)

    def monotonic_seconds(self) -> float:
        """Seconds since some moment; never goes back."""
        return time.monotonic()


@lru_cache(maxsize=_TIMES_REMEMBERED)
def format_time(moment: datetime) -> str:
    """Write a time as RQ does (`2026-11-23T10:00:00.000000Z`); the dashboard reads no other form."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@lru_cache(maxsize=_TIMES_REMEMBERED)
def parse_time(text: str) -> datetime:
    """Read a time that `format_time` or RQ wrote, or any other of ISO 8601 with a time zone.

    Raises:
        ValueError: the text has another form, or no time zone.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} does not say in which time zone it is")
    return moment
