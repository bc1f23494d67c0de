"""How long each phase of a worker's round takes."""

from __future__ import annotations

from enum import StrEnum

from shared.clock import Clock
from shared.metrics import (
    BATCHES_REFUSED_AHEAD,
    BATCHES_REFUSED_FROM_MEMORY,
    BATCHES_WRITTEN_AHEAD,
    BATCHES_WRITTEN_FROM_MEMORY,
    PHASE_SECONDS,
)


class Phase(StrEnum):
    """The phases of a round: a claim, the parts of a transaction, the completion in Redis."""

    CLAIM = "claim"
    LOCK = "lock"
    """The connection, the time limits, the lock of the event's row, and what most batches read."""
    PREFETCH = "prefetch"
    """What the others read besides: of cancellations, and of commands that may have been applied before.
    For a batch that is decided while the one before it is written, all that it reads, if it does."""
    RULES = "rules"
    """What they decide, and the text of what is to be written."""
    WRITE = "write"
    """All that is written, and the commit; of a batch that was decided before, also the connection, the time
    limits and the lock."""
    COMPLETE = "complete"


_OBSERVE = {phase: PHASE_SECONDS.labels(phase.value).observe for phase in Phase}


def count_from_memory(*, written: bool) -> None:
    """Count a batch that was decided from memory, and whether PostgreSQL wrote it so."""
    (BATCHES_WRITTEN_FROM_MEMORY if written else BATCHES_REFUSED_FROM_MEMORY).inc()


def count_ahead(*, written: bool) -> None:
    """Count a batch that was decided before its turn, and whether PostgreSQL wrote it so."""
    (BATCHES_WRITTEN_AHEAD if written else BATCHES_REFUSED_AHEAD).inc()


class Phases:
    """A stopwatch for phases that follow each other."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began_at = clock.monotonic_seconds()

    def end(self, phase: Phase) -> None:
        """End a phase; the next begins."""
        now = self._clock.monotonic_seconds()
        _OBSERVE[phase](now - self._began_at)
        self._began_at = now
