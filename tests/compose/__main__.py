"""`make test-compose`: build the images, sell while containers are scaled and killed, check all of it.

It uses a project name and ports of its own, takes some minutes, and takes everything down at the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

ROOT = Path(__file__).parent.parent.parent
PROJECT = "onsaletest"
API_PORT, DASHBOARD_PORT = "18000", "19181"
BASE_URL = f"http://127.0.0.1:{API_PORT}"

BUILD_SECONDS_MAX = 900
STEP_SECONDS_MAX = 180
READY_SECONDS_MAX = 120
REQUEST_SECONDS_MAX = 30
RETRIES_MAX = 200
RETRY_SECONDS = 0.5
BUYERS = 16
EVENTS = 4
TICKETS = 100_000
PAUSE_SECONDS = 4.0
KILLED = ("worker", "api", "redis", "webhooks", "postgres")


class Failed(Exception):
    """Something is not as it must be; the message says what."""


def compose(*arguments: str, seconds: float = STEP_SECONDS_MAX) -> str:
    """Run docker-compose; gives what it prints.

    Raises:
        Failed: it did not succeed.
    """
    environment = {**os.environ, "API_PORT": API_PORT, "DASHBOARD_PORT": DASHBOARD_PORT}
    finished = subprocess.run(
        ["docker-compose", "--project-name", PROJECT, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    if finished.returncode != 0:
        raise Failed(
            f"docker-compose {' '.join(arguments)}:\n{finished.stdout[-3000:]}{finished.stderr[-3000:]}"
        )
    return finished.stdout


def say(text: str) -> None:
    """Tell who watches how far it has come."""
    print(text, flush=True)


def await_ready() -> None:
    """Wait until the API is ready.

    Raises:
        Failed: it is not in time.
    """
    deadline = time.monotonic() + READY_SECONDS_MAX
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{BASE_URL}/ready", timeout=5).json()["status"] == "ready":
                return
        except (httpx.TransportError, ValueError):
            pass
        time.sleep(RETRY_SECONDS)
    raise Failed("the API is not ready in time")


class Load:
    """Buyers who book all the time, each booking with a key, sent again until it is answered."""

    def __init__(self, token: str, event_ids: list[str]) -> None:
        self._headers = {"Authorization": f"Bearer {token}"}
        self._event_ids = event_ids
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(BUYERS)
        self._buyers = [self._pool.submit(self._buy, number) for number in range(BUYERS)]
        self.sent_again = 0

    def stop(self) -> list[str]:
        """Stop, and give the jobs that were accepted.

        Raises:
            Failed: a booking got no answer that could be taken, however often it was sent.
        """
        self._stopping.set()
        return [job for buyer in self._buyers for job in buyer.result()]

    def _buy(self, number: int) -> list[str]:
        jobs: list[str] = []
        with httpx.Client(base_url=BASE_URL, headers=self._headers, timeout=REQUEST_SECONDS_MAX) as client:
            while not self._stopping.is_set():
                event_id = self._event_ids[len(jobs) % len(self._event_ids)]
                jobs.append(self._book(client, event_id, f"user-{number}-{len(jobs)}"))
        return jobs

    def _book(self, client: httpx.Client, event_id: str, user_id: str) -> str:
        headers = {"Idempotency-Key": str(uuid4())}
        for _ in range(RETRIES_MAX):
            try:
                answer = client.post(
                    f"/events/{event_id}/bookings",
                    json={"user_id": user_id, "ticket_count": 1},
                    headers=headers,
                )
                if answer.status_code == httpx.codes.ACCEPTED:
                    return str(answer.json()["id"])
                if answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                    raise Failed(f"a booking was answered {answer.status_code}: {answer.text}")
            except httpx.TransportError:
                pass
            self.sent_again += 1
            time.sleep(RETRY_SECONDS)
        raise Failed("a booking got no answer")


def sell_out(client: httpx.Client) -> None:
    """The README's script: fifteen people want ten tickets."""
    event_id = make_event(client, 10)

    def book(number: int) -> int:
        return client.post(
            f"/events/{event_id}/bookings",
            json={"user_id": f"user{number}", "ticket_count": 1},
            headers={"Prefer": "wait=10"},
        ).status_code

    with ThreadPoolExecutor(15) as pool:
        answers = Counter(pool.map(book, range(15)))
    if answers != {201: 10, 400: 5}:
        raise Failed(f"fifteen people wanted ten tickets, and were answered {dict(answers)}")


def await_key(client: httpx.Client) -> None:
    """Wait until the API knows the key, which was made behind its back.

    Raises:
        Failed: it does not in time.
    """
    for _ in range(RETRIES_MAX):
        if client.get("/events").status_code == httpx.codes.OK:
            return
        time.sleep(RETRY_SECONDS)
    raise Failed("the API does not know the new key")


def make_event(client: httpx.Client, tickets: int) -> str:
    """An event on sale."""
    answer = client.post("/events", json={"name": "Test Event", "total_tickets": tickets})
    if answer.status_code != httpx.codes.CREATED:
        raise Failed(f"POST /events was answered {answer.status_code}: {answer.text}")
    return str(answer.json()["id"])


def read(client: httpx.Client, path: str) -> dict[str, Any]:
    """What the API says at a path, asked again while it is away or says that it was asked too often.

    Raises:
        Failed: it gives no answer that can be taken, or says something else.
    """
    said = "nothing"
    for _ in range(RETRIES_MAX):
        try:
            answer = client.get(path)
        except httpx.TransportError as error:
            said = repr(error)
        else:
            if answer.status_code == httpx.codes.OK:
                document: dict[str, Any] = answer.json()
                return document
            said = f"{answer.status_code}: {answer.text}"
            if answer.status_code not in (
                httpx.codes.TOO_MANY_REQUESTS,
                httpx.codes.SERVICE_UNAVAILABLE,
            ):
                break
        time.sleep(RETRY_SECONDS)
    raise Failed(f"{path} was answered {said}")


def check_jobs(client: httpx.Client, jobs: list[str]) -> None:
    """Every accepted booking has succeeded, each once.

    Raises:
        Failed: one has not, in time.
    """
    if len(set(jobs)) != len(jobs):
        raise Failed("two bookings have the same job")
    deadline = time.monotonic() + READY_SECONDS_MAX
    for job_id in jobs:
        job = read(client, f"/jobs/{job_id}")
        while not job["done"] and time.monotonic() < deadline:
            time.sleep(RETRY_SECONDS)
            job = read(client, f"/jobs/{job_id}")
        if job["status"] != "succeeded":
            raise Failed(f"job {job_id} is {job['status']}: {job['error']}")


def kill(service: str) -> None:
    """Kill a container of a service as a crash would, and start it again."""
    container = compose("ps", "--quiet", service).split()[0]
    for command in ("kill", "start"):
        subprocess.run(
            ["docker", command, container], check=True, capture_output=True, timeout=STEP_SECONDS_MAX
        )


def verify() -> None:
    """The database against the rules, in a worker's container."""
    say("  " + compose("exec", "-T", "worker", "python", "-m", "worker", "verify").strip())


def sizes() -> str:
    """How large the images are."""
    listed = subprocess.run(
        ["docker", "images", "--format", "{{json .}}"], capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()
    images = [json.loads(line) for line in listed]
    ours = {image["Repository"]: image["Size"] for image in images if image["Tag"] == "latest"}
    return ", ".join(f"{name} {ours[name]}" for name in sorted(ours) if name.startswith("onsale-"))


def run() -> None:
    """All of it, in order.

    Raises:
        Failed: something is not as it must be.
    """
    say("building and starting …")
    compose("up", "--build", "--detach", seconds=BUILD_SECONDS_MAX)
    await_ready()
    say(f"  images: {sizes()}")
    token = compose("run", "--rm", "keys", "create", "--role", "organiser", "--account", "acme").split()[-1]
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=BASE_URL, headers=headers, timeout=REQUEST_SECONDS_MAX) as client:
        await_key(client)
        say("the README's script …")
        sell_out(client)
        events = [make_event(client, TICKETS) for _ in range(EVENTS)]
        load = Load(token, events)
        for workers in (4, 1):
            say(f"scaling to {workers} under load …")
            compose("up", "--detach", "--no-recreate", "--scale", f"worker={workers}")
            time.sleep(PAUSE_SECONDS)
        for service in KILLED:
            say(f"killing {service} under load …")
            kill(service)
            time.sleep(PAUSE_SECONDS)
        jobs = load.stop()
        await_ready()
        say(
            f"{len(jobs)} bookings were accepted, {load.sent_again} times one was sent again; checking each …"
        )
        check_jobs(client, jobs)
        left = sum(read(client, f"/events/{event}")["available_tickets"] for event in events)
        if left != EVENTS * TICKETS - len(jobs):
            raise Failed(f"{left} tickets are left after {len(jobs)} of {EVENTS * TICKETS} were sold")
        verify()
        say("down and up again …")
        compose("down")
        compose("up", "--detach")
        await_ready()
        again = sum(read(client, f"/events/{event}")["available_tickets"] for event in events)
        if again != left:
            raise Failed(f"{again} tickets are left after a restart, {left} before it")
        verify()


def main() -> int:
    """Run it; gives 0, or 1 after saying what is wrong."""
    try:
        run()
    except Failed as error:
        print(f"FAILED: {error}", file=sys.stderr)
        print(compose("logs", "--tail", "30"), file=sys.stderr)
        return 1
    finally:
        compose("down", "--volumes", "--remove-orphans")
    say("all of it is right")
    return 0


if __name__ == "__main__":
    sys.exit(main())
