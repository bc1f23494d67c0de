"""`python -m worker reconcile`: do Redis and PostgreSQL come from the same history?

They don't when one of them was restored from a backup. PostgreSQL is the truth, so Redis is what is mended.
Redis is read before PostgreSQL and after it, so that an event that sells meanwhile is not suspected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from shared.clock import Clock
from shared.database import statements
from shared.database.engine import Database
from shared.line.repair import LineRepair
from shared.records import EventRecord
from shared.settings import Settings

Report = Callable[[str], None]


@dataclass(slots=True)
class Compared:
    """How many events were compared, how many of them differed, and how many of those differ still."""

    events: int = 0
    differing: int = 0
    left: int = 0


class Reconciler:
    """Compares events and says of each that differs what is wrong and, with `mend`, what was done."""

    def __init__(
        self,
        database: Database,
        repair: LineRepair,
        clock: Clock,
        settings: Settings,
        report: Report,
        *,
        mend: bool,
    ) -> None:
        self._database = database
        self._repair = repair
        self._clock = clock
        self._settings = settings
        self._report = report
        self._mend = mend
        self.compared = Compared()

    def reconcile_all(self) -> None:
        """Compare every event that Redis knows. Those that it does not know it learns from PostgreSQL."""
        for event_id in _once(self._repair.known_events()):
            self.reconcile(event_id)

    def reconcile(self, event_id: str) -> None:
        """Compare one event."""
        self.compared.events += 1
        before = self._repair.read(event_id)
        event = self._find(event_id)
        if event is None:
            self._tell_gone(event_id, "PostgreSQL does not have it; put it on sale anew")
            return
        if event.archived_at is not None:
            self._tell_gone(event_id, "it is archived")
            return
        after = self._repair.read(event_id)
        if before is not None and before.head > event.applied_position + 1:
            self._mend_ahead(event, before.head)
        elif after is not None and after.accepted < event.applied_position:
            self._mend_behind(event, after.accepted)

    def _find(self, event_id: str) -> EventRecord | None:
        with self._database.transaction() as connection:
            return statements.find_event(connection, event_id)

    def _tell_gone(self, event_id: str, what: str) -> None:
        self._differs(f"event {event_id}: Redis takes commands for it, but {what}")
        if self._mend:
            self._repair.stop_accepting(event_id)
            self._done("it takes no more commands; those that wait will fail")

    def _mend_behind(self, event: EventRecord, accepted: int) -> None:
        self._differs(
            f"event {event.id}: Redis is behind; it would give the positions from {accepted + 1} to"
            f" {event.applied_position} again, and the commands that get them would fail"
        )
        if self._mend:
            self._repair.seed(event)
            self._done(f"the next position is {event.applied_position + 1}")

    def _mend_ahead(self, event: EventRecord, head: int) -> None:
        applied = event.applied_position
        remembered = self._repair.remembered(event.id, after=applied, before=head)
        missing = head - 1 - applied
        self._differs(
            f"event {event.id}: PostgreSQL is behind; it lacks the positions from {applied + 1}"
            f" to {head - 1}. Redis remembers {len(remembered)} of these {missing} commands"
        )
        if not self._mend:
            return
        if missing > self._settings.line_length_max:
            self._report("  left as it is: more than a line may hold; raise ONSALE_LINE_LENGTH_MAX for this")
        elif self._repair.put_back(event, head, remembered, self._clock.now()):
            self._done(
                f"{len(remembered)} commands are applied again,"
                f" {missing - len(remembered)} are lost and fail at their positions"
            )
            self._tell_lost(event, head, remembered)
        else:
            self._report("  left as it is: its line has moved; run this again")

    def _tell_lost(self, event: EventRecord, head: int, remembered: dict[int, str]) -> None:
        """The positions whose commands nobody knows any more, as ranges."""
        start = None
        for position in range(event.applied_position + 1, head + 1):
            is_lost = position < head and position not in remembered
            if is_lost and start is None:
                start = position
            elif not is_lost and start is not None:
                self._report(f"  lost: positions {start} to {position - 1}")
                start = None

    def _differs(self, what: str) -> None:
        self.compared.differing += 1
        self.compared.left += 1
        self._report(what)

    def _done(self, what: str) -> None:
        self.compared.left -= 1
        self._report(f"  mended: {what}")


def _once(event_ids: Iterator[str]) -> Iterator[str]:
    seen = set()
    for event_id in event_ids:
        if event_id not in seen:
            seen.add(event_id)
            yield event_id
