"""Whose an event is, for an API process. It never changes, so it is asked once."""

from __future__ import annotations

from collections import OrderedDict

from api.event_lookup import EventLookup
from shared import limits


class EventOwners:
    """Remembers the organisers of events."""

    def __init__(self, events: EventLookup) -> None:
        self._events = events
        self._known: OrderedDict[str, str | None] = OrderedDict()

    async def owner_of(self, event_id: str) -> str | None:
        """The organiser's account; None if the event is nobody's, or does not exist.

        Raises:
            TemporarilyUnavailable: it has not been asked before, and PostgreSQL or Redis does not answer.
        """
        if event_id in self._known:
            self._known.move_to_end(event_id)
            return self._known[event_id]
        event = await self._events.find(event_id)
        if event is None:
            return None
        self._known[event_id] = event.organiser_id
        if len(self._known) > limits.EVENT_OWNERS_REMEMBERED_MAX:
            self._known.popitem(last=False)
        return event.organiser_id
