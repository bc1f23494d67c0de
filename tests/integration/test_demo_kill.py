"""Which worker the demo kills: the one that has the line in hand, and none that it should not."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest
import redis

from demo.product import OwnProduct
from shared.identifiers import new_id
from shared.line.keys import EVENT, RQ_WORKER, RQ_WORKERS
from shared.settings import Settings

Pretend = Callable[[str, str], subprocess.Popen[bytes]]


@pytest.fixture
def pretend(redis_client: redis.Redis) -> Iterator[Pretend]:
    """Starts processes that RQ lists as workers of a queue."""
    started = []

    def start(name: str, queue: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["sleep", "60"])
        started.append(process)
        redis_client.hset(RQ_WORKER + name, mapping={"pid": process.pid, "queues": queue})
        redis_client.sadd(RQ_WORKERS, RQ_WORKER + name)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_the_worker_that_holds_the_line_is_killed_and_no_other(
    settings: Settings, redis_client: redis.Redis, pretend: Pretend
) -> None:
    event_id = new_id()
    idle, busy = pretend("a", ""), pretend("b", f"event:{event_id}")
    redis_client.hset(EVENT + event_id, "consumer", "b")
    product = OwnProduct(url="", redis_url=settings.redis_url)
    assert product.kill_worker(event_id, or_an_idle_one=False) == f"worker {busy.pid} killed (SIGKILL)"
    assert busy.wait(10) == -signal.SIGKILL
    assert idle.poll() is None


def test_while_nobody_has_the_line_none_is_killed_or_at_last_any_but_that_of_webhooks(
    settings: Settings, pretend: Pretend
) -> None:
    event_id = new_id()
    webhooks, idle = pretend("a", "webhooks"), pretend("b", "")
    product = OwnProduct(url="", redis_url=settings.redis_url)
    assert product.kill_worker(event_id, or_an_idle_one=False) is None
    assert idle.poll() is None
    assert product.kill_worker(event_id, or_an_idle_one=True) == f"worker {idle.pid} killed (SIGKILL)"
    assert idle.wait(10) == -signal.SIGKILL
    assert webhooks.poll() is None
