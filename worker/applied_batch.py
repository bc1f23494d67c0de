"""What the database holds after a batch, for whoever has to tell of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from operator import attrgetter

from shared.domain import OutcomeCode
from shared.line.codec import WaitingCommand
from shared.records import EventRecord, EventView, JobResult, LedgerRecord, event_view
from worker.decision import Decision, results_of


@dataclass(frozen=True, kw_only=True)
class AppliedBatch:
    """What the database holds after a batch. What is told of it is made when somebody asks.

    `recorded` are the rows of commands that had been applied before, `entries` those of the others. `event`
    and `view` are None if the event does not exist. `holdings` are the tickets of the users that the rules
    asked for, as far as they were known.
    """

    event_id: str
    waiting: Sequence[WaitingCommand]
    recorded: Mapping[str, LedgerRecord]
    entries: Sequence[LedgerRecord]
    applied_at: datetime
    applied_position: int
    event: EventRecord | None = None
    holdings: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def results(self) -> Sequence[tuple[str, JobResult]]:
        """The outcome of each command, in order."""
        return results_of(self.event_id, self.waiting, self.recorded, self.entries, self.applied_at)

    @cached_property
    def outcomes(self) -> Mapping[OutcomeCode, int]:
        """How many commands that were not applied before had each outcome."""
        return Counter(map(attrgetter("outcome"), self.entries))

    @property
    def view(self) -> EventView | None:
        """The event as others see it."""
        return None if self.event is None else event_view(self.event)


def applied_batch(
    before: EventRecord,
    decided: Decision,
    waiting: Sequence[WaitingCommand],
    recorded: Mapping[str, LedgerRecord],
) -> AppliedBatch:
    """A batch as it was decided for an event that was as `before`, once that is written."""
    event = before if decided.writes is None else decided.writes.event
    return AppliedBatch(
        event_id=event.id,
        waiting=waiting,
        recorded=recorded,
        entries=decided.records.entries,
        applied_at=decided.applied_at,
        applied_position=event.applied_position,
        event=event,
        holdings=decided.state.holdings,
    )
