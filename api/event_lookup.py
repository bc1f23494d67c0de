"""Events from PostgreSQL, for an API process."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.concurrency import run_in_threadpool

from api.problems import ProblemError, event_not_found
from shared import limits
from shared.database import statements
from shared.database.engine import Database
from shared.errors import DatabaseUnavailable, EventArchived, OnsaleError
from shared.gathering import Gatherer, InTasks
from shared.identifiers import canonical_id
from shared.line.producer import Producer
from shared.records import EventRecord


def known_event_id(event_id: str) -> str:
    """The one way to write the id that a client has sent.

    Raises:
        ProblemError: it is none.
    """
    id = canonical_id(event_id)
    if id is None:
        raise ProblemError(event_not_found(event_id))
    return id


class EventLookup:
    """Finds events and tells Redis of them. Many who ask at once share one query and one telling."""

    def __init__(self, database: Database, producer: Producer) -> None:
        self._database = database
        self._producer = producer
        self._lookups: Gatherer[str, EventRecord | None] = Gatherer(
            InTasks(self._find, ended=DatabaseUnavailable("the process ends")),
            group_max=limits.LOOKUP_BATCH_MAX,
            waiting_max=limits.LOOKUPS_WAITING_MAX,
            too_many=DatabaseUnavailable("too many lookups wait for PostgreSQL"),
        )

    async def find(self, event_id: str) -> EventRecord | None:
        """An event, which is then known to Redis too; None if there is none.

        Raises:
            EventArchived: there was one.
            TemporarilyUnavailable: PostgreSQL or Redis does not answer, or too many lookups wait already.
        """
        return await self._lookups.ask(event_id)

    async def _find(self, event_ids: Sequence[str]) -> list[EventRecord | OnsaleError | None]:
        found = await run_in_threadpool(self._select, event_ids)
        for event in found.values():
            if event.archived_at is None:
                await self._producer.seed_event(event)
        return [_unless_archived(found.get(event_id)) for event_id in event_ids]

    def _select(self, event_ids: Sequence[str]) -> dict[str, EventRecord]:
        with self._database.transaction() as connection:
            return statements.find_events(connection, set(event_ids))


def refuse_archived(event: EventRecord | None) -> None:
    """Raise `EventArchived` for an event of which nothing is left to show."""
    if event is not None and event.archived_at is not None:
        raise EventArchived


def _unless_archived(event: EventRecord | None) -> EventRecord | OnsaleError | None:
    return event if event is None or event.archived_at is None else EventArchived()
