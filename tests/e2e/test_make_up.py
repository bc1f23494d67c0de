"""The whole product as a person runs it: real processes, real servers, faults included."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import psycopg2
import pytest

from local.servers import free_port
from tests.builders import own_client, wait_until

StartProduct = Callable[..., "Product"]


class Product:
    """One running `python -m local`."""

    def __init__(self, project_root: Path, data_directory: Path, **variables: str) -> None:
        self.api_port = free_port()
        self.dashboard_port = free_port()
        self.project_root = project_root
        self.data_directory = data_directory
        self.log = data_directory.with_name(f"output-{self.api_port}.log")
        environment = {
            name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")
        } | {
            "API_PORT": str(self.api_port),
            "DASHBOARD_PORT": str(self.dashboard_port),
            "ONSALE_DATA_DIRECTORY": str(data_directory),
            **variables,
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "local"],
                cwd=project_root,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.api_port}", timeout=30)

    def wait_until_ready(self) -> None:
        wait_until(lambda: "onsale: ready" in self.log.read_text() or self.process.poll() is not None, 60)
        assert self.process.poll() is None, self.log.read_text()

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def worker(self) -> psutil.Process:
        """One of the workers; the webhooks process is none."""
        return self.child("-m", "worker", without="webhooks")

    def child(self, *words: str, without: str = "…") -> psutil.Process:
        """A direct child whose command line has all these words, and not the other one."""
        for process in psutil.Process(self.process.pid).children():
            # One that was just killed is a zombie until the supervisor looks.
            with contextlib.suppress(psutil.ZombieProcess, psutil.NoSuchProcess):
                command = " ".join(process.cmdline())
                if all(word in command for word in words) and without not in command:
                    return process
        raise AssertionError(f"no child with {words}")

    def database_url(self) -> str:
        line = (self.data_directory / "environment").read_text().splitlines()[0]
        [assignment] = shlex.split(line.removeprefix("export "))
        return assignment.partition("=")[2]

    def end(self, with_signal: signal.Signals = signal.SIGINT) -> int:
        """Stop it and make sure that nothing of it is left."""
        family = self.children() if self.process.poll() is None else []
        self.process.send_signal(with_signal)
        status = self.process.wait(60)
        _, alive = psutil.wait_procs(family, timeout=20)
        assert alive == []
        return status

    def make_event(self, total_tickets: int) -> str:
        answer = self.client.post("/events", json={"name": "Test Event", "total_tickets": total_tickets})
        return str(answer.json()["id"])

    def book(self, event_id: str, user_id: str, ticket_count: int = 1, wait: int = 20) -> httpx.Response:
        """Each with a connection of its own, as buyers have."""
        with own_client(self.client) as own:
            return own.post(
                f"/events/{event_id}/bookings",
                json={"user_id": user_id, "ticket_count": ticket_count},
                headers={"Prefer": f"wait={wait}"} if wait else {},
            )

    def cancel(self, booking_id: str) -> httpx.Response:
        with own_client(self.client) as own:
            return own.delete(f"/bookings/{booking_id}", headers={"Prefer": "wait=20"})

    def verify(self) -> int:
        command = [sys.executable, "-m", "worker", "verify"]
        environment = os.environ | {"DATABASE_URL": self.database_url(), "REDIS_URL": "redis://unused"}
        return subprocess.run(command, cwd=self.project_root, env=environment, timeout=60).returncode

    def balance(self, event_id: str) -> tuple[int, int, int, int]:
        """Sold by the counter, tickets of active bookings, ledger rows, newest position."""
        with psycopg2.connect(self.database_url()) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT total_tickets - available_tickets, applied_position,"
                " (SELECT coalesce(sum(ticket_count), 0) FROM bookings"
                "   WHERE event_id = events.id AND status = 'active'),"
                " (SELECT count(*) FROM ledger WHERE event_id = events.id)"
                " FROM events WHERE id = %s",
                (event_id,),
            )
            row = cursor.fetchone()
        connection.close()
        assert row is not None
        sold, position, active, rows = row
        return sold, active, rows, position


def sell_fifty_to_two_hundred(product: Product) -> None:
    """Two hundred rush at once; some of those who get a ticket give it back while others still book."""
    event_id = product.make_event(50)

    def visit(number: int) -> tuple[int, int | None]:
        booked = product.book(event_id, f"user{number}")
        if booked.status_code == 201 and number % 4 == 0:
            return booked.status_code, product.cancel(booked.json()["id"]).status_code
        return booked.status_code, None

    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(visit, range(200)))
    booked = sum(1 for status, _ in answers if status == 201)
    cancelled = sum(1 for _, status in answers if status == 200)
    assert {status for status, _ in answers} == {201, 400}
    assert {status for _, status in answers} == {200, None}
    sold = booked - cancelled
    assert product.balance(event_id) == (sold, sold, 200 + cancelled, 200 + cancelled)
    assert sold <= 50 <= booked
    assert product.verify() == 0


@pytest.fixture
def start_product(project_root: Path, tmp_path: Path) -> Iterator[StartProduct]:
    running: list[Product] = []

    def start(**variables: str) -> Product:
        product = Product(project_root, tmp_path / "data", **variables)
        running.append(product)
        return product

    yield start
    for product in running:
        product.client.close()
        if product.process.poll() is None:
            product.end()


def test_fifteen_want_ten_tickets_and_two_hundred_want_fifty(start_product: StartProduct) -> None:
    product = start_product(WORKERS="4")
    product.wait_until_ready()
    event_id = product.make_event(10)
    with ThreadPoolExecutor(15) as pool:
        answers = list(pool.map(lambda i: product.book(event_id, f"user{i}"), range(15)))
    assert Counter(answer.status_code for answer in answers) == {201: 10, 400: 5}
    assert product.client.get(f"/events/{event_id}").json()["available_tickets"] == 0

    for _ in range(3):
        sell_fifty_to_two_hundred(product)

    dashboard = httpx.get(f"http://127.0.0.1:{product.dashboard_port}/0/data/workers.json").json()
    names = sorted(name for worker in dashboard["workers"] for name in worker["queues"])
    assert (len(dashboard["workers"]), names[-2:]) == (4 + 2, ["webhooks", "webhooks-slow"])
    assert product.end(signal.SIGINT) == 0
    assert not (product.data_directory / "environment").exists()


def test_data_survive_a_restart_and_waiting_commands_too(start_product: StartProduct) -> None:
    product = start_product(WORKERS="1")
    product.wait_until_ready()
    event_id = product.make_event(10)
    assert product.book(event_id, "ann").status_code == 201
    worker = product.worker()
    worker.suspend()
    waiting = product.book(event_id, "bob", 2, wait=0).json()
    worker.kill()
    assert product.end(signal.SIGTERM) == 0

    again = start_product(WORKERS="1")
    again.wait_until_ready()
    job = again.client.get(f"/jobs/{waiting['id']}", headers={"Prefer": "wait=20"}).json()
    assert job["status"] == "succeeded"
    assert again.client.get(f"/events/{event_id}").json()["available_tickets"] == 7


def test_killed_and_frozen_processes_cost_time_but_nothing_else(start_product: StartProduct) -> None:
    product = start_product(WORKERS="2", ONSALE_LEASE_SECONDS="1")
    product.wait_until_ready()
    event_id = product.make_event(1_000)

    def book_for(user: int) -> str:
        answer = product.book(event_id, f"user{user}", wait=0)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    jobs: list[str] = []
    with ThreadPoolExecutor(20) as pool:
        jobs += pool.map(book_for, range(200))
        product.worker().kill()
        jobs += pool.map(book_for, range(200, 400))
        frozen = product.worker()
        frozen.suspend()
        jobs += pool.map(book_for, range(400, 600))
        product.child("bin/postgres").send_signal(signal.SIGQUIT)
        jobs += pool.map(book_for, range(600, 800))
    wait_until(lambda: product.client.get(f"/jobs/{jobs[-1]}").json()["done"], 60)
    frozen.resume()
    statuses = Counter(product.client.get(f"/jobs/{job}").json()["status"] for job in jobs)
    assert statuses == {"succeeded": 800}
    assert product.balance(event_id) == (800, 800, 800, 800)
    assert product.verify() == 0
    log = product.log.read_text()
    assert "starting it again" in log
    assert "PostgreSQL has ended" in log


def test_nothing_outlives_a_killed_supervisor(start_product: StartProduct) -> None:
    product = start_product(WORKERS="1")
    product.wait_until_ready()
    family = product.children()
    assert len(family) > 4
    product.process.kill()
    product.process.wait()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert alive == []


@pytest.mark.parametrize("variable", ["API_PORT", "DASHBOARD_PORT"])
def test_a_port_that_is_taken_gives_one_clear_line(start_product: StartProduct, variable: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        product = start_product(**{variable: str(port)})
        assert product.process.wait(30) == 1
    [line] = product.log.read_text().splitlines()
    assert str(port) in line
    assert variable in line


def test_the_same_data_are_used_once(start_product: StartProduct) -> None:
    first = start_product(WORKERS="1")
    first.wait_until_ready()
    second = start_product(WORKERS="1")
    assert second.process.wait(30) == 1
    assert "already runs" in second.log.read_text().splitlines()[-1]


def test_a_wrong_option_gives_one_clear_line(start_product: StartProduct) -> None:
    product = start_product(WORKERS="many")
    assert product.process.wait(30) == 2
    [line] = product.log.read_text().splitlines()
    assert "WORKERS" in line
