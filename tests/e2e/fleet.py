"""API processes and workers that come and go, as when containers are scaled and replaced."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from uuid import uuid4

import httpx

from local.servers import free_port
from shared.database.roles import API, WORKER
from shared.settings import Settings
from tests.builders import wait_until
from tests.storm.cluster import Program

RETRIES_MAX = 200
RETRY_SECONDS = 0.05
READY_LOOK_SECONDS = 0.1
REQUEST_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 60.0


class Fleet:
    """Processes that are started and stopped one by one."""

    def __init__(self, settings: Settings, logins: dict[str, str], folder: Path, **more: str) -> None:
        self._settings = settings
        self._logins = logins
        self._folder = folder
        self._more = more
        self._numbers = count(1)
        self.programs: list[Program] = []

    def start_worker(self) -> Program:
        """A worker more."""
        return self._start(["-m", "worker"], WORKER)

    def start_api(self, port: int) -> Program:
        """An API process, ready to serve."""
        program = self._start(["-m", "api", "serve", "--port", str(port)], API)
        wait_until(lambda: is_ready(port))
        return program

    def _start(self, arguments: list[str], role: str) -> Program:
        environment = {
            **os.environ,
            **self._more,
            "DATABASE_URL": self._logins[role],
            "REDIS_URL": self._settings.redis_url,
        }
        name = f"{arguments[1].replace('.', '-')}-{next(self._numbers)}"
        program = Program(name, [sys.executable, *arguments], environment, self._folder / f"{name}.log")
        program.start()
        self.programs.append(program)
        return program

    def close(self) -> None:
        """Stop all of them."""
        for program in self.programs:
            program.stop()


def retire(program: Program) -> None:
    """Ask a process to end, as an orchestrator does, and wait until it has."""
    program.signal(signal.SIGTERM)
    assert program.process is not None
    # uvicorn ends by the signal itself when it has done all that it had to.
    assert program.process.wait(STOP_SECONDS_MAX) in (0, -signal.SIGTERM)


@contextmanager
def fleet(settings: Settings, logins: dict[str, str], folder: Path, **more: str) -> Iterator[Fleet]:
    """Processes with short waits; all are stopped at the end. `more` are environment variables."""
    short = {
        "ONSALE_LEASE_SECONDS": "2",
        "ONSALE_IDLE_WAIT_SECONDS": "0.2",
        "ONSALE_SWEEP_SECONDS": "1",
        "ONSALE_LOG_LEVEL": "warning",
    }
    started = Fleet(settings, logins, folder, **{**short, **more})
    try:
        yield started
    finally:
        started.close()


def is_ready(port: int) -> bool:
    """Whether the API at this port wants requests."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/ready", timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


class Balancer:
    """Knows which API processes want requests, as a load balancer does: it asks `/ready` again and again."""

    def __init__(self, ports: list[int]) -> None:
        self._ports = ports
        self.ready = list(ports)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._stopping.wait(READY_LOOK_SECONDS):
            self.ready = [port for port in self._ports if is_ready(port)]

    def close(self) -> None:
        """Ask no more."""
        self._stopping.set()
        self._thread.join()


class Buyers:
    """Clients that book all the time; a booking has a key, and is sent again only if its connection broke."""

    def __init__(self, balancer: Balancer, event_ids: list[str], *, clients: int, prefer: str = "") -> None:
        self._balancer = balancer
        self._event_ids = event_ids
        self._prefer = {"Prefer": prefer} if prefer else {}
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(clients)
        self.sent_again = 0
        self.failures: list[str] = []
        self.accepted: list[str] = []
        self._clients = [self._pool.submit(self._buy, number) for number in range(clients)]

    def stop(self) -> None:
        """Let each finish what it has begun."""
        self._stopping.set()
        for client in self._clients:
            client.result()
        self._pool.shutdown()

    def _buy(self, number: int) -> None:
        with httpx.Client(timeout=REQUEST_SECONDS_MAX) as client:
            for place in count():
                if self._stopping.is_set():
                    return
                event_id = self._event_ids[(number + place) % len(self._event_ids)]
                self._book(client, event_id, f"user-{number}-{place}")

    def _book(self, client: httpx.Client, event_id: str, user: str) -> None:
        headers = {"Idempotency-Key": str(uuid4()), **self._prefer}
        for attempt in range(RETRIES_MAX):
            ready = self._balancer.ready
            if ready:
                url = f"http://127.0.0.1:{ready[attempt % len(ready)]}/events/{event_id}/bookings"
                try:
                    answer = client.post(url, json={"user_id": user, "ticket_count": 1}, headers=headers)
                except httpx.TransportError:
                    self.sent_again += 1
                else:
                    self._note(answer)
                    return
            self._stopping.wait(RETRY_SECONDS)
        self.failures.append(f"{user}: no answer")

    def _note(self, answer: httpx.Response) -> None:
        if answer.status_code in (httpx.codes.ACCEPTED, httpx.codes.CREATED):
            self.accepted.append(answer.json()["id"])
        else:
            self.failures.append(f"{answer.status_code}: {answer.text}")


@contextmanager
def buying(ports: list[int], event_ids: list[str], *, clients: int, prefer: str = "") -> Iterator[Buyers]:
    """Buyers for the length of the block."""
    balancer = Balancer(ports)
    buyers = Buyers(balancer, event_ids, clients=clients, prefer=prefer)
    try:
        yield buyers
    finally:
        buyers.stop()
        balancer.close()


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on."""
    return [free_port() for _ in range(number)]


def await_more(read: Callable[[], int], more: int) -> None:
    """Wait until a count has grown."""
    before = read()
    wait_until(lambda: read() >= before + more)


def await_less(read: Callable[[], int]) -> None:
    """Wait until a count has shrunk."""
    before = read()
    wait_until(lambda: read() < before)
