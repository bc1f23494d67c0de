"""Clocks that a test moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from shared.clock import SystemClock


class StoppedClock:
    """A clock that a test moves; it begins at the start of a span."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 11, 23, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def monotonic_seconds(self) -> float:
        return self.moment.timestamp()


class MovableClock(SystemClock):
    """The machine's clock, put forward by a test."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return super().now() + self.ahead

    def monotonic_seconds(self) -> float:
        return super().monotonic_seconds() + self.ahead.total_seconds()

    def advance(self, **by: float) -> None:
        self.ahead += timedelta(**by)
