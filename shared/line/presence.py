"""A worker's entry in RQ's list of workers, kept by hand because its queue changes with every claim."""

from __future__ import annotations

import os
import platform
import socket
from typing import Any, cast

import redis
from rq.version import VERSION

from shared.clock import Clock, format_time
from shared.identifiers import new_id
from shared.line import keys
from shared.line.connections import line_errors


def worker_name_of_this_host() -> str:
    """A name for a worker of this host, never used twice.

    RQ refuses the name of a worker that was killed until its entry expires.
    """
    return f"{_names_of_this_host()}{os.getpid()}-{new_id()[-6:]}"


def is_worker_alive_on_this_host(client: redis.Redis) -> bool:
    """Whether RQ's list has a worker of this host; one that is silent leaves it after its time to live.

    Raises:
        LineUnavailable: Redis does not answer.
    """
    with line_errors():
        workers = cast(set[bytes], client.smembers(keys.RQ_WORKERS))
        prefix = (keys.RQ_WORKER + _names_of_this_host()).encode()
        return any(client.exists(key) for key in workers if key.startswith(prefix))


def _names_of_this_host() -> str:
    return f"{socket.gethostname()}-"


class Presence:
    """Shows one worker in `rq info` and the dashboard. Calls raise `LineUnavailable`.

    `current_job` is left unset: a batch has many, and rq-dashboard fails on one that it can't load.
    """

    def __init__(self, client: redis.Redis, clock: Clock, *, worker_name: str, ttl_seconds: int) -> None:
        self._client = client
        self._clock = clock
        self._key = keys.RQ_WORKER + worker_name
        self._ttl_seconds = ttl_seconds
        self._birth = format_time(clock.now())

    def heartbeat(self, *, applied: int, failed: int, working_seconds: float) -> None:
        """Say that the worker lives, and what it has done since its birth."""
        fields: dict[Any, Any] = {
            "birth": self._birth,
            "last_heartbeat": format_time(self._clock.now()),
            "pid": os.getpid(),
            "hostname": socket.gethostname(),
            "ip_address": "",
            "version": VERSION,
            "python_version": platform.python_version(),
            "successful_job_count": applied,
            "failed_job_count": failed,
            "total_working_time": working_seconds,
        }
        with line_errors(), self._client.pipeline(transaction=False) as pipeline:
            pipeline.hset(self._key, mapping=fields)
            pipeline.hsetnx(self._key, "state", "idle")
            pipeline.hsetnx(self._key, "queues", "")
            pipeline.expire(self._key, self._ttl_seconds)
            pipeline.sadd(keys.RQ_WORKERS, self._key)
            pipeline.execute()

    def leave(self) -> None:
        """Take the worker off the lists."""
        with line_errors(), self._client.pipeline(transaction=False) as pipeline:
            queue = cast(bytes | None, self._client.hget(self._key, "queues"))
            if queue:
                pipeline.srem(keys.RQ_WORKERS_OF_QUEUE + queue.decode(), self._key)
            pipeline.srem(keys.RQ_WORKERS, self._key)
            pipeline.delete(self._key)
            pipeline.execute()
