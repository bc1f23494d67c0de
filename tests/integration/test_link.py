"""The connections to Redis for what is said all the time: every answer reaches the one who asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
import redis
import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from local.ports import free_port
from shared.line.blocking_link import BlockingLink
from shared.line.connections import connect_async
from shared.line.link import Link, Subscription
from shared.line.scripts import ScriptName
from shared.settings import Settings

Result = TypeVar("Result")

NOTHING = [0, []]
"""What is at the head of a line that is empty."""


@pytest.fixture(params=["2", "3"])
def redis_url(request: pytest.FixtureRequest, settings: Settings, redis_client: redis.Redis) -> str:
    """Redis, spoken to by both versions of its protocol."""
    return f"{settings.redis_url}?protocol={request.param}"


def with_client(redis_url: str, use: Callable[[redis.asyncio.Redis], Awaitable[Result]]) -> Result:
    """Run something with a client, in an event loop of its own."""

    async def run() -> Result:
        settings = Settings(database_url="postgresql://nowhere", redis_url=redis_url)
        client = connect_async(settings)
        try:
            return await asyncio.wait_for(use(client), 30)
        finally:
            await client.aclose()

    return asyncio.run(run())


def kill_all(redis_client: redis.Redis) -> None:
    redis_client.client_kill_filter(skipme=True)


def test_each_of_many_gets_its_own_answer(redis_url: str) -> None:
    async def use(client: redis.asyncio.Redis) -> None:
        link = Link(client, seconds_max=5)
        answers = await asyncio.gather(*(link.ask(("ECHO", number)) for number in range(500)))
        assert answers == [[str(number).encode()] for number in range(500)]
        assert await link.ask(("ECHO", "one"), ("ECHO", b"two"), ("INCR", "counter")) == [b"one", b"two", 1]

    with_client(redis_url, use)


def test_an_answer_may_come_in_many_pieces(redis_url: str) -> None:
    async def use(client: redis.asyncio.Redis) -> None:
        long = b"x" * 3_000_000
        assert await Link(client, seconds_max=5).ask(("ECHO", long), ("ECHO", "short")) == [long, b"short"]

    with_client(redis_url, use)


def test_an_error_reaches_who_asked_and_nobody_else(redis_url: str) -> None:
    async def use(client: redis.asyncio.Redis) -> None:
        link = Link(client, seconds_max=5)
        asked = [
            asyncio.create_task(link.ask(*commands))
            for commands in ([("ECHO", 1), ("LPOP",)], [("EVALSHA", "0" * 40, 0)], [("ECHO", 2)])
        ]
        await asyncio.wait(asked)
        wrong, unknown, right = asked
        assert type(wrong.exception()) is ResponseError
        assert type(unknown.exception()) is NoScriptError
        assert right.result() == [b"2"]

    with_client(redis_url, use)


def test_a_lost_connection_is_opened_again(redis_url: str, redis_client: redis.Redis) -> None:
    async def use(client: redis.asyncio.Redis) -> None:
        link = Link(client, seconds_max=5)
        for number in range(5):
            assert await link.ask(("ECHO", number)) == [str(number).encode()]
            kill_all(redis_client)

    with_client(redis_url, use)


def test_what_was_on_its_way_when_the_connection_was_lost_is_sent_again(
    redis_url: str, redis_client: redis.Redis
) -> None:
    async def use(client: redis.asyncio.Redis) -> None:
        link = Link(client, seconds_max=5)
        asked = asyncio.create_task(link.ask(("BLPOP", "things", 0)))
        while not redis_client.info("clients")["blocked_clients"]:
            await asyncio.sleep(0.01)
        kill_all(redis_client)
        while not redis_client.info("clients")["blocked_clients"]:
            await asyncio.sleep(0.01)
        redis_client.rpush("things", "one")
        assert await asked == [[b"things", b"one"]]

    with_client(redis_url, use)


def test_an_answer_that_comes_too_late_is_nobody_elses(redis_url: str, redis_client: redis.Redis) -> None:
    async def use(client: redis.asyncio.Redis) -> None:
        link = Link(client, seconds_max=0.2)
        with pytest.raises(RedisTimeoutError):
            await link.ask(("BLPOP", "things", 0))
        redis_client.rpush("things", "late")
        assert await link.ask(("ECHO", "right")) == [b"right"]

    with_client(redis_url, use)


def test_each_question_has_its_own_time(redis_url: str) -> None:
    """Also one that was asked while the timer ran for another, which has its answer."""

    async def use(client: redis.asyncio.Redis) -> None:
        link = Link(client, seconds_max=0.3)
        await link.ask(("ECHO", "first"))
        await asyncio.sleep(0.1)
        with pytest.raises(RedisTimeoutError):
            await asyncio.wait_for(link.ask(("BLPOP", "things", 0)), 10)

    with_client(redis_url, use)


def test_who_does_not_wait_for_an_answer_takes_it_from_nobody(redis_url: str) -> None:
    async def use(client: redis.asyncio.Redis) -> None:
        link = Link(client, seconds_max=5)
        [connection] = await link.ask(("CLIENT", "ID"))
        given_up = asyncio.create_task(link.ask(("ECHO", "given up")))
        await asyncio.sleep(0)
        given_up.cancel()
        assert await link.ask(("ECHO", "wanted"), ("CLIENT", "ID")) == [b"wanted", connection]

    with_client(redis_url, use)


def test_what_redis_says_unasked_is_no_answer(settings: Settings, redis_client: redis.Redis) -> None:
    async def use(client: redis.asyncio.Redis) -> None:
        link = Link(client, seconds_max=5)
        await link.ask(("CLIENT", "TRACKING", "ON"), ("GET", "thing"))
        redis_client.set("thing", "changed")
        assert await link.ask(("ECHO", "asked")) == [b"asked"]

    with_client(f"{settings.redis_url}?protocol=3", use)


def test_a_redis_that_is_away_is_said_to_be_away() -> None:
    async def use(client: redis.asyncio.Redis) -> None:
        link = Link(client, seconds_max=1)
        for _ in range(2):
            with pytest.raises(RedisError):
                await link.ask(("PING",))

    with_client(f"redis://127.0.0.1:{free_port()}/0", use)


def test_a_subscription_receives_from_the_moment_that_it_stands(
    redis_url: str, redis_client: redis.Redis
) -> None:
    async def use(client: redis.asyncio.Redis) -> None:
        received: list[bytes] = []
        subscription = await Subscription.open(client, received.append)
        await subscription.subscribe("news", seconds_max=5)
        assert redis_client.publish("news", "first") == 1
        redis_client.publish("news", b"x" * 300_000)
        while len(received) < 2:
            await asyncio.sleep(0.01)
        assert received == [b"first", b"x" * 300_000]
        kill_all(redis_client)
        with pytest.raises(RedisConnectionError):
            await subscription.wait_until_lost()
        await subscription.give_back()
        assert await client.ping()

    with_client(redis_url, use)


def test_a_subscription_that_is_not_answered_in_time_is_lost(
    redis_url: str, redis_client: redis.Redis
) -> None:
    async def use(client: redis.asyncio.Redis) -> None:
        subscription = await Subscription.open(client, lambda _: None)
        redis_client.client_pause(1_000)
        with pytest.raises(RedisTimeoutError):
            await subscription.subscribe("news", seconds_max=0.2)
        await subscription.give_back()

    with_client(redis_url, use)


def test_a_worker_calls_scripts_that_redis_has_forgotten_and_over_connections_that_were_lost(
    redis_url: str, redis_client: redis.Redis
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        link = BlockingLink(client)
        assert link.call(ScriptName.PEEK, "event", 10) == NOTHING
        redis_client.script_flush()
        assert link.call(ScriptName.PEEK, "event", 10) == NOTHING
        kill_all(redis_client)
        assert link.call(ScriptName.PEEK, "event", 10) == NOTHING
        with pytest.raises(ResponseError):
            link.call(ScriptName.PEEK)
        assert link.call(ScriptName.PEEK, "event", 10) == NOTHING
