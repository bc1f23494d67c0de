"""Requests of a caller, counted in several processes that share a Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
import redis

from api.rate_limit import RateLimiter
from shared import limits
from shared.errors import LineUnavailable, RateLimited
from shared.line.connections import connect_async
from shared.line.tallies import Tallies
from shared.settings import Settings
from tests.clocks import StoppedClock

PATIENCE_SECONDS = 30.0
MINUTE = timedelta(seconds=limits.RATE_WINDOW_SECONDS)


def with_limiters(
    settings: Settings, use: Callable[[RateLimiter, RateLimiter, StoppedClock], Awaitable[None]]
) -> None:
    """Two processes' limiters on one clock."""

    async def run() -> None:
        client, clock = connect_async(settings), StoppedClock()
        try:
            await use(RateLimiter(Tallies(client), clock), RateLimiter(Tallies(client), clock), clock)
        finally:
            await client.aclose()

    asyncio.run(run())


def admitted(limiter: RateLimiter, caller: str, quota: int, tries: int) -> int:
    count = 0
    for _ in range(tries):
        try:
            limiter.admit(caller, quota)
        except RateLimited:
            break
        count += 1
    return count


def test_a_caller_gets_its_quota_and_no_more(settings: Settings, redis_client: redis.Redis) -> None:
    async def use(limiter: RateLimiter, _: RateLimiter, clock: StoppedClock) -> None:
        assert limiter.admit("ann", 10).remaining == 9
        assert admitted(limiter, "ann", 10, 20) == 9
        assert admitted(limiter, "bob", 10, 20) == 10

    with_limiters(settings, use)


def test_what_was_asked_elsewhere_counts_once_it_was_told(
    settings: Settings, redis_client: redis.Redis
) -> None:
    async def use(first: RateLimiter, second: RateLimiter, clock: StoppedClock) -> None:
        assert admitted(first, "ann", 10, 6) == 6
        await first.tell()
        assert admitted(second, "ann", 10, 1) == 1
        await second.tell()
        assert admitted(second, "ann", 10, 20) == 3
        await second.tell()
        await second.tell()
        assert admitted(first, "ann", 10, 1) == 1
        await first.tell()
        assert admitted(first, "ann", 10, 1) == 0

    with_limiters(settings, use)


def test_room_comes_back_as_the_window_slides(settings: Settings, redis_client: redis.Redis) -> None:
    async def use(limiter: RateLimiter, _: RateLimiter, clock: StoppedClock) -> None:
        clock.moment += MINUTE / 2
        assert admitted(limiter, "ann", 10, 20) == 10
        with pytest.raises(RateLimited) as refusal:
            limiter.admit("ann", 10)
        clock.moment += timedelta(seconds=refusal.value.retry_seconds)
        assert admitted(limiter, "ann", 10, 20) == 1
        clock.moment += MINUTE / 2
        assert admitted(limiter, "ann", 10, 20) == 5
        clock.moment += 3 * MINUTE
        assert admitted(limiter, "ann", 10, 20) == 10

    with_limiters(settings, use)


def test_who_asks_seldom_costs_redis_nothing(settings: Settings, redis_client: redis.Redis) -> None:
    async def use(limiter: RateLimiter, _: RateLimiter, clock: StoppedClock) -> None:
        for number in range(50):
            limiter.admit(f"user{number}", 100)
        await limiter.tell()
        assert redis_client.keys("onsale:tally:*") == []
        assert admitted(limiter, "ann", 100, 10) == 10
        await limiter.tell()
        [key] = redis_client.keys("onsale:tally:*")
        assert redis_client.hgetall(key) == {b"ann": b"10"}
        assert 0 < redis_client.ttl(key) <= 2 * limits.RATE_WINDOW_SECONDS

    with_limiters(settings, use)


def test_the_callers_that_are_remembered_are_bounded(
    settings: Settings, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RATE_CALLERS_MAX", 5)

    async def use(limiter: RateLimiter, _: RateLimiter, clock: StoppedClock) -> None:
        assert admitted(limiter, "ann", 20, 20) == 20
        for number in range(50):
            limiter.admit(f"user{number}", 20)
        assert len(limiter._present.counts) <= 6
        assert admitted(limiter, "ann", 20, 1) == 0

    with_limiters(settings, use)


def test_without_redis_each_process_counts_alone(settings: Settings, redis_client: redis.Redis) -> None:
    nowhere = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0", "redis_timeout_seconds": 0.2})

    async def use(limiter: RateLimiter, _: RateLimiter, clock: StoppedClock) -> None:
        assert admitted(limiter, "ann", 10, 6) == 6
        with pytest.raises(LineUnavailable):
            await limiter.tell()
        assert admitted(limiter, "ann", 10, 20) == 4

    with_limiters(nowhere, use)


def test_who_asks_is_told_by_itself_also_after_a_rest_and_after_a_failure(
    settings: Settings, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at once are more than one telling takes."""
    monkeypatch.setattr(limits, "RATE_SYNC_SECONDS", 0.01)
    monkeypatch.setattr(limits, "RATE_TOLD_AT_ONCE_MAX", 1)
    add, failures = Tallies.add, [LineUnavailable("Redis: away")]

    async def fail_once(tallies: Tallies, *arguments: Any, **options: Any) -> dict[str, int]:
        if failures:
            raise failures.pop()
        return await add(tallies, *arguments, **options)

    monkeypatch.setattr(Tallies, "add", fail_once)

    def told() -> list[Any]:
        return [redis_client.hgetall(key) for key in redis_client.keys("onsale:tally:*")]

    async def use(limiter: RateLimiter, _: RateLimiter, clock: StoppedClock) -> None:
        limiter.start()
        for expected in ({b"ann": b"2", b"bob": b"2"}, {b"ann": b"4", b"bob": b"4"}):
            assert admitted(limiter, "ann", 10, 2) == 2
            assert admitted(limiter, "bob", 10, 2) == 2
            async with asyncio.timeout(PATIENCE_SECONDS):
                while told() != [expected]:
                    await asyncio.sleep(0.01)
            assert not failures
            await asyncio.sleep(0.1)
        await limiter.stop()

    with_limiters(settings, use)
