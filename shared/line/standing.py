"""How lines stand: how long each is, since when its first command waits, and how fast it drains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import redis.asyncio

from shared.clock import parse_time
from shared.line.connections import line_errors
from shared.line.scripts import ScriptName, script_source

_FIELDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A line at one moment.

    `first_accepted_at` is None if nobody waits, `drain_rate` in commands a second and None where nobody can
    tell; the positions are None if Redis does not know the event (any more).
    """

    length: int
    first_accepted_at: datetime | None
    accepted_position: int | None
    applied_position: int | None
    drain_rate: float | None


class StandingReader:
    """Looks at lines, all in one round trip and without reading what waits in them."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._script = client.register_script(script_source(ScriptName.READ_STANDING))

    async def read(self, event_ids: Sequence[str]) -> dict[str, Standing]:
        """How the lines of these events stand, by event.

        Raises:
            LineUnavailable: Redis does not answer.
        """
        with line_errors():
            found: list[Any] = await self._script(args=event_ids)
        return {
            event_id: _standing(*found[index * _FIELDS : (index + 1) * _FIELDS])
            for index, event_id in enumerate(event_ids)
        }


def _standing(length: int, accepted_at: bytes, accepted: bytes, applied: bytes, rate: bytes) -> Standing:
    return Standing(
        length=length,
        first_accepted_at=_time(accepted_at),
        accepted_position=int(accepted) if accepted else None,
        applied_position=int(applied) if applied else None,
        drain_rate=float(rate) if rate else None,
    )


def _time(text: bytes) -> datetime | None:
    """RQ's tools let anyone write to a job; one without a time has none."""
    try:
        return parse_time(text.decode()) if text else None
    except ValueError:
        return None
