"""The stream of one box office: Server-Sent Events that show a sale about once a second."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

from fastapi.sse import format_sse_event

from api.box_office import Office
from api.context import ApiContext
from api.event_stream import HEARTBEAT, EventStream
from shared import limits

EVENT_SCHEMA = {
    "type": "object",
    "description": "one event of the stream",
    "properties": {
        "event": {"enum": ["snapshot"]},
        "data": {
            "type": "string",
            "description": "the sale, as JSON",
            "contentMediaType": "application/json",
        },
        "retry": {"type": "integer", "description": "milliseconds until a lost stream is opened again"},
    },
    "required": ["event", "data"],
}

EXAMPLE = """event: snapshot
data: {"at":"2026-11-23T10:00:00.000000Z","not_answering":[],"event":{"id":"01a206d1-…", …},"sales":"open",\
"sold_tickets":812,"line":{"length":311,"oldest_wait_seconds":0.402,"drain_rate":903.2, …},\
"applied_position":1190,"counted_position":1190,"outcomes":{"succeeded":{"booked":820,"cancelled":8},\
"rejected":{"user-limit-exceeded":362}},"latency":{"p50_seconds":0.21,"p99_seconds":0.43,"commands":1190,\
"over_seconds":10.0},"entries":[{"position":1190, …}, …],"demo":false}
retry: 2900

: still here

"""


class BoxOfficeStream(EventStream):
    """Shows a sale until the client hangs up or has what it asked for, or event or process come to their end.

    It holds the newest snapshot and nothing else, so a client that reads slowly misses what came between.
    """

    def __init__(
        self,
        context: ApiContext,
        office: Office,
        woken: asyncio.Event,
        snapshots_max: int | None,
        held: AsyncExitStack,
        *,
        may_watch: Callable[[], bool],
    ) -> None:
        """`woken` is set when there is news of the office; `held` is given back when the stream ends.

        `may_watch` is asked before each snapshot: a key may be revoked.
        """
        super().__init__(self._tell(), held, event_id=office.event_id)
        self._clock = context.clock
        self._heartbeat_seconds = context.settings.stream_heartbeat_seconds
        self._snapshots_max = snapshots_max
        self._office = office
        self._may_watch = may_watch
        self._woken = woken
        if office.snapshot is not None:
            woken.set()
        self._ends_at = self._clock.monotonic_seconds() + limits.STREAM_SECONDS_MAX

    async def _tell(self) -> AsyncIterator[bytes]:
        told = 0
        while not self._office.has_ended and self._clock.monotonic_seconds() < self._ends_at:
            if not await self._woken_in_time():
                yield HEARTBEAT
            elif not self._may_watch():
                return
            elif not self._office.has_ended and self._office.snapshot is not None:
                yield _event(self._office.snapshot)
                told += 1
                if told == self._snapshots_max:
                    return

    async def _woken_in_time(self) -> bool:
        """Wait for news; gives whether there is some before a heartbeat is due."""
        try:
            async with asyncio.timeout(self._heartbeat_seconds):
                await self._woken.wait()
        except TimeoutError:
            return False
        self._woken.clear()
        return True


def _event(snapshot: bytes) -> bytes:
    retry = random.randint(*limits.STREAM_RETRY_MS)  # noqa: S311 (spreads load)
    return format_sse_event(event="snapshot", data_str=snapshot.decode(), retry=retry)
