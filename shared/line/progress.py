"""How far lines have come: one small reader per API process, which asks for all that are watched at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio

from shared import limits
from shared.errors import LineUnavailable
from shared.line.connections import line_errors
from shared.line.scripts import ScriptName, script_source
from shared.log import log_event

logger = logging.getLogger(__name__)

Wake = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The position applied last; None if Redis does not know the event (any more).

    `rate` is in commands a second; None where nobody can tell, as in a line that stands still.
    """

    applied: int | None
    rate: float | None


@dataclass(slots=True)
class Watched:
    """A line that somebody watches: how far it was when it was looked at last, and who wants to know."""

    newest: Progress | None = None
    wakes: set[Wake] = field(default_factory=set)


class ProgressReader:
    """Looks at every watched line in one round trip, again and again, for as long as any is watched."""

    def __init__(self, client: redis.asyncio.Redis, *, seconds: float) -> None:
        """`seconds` is the time from one look to the next."""
        self._client = client
        self._seconds = seconds
        self._watched: dict[str, Watched] = {}
        self._reader: asyncio.Task[None] | None = None
        self._read_progress = client.register_script(script_source(ScriptName.READ_PROGRESS))

    @property
    def watched(self) -> int:
        """How many lines are watched."""
        return len(self._watched)

    @contextlib.contextmanager
    def watch(self, event_id: str, wake: Wake) -> Iterator[Watched]:
        """Keep an eye on a line; `wake` is called when it has changed. Forgotten at the end of the block."""
        watched = self._watched.setdefault(event_id, Watched())
        watched.wakes.add(wake)
        if self._reader is None:
            self._reader = asyncio.create_task(self._read_while_watched())
        try:
            yield watched
        finally:
            watched.wakes.discard(wake)
            if not watched.wakes:
                self._watched.pop(event_id, None)

    async def stop(self) -> None:
        """Look no more."""
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader

    async def _read_while_watched(self) -> None:
        try:
            while self._watched:
                try:
                    await self._read_all(list(self._watched))
                except LineUnavailable as error:
                    # What was told last stays; nobody is told what is not known.
                    log_event(logger, logging.WARNING, "the progress of lines is not known", error=error)
                await asyncio.sleep(self._seconds)
        finally:
            self._reader = None

    async def _read_all(self, event_ids: Sequence[str]) -> None:
        size = limits.PROGRESS_READ_AT_ONCE_MAX
        with line_errors():
            async with self._client.pipeline(transaction=False) as pipeline:
                for start in range(0, len(event_ids), size):
                    await self._read_progress(args=event_ids[start : start + size], client=pipeline)
                answers: list[Any] = [value for part in await pipeline.execute() for value in part]
        for event_id, applied, rate in zip(event_ids, answers[::2], answers[1::2], strict=True):
            self._note(event_id, Progress(applied=_number(applied), rate=float(rate) if rate else None))

    def _note(self, event_id: str, progress: Progress) -> None:
        watched = self._watched.get(event_id)
        if watched is None or watched.newest == progress:
            return
        watched.newest = progress
        for wake in tuple(watched.wakes):
            wake()


def _number(text: bytes | None) -> int | None:
    return None if text is None else int(text)
