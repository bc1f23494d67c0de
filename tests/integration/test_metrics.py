"""Metrics, asked of the real processes."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from shared import limits, metrics
from shared.clock import SystemClock
from shared.database.engine import Database
from shared.identifiers import new_id
from shared.line.connections import connect
from shared.line.consumer import Consumer
from shared.line.keys import RQ_WORKER, RQ_WORKERS
from shared.line.status import LineStatus
from shared.settings import Settings
from tests.builders import book, create_event, seed, submit, tamper, wait_until
from tests.clocks import StoppedClock
from tests.conftest import StartWebhooks, StartWorker
from tests.unit.test_metrics import needs_promtool
from worker.__main__ import main
from worker.endpoint import endpoint

Sample = tuple[str, tuple[tuple[str, str], ...]]
"""A name and labels."""


def read(text: str, name: str, **labels: str) -> float:
    """The sum of the samples with this name and at least these labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def text_of(url: str) -> str:
    answer = httpx.get(url, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.text


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def start_process(
    settings: Settings, database: Database, redis_client: redis.Redis
) -> Iterator[Callable[..., None]]:
    """Starts a process of ours on these servers; it is ended at the end."""
    with ExitStack() as stack:

        def start(command: Sequence[str], environment: Mapping[str, str]) -> None:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                env=os.environ
                | {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
                | dict(environment),
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)

        yield start


@pytest.fixture
def line_status(settings: Settings, redis_client: redis.Redis) -> Callable[[], str]:
    """What metrics tell of the line now."""
    return lambda: metrics.exposition(LineStatus(connect(settings), SystemClock())).decode()


@contextmanager
def grown(api: httpx.Client, expected: Mapping[Sample, float]) -> Iterator[None]:
    """These samples grow by so much in the block."""
    before = api.get("/metrics").text
    yield

    def difference() -> dict[Sample, float]:
        after = api.get("/metrics").text
        return {
            (name, labels): read(after, name, **dict(labels)) - read(before, name, **dict(labels))
            for name, labels in expected
        }

    wait_until(lambda: difference() == expected)


def test_accepted_applied_and_refused_are_counted(
    api: httpx.Client, database: Database, start_worker: StartWorker
) -> None:
    event, waiting = create_event(database, total_tickets=3), create_event(database)
    # A claim has a phase of its own only where the worker did not sleep before it.
    job = api.post(f"/events/{waiting.id}/bookings", json={"user_id": "ann", "ticket_count": 1}).json()
    start_worker()
    assert api.get(f"/jobs/{job['id']}", headers={"Prefer": "wait=20"}).json()["done"]
    route = ("route", "/events/{event_id}/bookings")
    with grown(
        api,
        {
            ("onsale_commands_accepted_total", (("kind", "book"),)): 5,
            ("onsale_commands_applied_total", (("outcome", "booked"),)): 3,
            ("onsale_commands_applied_total", (("outcome", "not-enough-tickets"),)): 2,
            ("onsale_http_refusals_total", (("reason", "not-enough-tickets"),)): 2,
            ("onsale_http_refusals_total", (("reason", "event-not-found"),)): 1,
            ("onsale_http_refusals_total", (("reason", "not-found"),)): 1,
            ("onsale_http_request_seconds_count", (route, ("status", "2xx"))): 3,
            ("onsale_http_request_seconds_count", (route, ("status", "4xx"))): 3,
            ("onsale_http_request_seconds_count", (("route", "(none)"),)): 1,
            ("onsale_batch_commands_sum", ()): 5,
        },
    ):
        for user in range(5):
            api.post(
                f"/events/{event.id}/bookings",
                json={"user_id": f"user{user}", "ticket_count": 1},
                headers={"Prefer": "wait=20"},
            )
        api.post(f"/events/{new_id()}/bookings", json={"user_id": "ann", "ticket_count": 1})
        api.get("/nothing/here")
    text = api.get("/metrics").text
    for phase in ("claim", "lock", "prefetch", "rules", "write", "complete"):
        assert read(text, "onsale_phase_seconds_count", phase=phase) > 0
    assert read(text, "onsale_line_commands") == 0


def test_routes_are_told_by_their_template_and_methods_by_a_bounded_list(api: httpx.Client) -> None:
    for _ in range(3):
        api.get(f"/jobs/{new_id()}")
        api.request("PROPFIND", "/health")
    text = api.get("/metrics").text
    assert read(text, "onsale_http_request_seconds_count", route="/jobs/{job_id}", method="GET") >= 3
    assert read(text, "onsale_http_request_seconds_count", method="(other)") >= 3
    assert "PROPFIND" not in text


def test_a_takeover_is_counted(
    settings: Settings, database: Database, redis_client: redis.Redis, start_worker: StartWorker
) -> None:
    event = create_event(database)
    seed(settings, event)
    submit(settings, [book(event.id, "ann")])
    assert Consumer(redis_client, settings, worker_name="silent").claim() is not None
    before = read(metrics.exposition().decode(), "onsale_takeovers_total")
    start_worker()
    wait_until(lambda: read(metrics.exposition().decode(), "onsale_takeovers_total") > before)


def test_a_full_line_is_counted_as_a_reason_from_zero_on(api: httpx.Client) -> None:
    text = api.get("/metrics").text
    assert 'onsale_http_refusals_total{reason="line-full"}' in text


def test_the_longest_lines_are_told_one_by_one_and_the_rest_together(
    settings: Settings,
    database: Database,
    line_status: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "LINES_TOLD_MAX", 2)
    lengths = [1, 4, 2, 3]
    events = [create_event(database) for _ in lengths]
    for event, length in zip(events, lengths, strict=True):
        seed(settings, event)
        submit(settings, [book(event.id, f"user{number}") for number in range(length)])
    text = line_status()
    assert read(text, "onsale_line_commands", event=events[1].id) == 4
    assert read(text, "onsale_line_commands", event=events[3].id) == 3
    assert read(text, "onsale_line_commands", event="other") == 3
    assert text.count("onsale_line_commands{") == 3
    assert read(text, "onsale_line_events", state="waiting") == 4
    assert read(text, "onsale_redis_up") == 1
    assert read(text, "onsale_redis_memory_bytes") > 0


def test_the_oldest_wait_is_that_of_the_first_in_line(
    settings: Settings, database: Database, redis_client: redis.Redis, line_status: Callable[[], str]
) -> None:
    event = create_event(database)
    seed(settings, event)
    first, second = book(event.id, "ann"), book(event.id, "bob")
    submit(settings, [first, second])
    redis_client.hset(f"rq:job:{first.job_id}", "created_at", "2026-01-01T00:00:00.000000Z")
    assert read(line_status(), "onsale_line_oldest_wait_seconds", event=event.id) > 24 * 3600
    redis_client.hset(f"rq:job:{first.job_id}", "created_at", "spoilt")
    assert read(line_status(), "onsale_line_oldest_wait_seconds", event=event.id) == 0


def test_workers_and_processes_of_webhooks_are_counted_apart_while_they_live(
    redis_client: redis.Redis,
    line_status: Callable[[], str],
    start_worker: StartWorker,
    start_webhooks: StartWebhooks,
) -> None:
    def counted() -> tuple[float, float]:
        text = line_status()
        return read(text, "onsale_workers"), read(text, "onsale_webhook_workers")

    assert counted() == (0, 0)
    start_worker()
    stopping = start_webhooks()
    wait_until(lambda: counted() == (1, 1))
    # A worker that was killed: its key has expired, and nobody took its name from the list.
    redis_client.sadd(RQ_WORKERS, f"{RQ_WORKER}killed")
    assert counted() == (1, 1)
    stopping.set()
    wait_until(lambda: counted() == (1, 0))


def test_redis_is_asked_once_a_moment_however_many_ask(settings: Settings, redis_client: redis.Redis) -> None:
    status = LineStatus(connect(settings), StoppedClock())
    metrics.exposition(status)
    before = redis_client.info("commandstats")["cmdstat_dbsize"]["calls"]
    for _ in range(20):
        metrics.exposition(status)
    after = redis_client.info("commandstats")["cmdstat_dbsize"]["calls"]
    assert after == before


def test_without_redis_the_rest_is_told(settings: Settings) -> None:
    away = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{free_port()}"})
    text = metrics.exposition(LineStatus(connect(away), SystemClock())).decode()
    assert read(text, "onsale_redis_up") == 0
    assert "onsale_redis_up 0.0" in text
    assert "onsale_commands_accepted_total" in text


def test_what_verify_found_is_told(
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    line_status: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.__main__.load_settings", lambda: settings)
    wrong, right = create_event(database), create_event(database)
    assert "onsale_verify_violations " not in line_status()
    tamper(database, f"UPDATE events SET available_tickets = 9 WHERE id = '{wrong.id}'")
    assert main(["verify"]) == 1
    found = read(line_status(), "onsale_verify_violations")
    assert found > 0
    assert main(["verify", "--event", right.id]) == 0
    assert read(line_status(), "onsale_verify_violations") == found
    tamper(database, f"UPDATE events SET available_tickets = 10 WHERE id = '{wrong.id}'")
    assert main(["verify"]) == 0
    assert read(line_status(), "onsale_verify_violations") == 0
    assert 0 < redis_client.ttl("onsale:verified") <= limits.VERIFY_RESULT_TTL_SECONDS


def test_who_hangs_up_on_a_worker_is_told_in_one_line(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    longer_than_any_buffer = b"x" * 50_000_000
    with (
        caplog.at_level(logging.INFO),
        endpoint(0, metrics=lambda: longer_than_any_buffer, is_healthy=lambda: True) as port,
    ):
        with socket.create_connection(("127.0.0.1", port)) as asker:
            asker.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            assert asker.recv(1)
        # It answers one after the other: the first is done with.
        assert answers(f"http://127.0.0.1:{port}/health")
    assert [record.getMessage() for record in caplog.records if record.name == "worker.endpoint"] == [
        "asker hung up"
    ]
    assert "Traceback" not in capfd.readouterr().err


def test_a_worker_tells_its_own(
    settings: Settings,
    database: Database,
    start_process: Callable[..., None],
) -> None:
    port = free_port()
    start_process(["worker"], {"ONSALE_WORKER_METRICS_PORT": str(port)})
    wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"))
    event = create_event(database)
    seed(settings, event)
    submit(settings, [book(event.id, f"user{number}") for number in range(4)])
    url = f"http://127.0.0.1:{port}/metrics"
    wait_until(lambda: read(text_of(url), "onsale_commands_applied_total", outcome="booked") == 4)
    text = text_of(url)
    assert read(text, "onsale_claims_total") > 0
    assert read(text, "onsale_redis_up") == 1
    assert read(text, "process_resident_memory_bytes") > 0
    assert httpx.get(f"http://127.0.0.1:{port}/other").status_code == 404


def test_a_worker_whose_port_is_taken_says_so_and_leaves(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        environment = {
            "DATABASE_URL": settings.database_url,
            "REDIS_URL": settings.redis_url,
            "ONSALE_WORKER_METRICS_PORT": str(taken.getsockname()[1]),
        }
        done = subprocess.run(
            [sys.executable, "-m", "worker"],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    assert "ONSALE_WORKER_METRICS_PORT" in done.stderr


def test_several_processes_behind_one_port_add_up(
    database: Database, start_process: Callable[..., None], tmp_path: Path
) -> None:
    port = free_port()
    start_process(
        ["uvicorn", "api.main:app", "--workers", "2", "--port", str(port), "--no-access-log"],
        {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
    )
    base = f"http://127.0.0.1:{port}"
    wait_until(lambda: answers(f"{base}/health"))
    event = create_event(database)

    booked = 0

    def book_until_both_have_worked() -> bool:
        nonlocal booked
        booked += 1
        answer = httpx.post(f"{base}/events/{event.id}/bookings", json={"user_id": "a", "ticket_count": 1})
        assert answer.status_code == 202
        return len(list(tmp_path.glob("counter_*.db"))) == 2 and booked >= 20

    wait_until(book_until_both_have_worked)
    for _ in range(10):
        assert read(text_of(f"{base}/metrics"), "onsale_commands_accepted_total", kind="book") == booked


def test_one_process_of_several_does_not_tell_a_part_as_the_whole(start_process: Callable[..., None]) -> None:
    port = free_port()
    start_process(["uvicorn", "api.main:app", "--workers", "2", "--port", str(port)], {})
    wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"))
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics")
    assert answer.status_code == 503
    assert answer.json()["type"] == "metrics-incomplete"
    assert "PROMETHEUS_MULTIPROC_DIR" in answer.json()["detail"]


@needs_promtool
def test_prometheus_finds_nothing_to_object_to(api: httpx.Client) -> None:
    api.get("/health")
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=api.get("/metrics").content,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert b"error" not in done.stderr.lower()
    assert not [line for line in done.stderr.splitlines() if line.startswith(b"onsale_")]
