"""How many requests a caller may make: counted in each process at once, and among all of them soon after.

A request asks no server. Twice a second a process tells Redis what its busy callers asked for and learns what
they asked for elsewhere. The window slides: what was asked in the span before counts for as much of it as the
window still covers (the sliding window counter, as Cloudflare described it in 2017).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from dataclasses import dataclass, field

from shared import limits
from shared.clock import Clock
from shared.errors import LineUnavailable, RateLimited
from shared.line.tallies import Tallies
from shared.log import log_event

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a caller may still ask for: `remaining` of `quota` requests, more after `reset_seconds`."""

    quota: int
    remaining: int
    reset_seconds: int

    def headers(self) -> dict[str, str]:
        """As draft-ietf-httpapi-ratelimit-headers-10 writes it."""
        return {
            "RateLimit-Policy": f'"caller";q={self.quota};w={limits.RATE_WINDOW_SECONDS}',
            "RateLimit": f'"caller";r={self.remaining};t={self.reset_seconds}',
        }


@dataclass(slots=True)
class _Count:
    """The requests of one caller in one span: here, of these told to Redis, and by all as Redis said last."""

    here: int = 0
    told: int = 0
    everywhere: int = 0

    @property
    def total(self) -> int:
        return self.everywhere + self.here - self.told


@dataclass(slots=True)
class _Span:
    """One span of time and who asked in it."""

    number: int
    counts: dict[str, _Count] = field(default_factory=dict)


def used_in_window(earlier: int, now: int, elapsed_share: float) -> int:
    """Requests in the sliding window, if `elapsed_share` of the present span is over. Rounded down."""
    return now + math.floor(earlier * (1.0 - elapsed_share))


def seconds_until_room(earlier: int, now: int, quota: int, elapsed_seconds: float) -> int:
    """How long it takes until a window that is full has room for a request, if none is made until then.

    At least a second, also at the very beginning of a window, where the room is a moment away.
    """
    if now < quota:
        share = 1.0 - (quota - now) / earlier
        return max(1, math.floor(limits.RATE_WINDOW_SECONDS * share - elapsed_seconds) + 1)
    rest = limits.RATE_WINDOW_SECONDS - elapsed_seconds
    return math.floor(rest + limits.RATE_WINDOW_SECONDS * (1.0 - quota / now)) + 1


class RateLimiter:
    """Counts the requests of each caller and refuses those past their quota."""

    def __init__(self, tallies: Tallies, clock: Clock) -> None:
        self._tallies = tallies
        self._clock = clock
        self._before = _Span(-1)
        self._present = _Span(-1)
        self._quotas: dict[str, int] = {}
        self._telling: asyncio.Task[None] | None = None
        self._has_news = asyncio.Event()

    def admit(self, caller: str, quota: int) -> Standing:
        """Count a request of this caller, who may make `quota` of them in a window.

        Raises:
            RateLimited: it is one too many; it is not counted.
        """
        seconds = self._clock.now().timestamp()
        self._turn_to(int(seconds // limits.RATE_WINDOW_SECONDS))
        elapsed = seconds % limits.RATE_WINDOW_SECONDS
        earlier = self._before.counts.get(caller)
        count = self._present.counts.get(caller)
        if count is None:
            count = self._present.counts[caller] = _Count()
        used_earlier, used_now = 0 if earlier is None else earlier.total, count.total
        used = used_in_window(used_earlier, used_now, elapsed / limits.RATE_WINDOW_SECONDS)
        if used >= quota:
            raise RateLimited(quota, seconds_until_room(used_earlier, used_now, quota, elapsed))
        count.here += 1
        self._quotas[caller] = quota
        self._has_news.set()
        return Standing(
            quota=quota,
            remaining=quota - used - 1,
            reset_seconds=math.ceil(limits.RATE_WINDOW_SECONDS - elapsed),
        )

    def start(self) -> None:
        """Begin to tell the other processes."""
        self._telling = asyncio.create_task(self._keep_telling())

    async def stop(self) -> None:
        """Tell no more."""
        if self._telling is not None:
            self._telling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._telling

    async def tell(self) -> bool:
        """Tell Redis of the busy callers, and learn what they asked for elsewhere.

        Gives whether there were any.

        Raises:
            LineUnavailable: Redis does not answer.
        """
        span = self._present
        news = {
            caller: count.here - count.told
            for caller, count in span.counts.items()
            if count.here > count.told and self._is_busy(caller, count)
        }
        chosen = dict(list(news.items())[: limits.RATE_TOLD_AT_ONCE_MAX])
        if not chosen:
            return False
        totals = await self._tallies.add(span.number, chosen, ttl_seconds=2 * limits.RATE_WINDOW_SECONDS)
        for caller, total in totals.items():
            span.counts[caller].told += chosen[caller]
            span.counts[caller].everywhere = total
        return True

    async def _keep_telling(self) -> None:
        """Rests while nobody asks. Whoever one telling had no room for, or Redis no ear, is for the next."""
        while True:
            await self._has_news.wait()
            await asyncio.sleep(limits.RATE_SYNC_SECONDS)
            self._has_news.clear()
            try:
                has_more = await self.tell()
            except LineUnavailable as error:
                has_more = True
                log_event(logger, logging.WARNING, "callers are counted in this process alone", reason=error)
            if has_more:
                self._has_news.set()

    def _turn_to(self, number: int) -> None:
        """Begin a new span; of the one before only the busy callers are worth to remember."""
        if number == self._present.number:
            if len(self._present.counts) > limits.RATE_CALLERS_MAX:
                self._present.counts = self._busy(self._present)
            return
        follows = number == self._present.number + 1
        self._before = _Span(number - 1, self._busy(self._present) if follows else {})
        self._present = _Span(number)
        self._quotas = {caller: self._quotas[caller] for caller in self._before.counts}

    def _busy(self, span: _Span) -> dict[str, _Count]:
        return {caller: count for caller, count in span.counts.items() if self._is_busy(caller, count)}

    def _is_busy(self, caller: str, count: _Count) -> bool:
        return count.total >= self._quotas.get(caller, 0) * limits.RATE_SHARE_TOLD
