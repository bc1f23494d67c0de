"""The Onsale that the buyers go to: one that runs, or `make up` on fresh data for the time of the demo."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httpx
import redis

from bench.options import scratch
from bench.processes import Process, running
from demo.errors import DemoError
from demo.options import BUYERS_MAX
from local.ports import free_port
from shared.line.keys import EVENT, QUEUE_NAME_PREFIX, RQ_WORKER, RQ_WORKERS

LOOK_SECONDS_MAX = 3.0
START_SECONDS_MAX = 120.0
POLL_SECONDS = 0.1
REDIS_SECONDS_MAX = 2.0
LOG_TAIL_CHARACTERS = 2_000
READY = "onsale: ready"
"""What `make up` says when all is running."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnProduct:
    """An Onsale that runs for this demo alone."""

    url: str
    redis_url: str

    def kill_worker(self, event_id: str, *, or_an_idle_one: bool) -> str | None:
        """SIGKILL for the worker that has the event's line in hand; gives what was done, None if nothing.

        Between two turns nobody has the line, and Redis may be too busy to say who.
        """
        client = redis.Redis.from_url(self.redis_url, socket_timeout=REDIS_SECONDS_MAX, decode_responses=True)
        try:
            pid = _kill_consumer(client, event_id)
            if pid is None and or_an_idle_one:
                pid = _kill_any(client)
        except (redis.RedisError, ProcessLookupError):
            return None
        finally:
            client.close()
        return None if pid is None else f"worker {pid} killed (SIGKILL)"


def _kill_consumer(client: redis.Redis, event_id: str) -> int | None:
    """Kill the worker that holds the claim on an event; gives its process id."""
    name = cast(str | None, client.hget(EVENT + event_id, "consumer"))
    pid = None if name is None else cast(str | None, client.hget(RQ_WORKER + name, "pid"))
    if pid is None:
        return None
    # Frozen, so that it can't be done with its turn between the look and the blow.
    os.kill(int(pid), signal.SIGSTOP)
    still_holds = False
    try:
        still_holds = client.hget(EVENT + event_id, "consumer") == name
    finally:
        os.kill(int(pid), signal.SIGKILL if still_holds else signal.SIGCONT)
    return int(pid) if still_holds else None


def _kill_any(client: redis.Redis) -> int | None:
    """Kill a worker of events, as RQ lists them beside those of webhooks."""
    for key in sorted(cast(set[str], client.smembers(RQ_WORKERS))):
        pid, queue = cast(list[str | None], client.hmget(key, "pid", "queues"))
        if pid is not None and (not queue or queue.startswith(QUEUE_NAME_PREFIX)):
            os.kill(int(pid), signal.SIGKILL)
            return int(pid)
    return None


def find_running(url: str) -> bool:
    """Whether an Onsale answers there.

    Raises:
        DemoError: it answers that it can't accept commands.
    """
    try:
        answer = httpx.get(f"{url}/ready", timeout=LOOK_SECONDS_MAX, trust_env=False)
        said = answer.json()
    except (httpx.TransportError, ValueError):
        return False
    if not isinstance(said, dict) or "durability" not in said:
        return False
    if answer.status_code != httpx.codes.OK:
        raise DemoError(f"the Onsale at {url} is not ready: {answer.text}")
    return True


@contextmanager
def own_product(workers: int) -> Iterator[OwnProduct]:
    """An Onsale with fresh data on free ports, for the length of the block.

    Raises:
        DemoError: it could not be started.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with scratch() as directory:
        data, log = directory / "data", directory / "onsale.log"
        environment = _environment(workers, port, data)
        with running([sys.executable, "-m", "local"], environment, log) as process:
            _await_ready(process, log)
            servers = _read_environment(data / "environment")
            yield OwnProduct(url=url, redis_url=servers["REDIS_URL"])


def _environment(workers: int, port: int, data: Path) -> dict[str, str]:
    """What `make up` is set to; what is empty counts as not set."""
    return {
        "WORKERS": str(workers),
        "API_HOST": "127.0.0.1",
        "API_PORT": str(port),
        "DASHBOARD_PORT": str(free_port()),
        "ONSALE_DATA_DIRECTORY": str(data),
        "ONSALE_AUTH": "off",
        "ONSALE_WAITERS_MAX": str(BUYERS_MAX),
        "DATABASE_URL": "",
        "REDIS_URL": "",
    }


def _await_ready(process: Process, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while READY not in (said := log.read_text(errors="replace")):
        if process.poll() is not None or time.monotonic() > deadline:
            raise DemoError(f"Onsale could not be started:\n{said[-LOG_TAIL_CHARACTERS:].strip()}")
        time.sleep(POLL_SECONDS)


def _read_environment(path: Path) -> dict[str, str]:
    """Where its servers are; it writes that down before it says that it is ready."""
    assignments = (shlex.split(line.removeprefix("export "))[0] for line in path.read_text().splitlines())
    return {name: value for name, _, value in (each.partition("=") for each in assignments)}
