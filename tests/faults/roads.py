"""The roads of a worker and of an API process, made so that they pass every kind of boundary."""

from __future__ import annotations

import socket
from multiprocessing.connection import Connection
from typing import Any

import redis
import uvicorn
from starlette.responses import JSONResponse

import api.main
from api.http_protocol import HttpProtocol
from shared.clock import SystemClock
from shared.database.engine import Database
from shared.line import connections
from shared.line.codec import book_payload, cancel_payload
from shared.line.connections import connect
from shared.line.consumer import Claim, Consumer, Sleeper
from shared.line.presence import Presence
from shared.line.producer import Submission
from shared.settings import Settings
from tests.builders import seed, submission, submit, with_producer
from tests.faults.boundaries import (
    Action,
    Boundaries,
    kill_at,
    no_action,
    watch_async_redis,
    watch_database,
    watch_link,
    watch_redis,
)
from worker.consume import Worker
from worker.stretch import DATABASE_CONNECTIONS_MAX


class StopWhenIdle(Sleeper):
    """Ends its worker when there is nothing left to do, after one wait or at once."""

    worker: Worker
    at_once = False

    def wait(self, consumer: Consumer) -> Claim | None:
        claim = None if self.at_once else super().wait(consumer)
        if claim is None:
            self.worker.stop()
        return claim


def watched_worker(
    settings: Settings, boundaries: Boundaries, *, name: str, wait_when_idle: bool = True
) -> tuple[Worker, Database, list[redis.Redis]]:
    """A worker whose boundaries are counted from its first request on, and what is to be closed after it."""
    database = Database(settings, connections_max=DATABASE_CONNECTIONS_MAX)
    watch_database(database, boundaries)
    client = connect(settings)
    watch_redis(client, boundaries)
    waiting = connect(settings, blocking_seconds=settings.idle_wait_seconds)
    sleeper = StopWhenIdle(waiting, idle_wait_seconds=settings.idle_wait_seconds)
    sleeper.at_once = not wait_when_idle
    clock = SystemClock()
    sleeper.worker = Worker(
        database,
        Consumer(client, settings, worker_name=name),
        sleeper,
        Presence(client, clock, worker_name=name, ttl_seconds=settings.worker_ttl_seconds),
        clock,
        settings,
    )
    boundaries.watching = True
    return sleeper.worker, database, [client, waiting]


def run_worker(settings: Settings, action: Action) -> list[str]:
    """Let a worker work until nothing is left; gives the boundaries that it passed."""
    boundaries = Boundaries(action)
    worker, database, clients = watched_worker(settings, boundaries, name="watched")
    worker.run()
    # The worker and its sleeper know each other, so nothing is closed by itself when they are gone.
    for client in clients:
        client.close()
    database.close()
    return boundaries.names


def run_worker_until_killed(settings: Settings, number: int) -> None:
    """What the process does that is ended at a boundary."""
    run_worker(settings, kill_at(number))


def prepare_line(settings: Settings, client: redis.Redis, event: Any) -> list[Submission]:
    """Small batches for an event with three tickets, with a stray before them; the last is from memory.

    Bookings, refusals, cancellations within a batch and across, a withdrawn and a spoilt command.
    """
    seed(settings, event)
    first = submission(event.id, book_payload("ann", 2))
    commands = [
        first,
        submission(event.id, book_payload("bob", 1)),
        submission(event.id, book_payload("cid", 1)),
        submission(event.id, cancel_payload(first.job_id)),
        submission(event.id, book_payload("ann", 1)),
        submission(event.id, cancel_payload(first.job_id)),
        submission(event.id, book_payload("dan", 1)),
        submission(event.id, book_payload("bob", 2)),
        submission(event.id, book_payload("eve", 1)),
    ]
    submit(settings, commands)
    with_producer(settings, lambda producer: producer.withdraw(commands[6].job_id))
    client.hset(f"rq:job:{commands[5].job_id}", "data", "spoilt")
    client.lpush(f"rq:queue:event:{event.id}", "a-stray")
    return commands


def run_api(settings: Settings, number: int | None, port_to: Connection) -> None:
    """What an API process does that is ended at a boundary. `/boundaries` gives those that it has passed."""
    boundaries = Boundaries(no_action if number is None else kill_at(number))
    watched_app = _watched_app(settings, boundaries)
    protocol = _watched_protocol(boundaries)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(watched_app, http=protocol, log_level="error", lifespan="on"))
    port_to.send(listener.getsockname()[1])
    server.run(sockets=[listener])


def _watched_app(settings: Settings, boundaries: Boundaries) -> Any:
    def connect_watched(settings: Settings) -> Any:
        client = connections.connect_async(settings)
        watch_async_redis(client, boundaries)
        return client

    def watched_database(settings: Settings, *, connections_max: int) -> Database:
        database = Database(settings, connections_max=connections_max)
        watch_database(database, boundaries)
        return database

    watch_link(boundaries)
    api.main.connect_async = connect_watched  # type: ignore[attr-defined]
    api.main.Database = watched_database  # type: ignore[attr-defined, assignment]
    app = api.main.create_app(settings)

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/boundaries":
            await JSONResponse(boundaries.names)(scope, receive, send)
        else:
            await app(scope, receive, send)

    return watched


def _watched_protocol(boundaries: Boundaries) -> type[HttpProtocol]:
    class WatchedProtocol(HttpProtocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(_WatchedTransport(transport, boundaries))  # type: ignore[arg-type]

        def _start_asgi_task(self, cycle: Any, app: Any) -> None:
            boundaries.watching = cycle.scope["path"].endswith("/bookings")
            boundaries.cut_at("after a request")
            super()._start_asgi_task(cycle, app)

    return WatchedProtocol


class _WatchedTransport:
    def __init__(self, transport: Any, boundaries: Boundaries) -> None:
        self._transport = transport
        self._boundaries = boundaries

    def write(self, data: bytes) -> None:
        self._boundaries.cut_at("before an answer")
        self._transport.write(data)
        self._boundaries.cut_at("after an answer")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
