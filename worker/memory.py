"""What a worker remembers of its last small batches, to decide small ones that follow without reading.

Nothing rests on it: PostgreSQL writes a batch that was decided so only where the event still is as it was
remembered, and counts every user's tickets itself (optimistic concurrency control, Kung and Robinson, 1981).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shared import limits
from shared.records import EventRecord


@dataclass(slots=True)
class Remembered:
    """An event as a small batch left it, and the tickets of users, as far as they are remembered."""

    event: EventRecord
    holdings: dict[str, int]


class Memory:
    """Of a bounded number of events and users; past a bound what was kept longest ago is forgotten."""

    def __init__(self) -> None:
        self._events: dict[str, Remembered] = {}
        self._users = 0

    def take(self, event_id: str) -> Remembered | None:
        """What is remembered of an event, and forget it: whatever comes now changes it."""
        remembered = self._events.pop(event_id, None)
        if remembered is not None:
            self._users -= len(remembered.holdings)
        return remembered

    def keep(self, event: EventRecord, holdings: Mapping[str, int], before: Remembered | None) -> None:
        """Remember an event as a batch left it, with the tickets of its users besides those known before."""
        known = {} if before is None else before.holdings
        known.update(holdings)
        if len(known) > limits.USERS_REMEMBERED_MAX:
            known = {}
        while self._events and (
            len(self._events) >= limits.EVENTS_REMEMBERED_MAX
            or self._users + len(known) > limits.USERS_REMEMBERED_MAX
        ):
            self.take(next(iter(self._events)))
        self._events[event.id] = Remembered(event, known)
        self._users += len(known)
