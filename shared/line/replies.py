"""One subscription per API process, on which the results of the jobs that it waits for arrive."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator

import redis.asyncio

from shared import limits
from shared.errors import LineUnavailable
from shared.line import keys
from shared.line.codec import decode_return_value
from shared.line.connections import line_errors
from shared.line.link import Subscription
from shared.line.producer import Producer
from shared.log import log_event
from shared.records import JobResult

logger = logging.getLogger(__name__)

_RECONNECT_SECONDS = 0.5


class Replies:
    """Hands results to whoever waits in this process.

    The channel is this process's own; a job carries the channels that want its result, so each result
    travels only where it is waited for. After a lost connection every open wait is asked anew.
    """

    def __init__(
        self, client: redis.asyncio.Redis, producer: Producer, *, process_id: str, seconds_max: float
    ) -> None:
        """Redis is given so many seconds to begin a subscription."""
        self.channel = keys.REPLIES + process_id
        self._client = client
        self._seconds_max = seconds_max
        self._producer = producer
        self._waiting: dict[str, set[asyncio.Future[JobResult]]] = {}
        self._listener: asyncio.Task[None] | None = None
        self._stopping = False
        self._letting_go = False

    @property
    def waiting(self) -> int:
        """How many jobs are waited for."""
        return len(self._waiting)

    def start(self) -> None:
        """Begin to listen."""
        self._listener = asyncio.create_task(self._listen())

    async def stop(self) -> None:
        """End the subscription."""
        self._stopping = True
        if self._listener is not None:
            self._listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listener

    def let_go(self) -> None:
        """Keep nobody waiting, now and from now on."""
        self._letting_go = True
        for futures in self._waiting.values():
            for future in futures:
                future.cancel()

    @contextlib.contextmanager
    def expect(self, job_id: str) -> Iterator[asyncio.Future[JobResult]]:
        """A future for the result of a job; forgotten at the end of the block.

        It is cancelled when the process ends: whoever waits is to go away without the result.
        """
        future = self.reply_to(job_id)
        try:
            yield future
        finally:
            self.forget(job_id, future)

    def reply_to(self, job_id: str) -> asyncio.Future[JobResult]:
        """The same future, until it is told to be forgotten."""
        future: asyncio.Future[JobResult] = asyncio.get_running_loop().create_future()
        if self._letting_go:
            future.cancel()
        self._waiting.setdefault(job_id, set()).add(future)
        return future

    def forget(self, job_id: str, future: asyncio.Future[JobResult]) -> None:
        """Nobody waits for the result of this job by this future any more."""
        futures = self._waiting.get(job_id, set())
        futures.discard(future)
        if not futures:
            self._waiting.pop(job_id, None)

    async def _listen(self) -> None:
        while not self._stopping:
            try:
                with line_errors():
                    await self._listen_until_lost()
            except LineUnavailable as error:
                log_event(logger, logging.WARNING, "replies lost, listening again", error=error)
                await asyncio.sleep(_RECONNECT_SECONDS)

    async def _listen_until_lost(self) -> None:
        subscription = await Subscription.open(self._client, self._deliver_all)
        try:
            await subscription.subscribe(self.channel, seconds_max=self._seconds_max)
            await self._ask_for_missed()
            # redis-py can lose a cancellation while it connects or reads.
            if not self._stopping:
                await subscription.wait_until_lost()
        finally:
            await subscription.give_back()

    async def _ask_for_missed(self) -> None:
        waiting, size = list(self._waiting), limits.JOBS_READ_AT_ONCE_MAX
        for start in range(0, len(waiting), size):
            job_ids = waiting[start : start + size]
            for job in await self._producer.read_jobs(job_ids, reply_to=self.channel):
                if job is not None and job.result is not None:
                    self._deliver(job.job_id, job.result)

    def _deliver_all(self, lines: bytes) -> None:
        for line in lines.splitlines():
            job_id, _, return_value = line.partition(b" ")
            try:
                if job_id.decode() in self._waiting:
                    self._deliver(job_id.decode(), decode_return_value(return_value))
            except ValueError as error:
                # Someone else has published here; whoever waits for this job asks when the wait is over.
                log_event(logger, logging.WARNING, "a reply can't be read", job_id=job_id, reason=error)

    def _deliver(self, job_id: str, result: JobResult) -> None:
        for future in self._waiting.get(job_id, ()):
            if not future.done():
                future.set_result(result)
