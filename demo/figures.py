"""The figures that are shown while it runs, read from what the buyers have written down."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.clients import percentile
from demo.journal import Journal
from shared.domain import OutcomeCode

DRAIN_SECONDS = 1.0
"""Over how long the drain rate is taken."""

SAMPLES_MAX = 10_000
PERCENTILES = (0.5, 0.9, 0.99)
GOOD = (OutcomeCode.BOOKED.value, OutcomeCode.CANCELLED.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One moment of a stampede at a place of this name. Times are seconds."""

    place: str
    seconds: float
    buyers: int
    tickets: int
    tickets_left: int | None
    commands: int
    placed: int
    """How many were told their place in line."""
    answered: int
    in_line: int
    in_line_at_most: int
    drained_per_second: float
    drained_at_best: float
    depths: Sequence[int]
    """How long the line was, from the beginning until now."""
    placed_after: Sequence[float]
    """Percentiles, as PERCENTILES says; empty if there is nothing to tell."""
    answered_after: Sequence[float]
    booked: int
    given_back: int
    refused: Mapping[str, int]
    put_off: Mapping[str, int]
    faults: Sequence[str]


class Meter:
    """Reads the figures of one stampede."""

    def __init__(self, place: str, journal: Journal, *, buyers: int, tickets: int) -> None:
        self.journal = journal
        self._place = place
        self._buyers = buyers
        self._tickets = tickets
        self._began_at = 0.0
        self._faults: list[str] = []
        self._applied: deque[tuple[float, int]] = deque([(0.0, 0)], maxlen=SAMPLES_MAX)
        self._depths: deque[int] = deque(maxlen=SAMPLES_MAX)
        self._drained_at_best = 0.0

    def begin(self, began_at: float) -> None:
        """Count the seconds from here on, by `time.monotonic`."""
        self._began_at = began_at

    def note_fault(self, done: str) -> None:
        """Remember that something was broken on purpose."""
        depth = self.journal.newest_position - self.journal.applied_position
        self._faults.append(f"{done} after {self._seconds():.1f} s, with {depth:,} in line")

    def read(self) -> Figures:
        """The figures at this moment."""
        journal, now = self.journal, self._seconds()
        in_line = journal.newest_position - journal.applied_position
        self._applied.append((now, journal.applied_position))
        self._depths.append(in_line)
        drained = drain_rate(self._applied)
        self._drained_at_best = max(self._drained_at_best, drained)
        return Figures(
            place=self._place,
            seconds=now,
            buyers=self._buyers,
            tickets=self._tickets,
            tickets_left=journal.tickets_left,
            commands=len(journal.commands),
            placed=len(journal.placed_after),
            answered=len(journal.answered_after),
            in_line=in_line,
            in_line_at_most=max(self._depths),
            drained_per_second=drained,
            drained_at_best=self._drained_at_best,
            depths=list(self._depths),
            placed_after=percentiles(journal.placed_after),
            answered_after=percentiles(journal.answered_after),
            booked=journal.outcomes[OutcomeCode.BOOKED],
            given_back=journal.outcomes[OutcomeCode.CANCELLED],
            refused={reason: count for reason, count in journal.outcomes.most_common() if reason not in GOOD},
            put_off=dict(journal.put_off.most_common()),
            faults=tuple(self._faults),
        )

    def _seconds(self) -> float:
        return time.monotonic() - self._began_at


def drain_rate(applied: Sequence[tuple[float, int]]) -> float:
    """Commands per second over the last while, from moments and how far the line had come by then."""
    now, newest = applied[-1]
    earlier = next(((at, count) for at, count in reversed(applied) if now - at >= DRAIN_SECONDS), applied[0])
    seconds = now - earlier[0]
    return (newest - earlier[1]) / seconds if seconds > 0 else 0.0


def percentiles(values: Sequence[float]) -> list[float]:
    """What PERCENTILES asks for."""
    ordered = sorted(values)
    return [percentile(ordered, share) for share in PERCENTILES] if ordered else []
