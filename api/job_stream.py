"""The stream of one job: Server-Sent Events that tell how far it has come, and its result."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import orjson
from fastapi.sse import format_sse_event

from api.context import ApiContext
from api.event_stream import HEARTBEAT, EventStream
from api.jobs import JobDocument, KnownJob, commands_ahead, estimated_wait_seconds, read_job
from shared import limits
from shared.errors import TemporarilyUnavailable
from shared.records import JobResult

_DONE_ID = "done"

EVENT_SCHEMA = {
    "type": "object",
    "description": "one event of the stream",
    "properties": {
        "event": {"enum": ["snapshot", "position", "result"]},
        "data": {"type": "string", "description": "the job, as JSON", "contentMediaType": "application/json"},
        "id": {"type": "string", "description": "for Last-Event-ID"},
        "retry": {"type": "integer", "description": "milliseconds until a lost stream is opened again"},
    },
    "required": ["event", "data", "id"],
}

EXAMPLE = """event: snapshot
data: {"id":"01a206d1-…","status":"queued","done":false,"position":812,"ahead":311, …}
id: 500
retry: 2900

: still here

event: position
data: {"id":"01a206d1-…","status":"queued","done":false,"position":812,"ahead":11, …}
id: 800

event: result
data: {"id":"01a206d1-…","status":"succeeded","done":true,"position":812,"ahead":0, …}
id: done

"""


def is_told(job: KnownJob, last_event_id: str | None) -> bool:
    """Whether a client that comes again has the result already."""
    return job.document["done"] and last_event_id == _DONE_ID


class JobStream(EventStream):
    """Tells the client of one job until it is done, the client hangs up or the process is to end.

    It holds the newest state and nothing else, so a client that reads slowly misses what came between.
    """

    def __init__(
        self, context: ApiContext, job: KnownJob, reply: asyncio.Future[JobResult], held: AsyncExitStack
    ) -> None:
        """`held` is what the stream takes up, given back when it ends."""
        super().__init__(self._tell(), held, job_id=job.document["id"])
        self._context = context
        self._known = job
        self._job = job.document
        self._reply = reply
        self._woken = asyncio.Event()
        self._watched = held.enter_context(context.progress.watch(self._job["event_id"], self._woken.set))
        reply.add_done_callback(lambda _: self._woken.set())
        self._ends_at = self._now() + limits.STREAM_SECONDS_MAX
        self._heartbeat_at = math.inf
        self._ask_at = math.inf

    async def _tell(self) -> AsyncIterator[bytes]:
        yield self._event("snapshot", retry=random.randint(*limits.STREAM_RETRY_MS))  # noqa: S311 (spreads load)
        while not self._job["done"]:
            await self._sleep()
            if self._reply.cancelled() or self._now() >= self._ends_at:
                return
            if self._reply.done():
                self._job = self._known.finished(self._reply.result())
            elif self._now() >= self._ask_at:
                if not await self._ask():
                    return
            elif self._has_moved():
                yield self._event("position")
            elif self._now() >= self._heartbeat_at:
                self._put_off_heartbeat()
                yield HEARTBEAT
        yield self._event("result")

    async def _sleep(self) -> None:
        """Until there may be news, or something is due."""
        due = min(self._heartbeat_at, self._ask_at, self._ends_at)
        try:
            async with asyncio.timeout(max(due - self._now(), 0)):
                await self._woken.wait()
        except TimeoutError:
            return
        self._woken.clear()

    def _has_moved(self) -> bool:
        """Look at the line; gives whether the client is to be told."""
        progress = self._watched.newest
        if progress is None:
            return False
        position = self._job["position"]
        if progress.applied is None or progress.applied >= position:
            # Its turn has come, or Redis has lost the line: the result is on its way, or nobody will send it.
            self._ask_at = min(self._ask_at, self._now() + limits.STREAM_RESULT_SECONDS_MAX)
            return False
        told, told_estimate = self._job["ahead"], self._job["estimated_wait_seconds"]
        ahead = commands_ahead(position, progress.applied)
        estimate = estimated_wait_seconds(ahead, progress.rate)
        if ahead >= told and (estimate is None) == (told_estimate is None):
            return False
        self._job = {**self._job, "ahead": min(ahead, told), "estimated_wait_seconds": estimate}
        return True

    async def _ask(self) -> bool:
        """Ask for the job itself; gives whether it is still there."""
        self._ask_at = math.inf
        try:
            job = await read_job(self._context, self._job["id"], reply_to=self._context.replies.channel)
        except TemporarilyUnavailable:
            return True
        if job is not None:
            self._known, self._job = job, job.document
        return job is not None

    def _event(self, name: str, *, retry: int | None = None) -> bytes:
        self._put_off_heartbeat()
        return format_sse_event(
            event=name, data_str=orjson.dumps(self._job).decode(), id=_event_id(self._job), retry=retry
        )

    def _put_off_heartbeat(self) -> None:
        self._heartbeat_at = self._now() + self._context.settings.stream_heartbeat_seconds

    def _now(self) -> float:
        return self._context.clock.monotonic_seconds()


def _event_id(job: JobDocument) -> str:
    """Where the line was: the position applied last, as far as it matters to this job."""
    return _DONE_ID if job["done"] else str(job["position"] - job["ahead"] - 1)
