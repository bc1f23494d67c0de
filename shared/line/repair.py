"""For operators: compare a line with PostgreSQL after one of the two was restored, and mend it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import redis

from shared import limits
from shared.clock import format_time
from shared.identifiers import derived_id
from shared.line import keys
from shared.line.codec import lost_job_data
from shared.line.connections import line_errors
from shared.line.producer import seed_arguments
from shared.line.scripts import ScriptName, script_source
from shared.records import EventRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class LineState:
    """How far a line has come: the position given last, and how many commands wait."""

    accepted: int
    waiting: int

    @property
    def head(self) -> int:
        """The position of the first command that waits, or of the next one that comes."""
        return self.accepted - self.waiting + 1


class LineRepair:
    """Looks at lines and changes them. Every call raises `LineUnavailable` if Redis does not answer."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._put_back = client.register_script(script_source(ScriptName.PUT_BACK))
        self._forget = client.register_script(script_source(ScriptName.FORGET))
        self._seed = client.register_script(script_source(ScriptName.SEED_EVENT))

    def known_events(self) -> Iterator[str]:
        """The ids of the events that Redis knows; one may come twice."""
        for prefix in (keys.EVENT, keys.ORDER):
            cursor = 0
            while True:
                with line_errors():
                    found = self._client.scan(cursor, match=f"{prefix}*", count=limits.REPAIR_STEP)
                cursor, names = cast(tuple[int, list[bytes]], found)
                yield from (name.decode().removeprefix(prefix) for name in names)
                if cursor == 0:
                    break

    def read(self, event_id: str) -> LineState | None:
        """How far a line has come; None if Redis does not know which positions it has given."""
        with line_errors(), self._client.pipeline(transaction=True) as pipeline:
            pipeline.hget(keys.EVENT + event_id, "accepted")
            pipeline.llen(keys.ORDER + event_id)
            accepted, waiting = pipeline.execute()
        return None if accepted is None else LineState(accepted=int(accepted), waiting=waiting)

    def seed(self, event: EventRecord) -> None:
        """Tell Redis of an event what PostgreSQL knows. Never takes positions back."""
        with line_errors():
            self._seed(args=seed_arguments(event))

    def stop_accepting(self, event_id: str) -> None:
        """Take no more commands for an event until somebody seeds it."""
        with line_errors():
            self._client.delete(keys.EVENT + event_id)

    def waiting(self, event_id: str) -> int:
        """How many commands wait for an event."""
        with line_errors():
            return self._client.llen(keys.ORDER + event_id)

    def forget(self, event_id: str) -> bool:
        """Remove all that Redis has of an event. Gives False if commands still wait; they are left."""
        while True:
            with line_errors():
                left = cast(int, self._forget(args=[event_id, limits.REPAIR_STEP]))
            if left <= 0:
                return left == 0

    def remembered(self, event_id: str, *, after: int, before: int) -> dict[int, str]:
        """The done jobs that Redis still has, by position, of those between two positions."""
        found = {}
        for registry in (keys.RQ_FINISHED, keys.RQ_FAILED):
            for job_ids in self._members(registry + keys.queue_name(event_id)):
                with line_errors(), self._client.pipeline(transaction=False) as pipeline:
                    for job_id in job_ids:
                        pipeline.hget(keys.RQ_JOB + job_id, "position")
                    positions = pipeline.execute()
                for job_id, position in zip(job_ids, positions, strict=True):
                    if position is not None and after < int(position) < before:
                        found[int(position)] = job_id
        return found

    def _members(self, registry: str) -> Iterator[list[str]]:
        cursor = 0
        while True:
            with line_errors():
                found = self._client.zscan(registry, cursor, count=limits.REPAIR_STEP)
            cursor, members = cast(tuple[int, list[tuple[bytes, float]]], found)
            yield [member.decode() for member, _ in members]
            if cursor == 0:
                return

    def put_back(self, event: EventRecord, head: int, remembered: dict[int, str], moment: datetime) -> bool:
        """Fill the positions from the event's last applied one to the head of its line.

        Commands that Redis remembers are put back to be applied again; each other position is filled by
        one that fails as lost. The worker goes on with the event when the last of them is in its place. It
        can be done again after an interruption. Gives False if the line has moved meanwhile.
        """
        self._set_back(event)
        positions = range(head - 1, event.applied_position, -1)
        for start in range(0, len(positions), limits.REPAIR_STEP):
            step = positions[start : start + limits.REPAIR_STEP]
            if not self._put_back_step(event, step, remembered, moment):
                return False
        return True

    def _set_back(self, event: EventRecord) -> None:
        """Show the event as PostgreSQL has it."""
        _, view, applied, _, opens_at = seed_arguments(event)
        fields: dict[Any, Any] = {"view": view, "applied": applied, "opens_at": opens_at}
        with line_errors():
            self._client.hset(keys.EVENT + event.id, mapping=fields)

    def _put_back_step(
        self, event: EventRecord, positions: Sequence[int], remembered: dict[int, str], moment: datetime
    ) -> bool:
        job_ids = [
            remembered.get(position) or derived_id("lost", event.id, str(position)) for position in positions
        ]
        is_last = positions[-1] == event.applied_position + 1
        arguments = [
            event.id,
            positions[0] + 1,
            format_time(moment),
            lost_job_data(event.id),
            "1" if is_last else "",
            *job_ids,
        ]
        with line_errors():
            return bool(self._put_back(args=arguments))
