"""RQ's own tools on our queues: `rq info`, `Job.fetch`, the stock worker, the dashboard."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import cast

import httpx
import pytest
import redis
from rq import Queue, SimpleWorker, Worker
from rq.job import Job
from rq.serializers import JSONSerializer

from shared.clock import SystemClock
from shared.database.engine import Database
from shared.line.consumer import Consumer
from shared.line.presence import Presence
from shared.records import EventRecord, JobResult
from shared.settings import Settings
from tests.builders import (
    assert_books_balance,
    book,
    complete,
    create_event,
    outcomes_in_ledger,
    seed,
    submit,
    wait_until,
)
from tests.conftest import StartWebhooks, StartWorker
from tests.dashboards import serving_dashboard
from tests.receivers import running_receiver
from tests.webhooks import register, sell
from worker.batch import apply_to_database

BIN = Path(sys.executable).parent
DashboardGet = Callable[[str], httpx.Response]


@pytest.fixture
def event(settings: Settings, database: Database, redis_client: redis.Redis) -> EventRecord:
    event = create_event(database, total_tickets=5)
    seed(settings, event)
    return event


@pytest.fixture
def environment(settings: Settings, project_root: Path) -> dict[str, str]:
    return os.environ | {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "PYTHONPATH": str(project_root),
    }


@pytest.fixture
def dashboard(settings: Settings, environment: dict[str, str]) -> Iterator[DashboardGet]:
    """The dashboard as `make up` starts it."""
    with serving_dashboard(environment) as client:
        yield client.get


def test_with_a_password_the_dashboard_asks_for_a_login(
    environment: dict[str, str], redis_client: redis.Redis, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("open sesame\n")
    with serving_dashboard(environment, DASHBOARD_PASSWORD_FILE=str(tmp_path / "password")) as client:
        for path in ("/", "/0/data/queues.json", "/0/view/workers", "/static/js/app.js"):
            refused = client.get(path)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"].startswith("Basic")
            assert client.get(path, auth=("operator", "wrong")).status_code == 401
            assert client.get(path, auth=("root", "open sesame")).status_code == 401
        assert client.get("/0/data/queues.json", auth=("operator", "open sesame")).status_code == 200


def return_value(job: Job) -> JobResult:
    value = job.return_value(refresh=True)
    assert value is not None
    return cast(JobResult, value)


def fetch(redis_client: redis.Redis, job_id: str) -> Job:
    return Job.fetch(job_id, connection=redis_client, serializer=JSONSerializer)


def run_rq(environment: dict[str, str], *arguments: str) -> str:
    command = [str(BIN / "rq"), *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=True
    ).stdout


def test_a_waiting_job_reads_as_any_other(
    settings: Settings, event: EventRecord, redis_client: redis.Redis
) -> None:
    command = book(event.id, "ann", 2)
    submit(settings, [command])
    job = fetch(redis_client, command.job_id)
    assert job.get_status() == "queued"
    assert job.origin == f"event:{event.id}"
    assert job.description == "book 2 for ann"
    assert job.args[1] == command.payload
    assert job.get_position() == 0
    assert job.enqueued_at is not None


def test_a_finished_job_shows_its_result(
    settings: Settings, event: EventRecord, redis_client: redis.Redis, start_worker: StartWorker
) -> None:
    commands = [book(event.id, "ann", 2), book(event.id, "ann", 1)]
    submit(settings, commands)
    start_worker("shown-worker")
    jobs = [fetch(redis_client, command.job_id) for command in commands]
    wait_until(lambda: all(job.get_status(refresh=True) == "finished" for job in jobs))
    assert return_value(jobs[0])["booking_id"] == commands[0].job_id
    assert return_value(jobs[1])["outcome"] == "user-limit-exceeded"
    latest = jobs[0].latest_result()
    assert latest is not None
    assert latest.worker_name == "shown-worker"
    queue = Queue(f"event:{event.id}", connection=redis_client, serializer=JSONSerializer)
    assert queue.count == 0
    assert set(queue.finished_job_registry.get_job_ids()) == {command.job_id for command in commands}


def test_rq_info_shows_the_true_depth_and_the_workers(
    settings: Settings, event: EventRecord, redis_client: redis.Redis, environment: dict[str, str]
) -> None:
    submit(settings, [book(event.id, f"user{i}") for i in range(7)])
    presence = Presence(redis_client, SystemClock(), worker_name="shown-worker", ttl_seconds=60)
    presence.heartbeat(applied=0, failed=0, working_seconds=0.0)
    shown = run_rq(environment, "info", "-u", settings.redis_url, "--raw")
    assert f"queue event:{event.id} 7, " in shown
    consumer = Consumer(redis_client, settings, worker_name="shown-worker")
    claim = consumer.claim()
    assert claim is not None
    shown = run_rq(environment, "info", "-u", settings.redis_url, "--raw")
    assert "worker shown-worker" in shown
    assert f"busy event:{event.id}" in shown
    consumer.release(event.id, claim.token)
    shown = run_rq(environment, "info", "-u", settings.redis_url, "--raw")
    assert f"idle event:{event.id}" in shown


def test_rq_info_shows_the_webhooks_process_to_who_names_its_queues(
    settings: Settings,
    event: EventRecord,
    redis_client: redis.Redis,
    environment: dict[str, str],
    start_webhooks: StartWebhooks,
) -> None:
    submit(settings, [book(event.id, "ann")])
    start_webhooks()

    def workers(*queues: str) -> int:
        shown = run_rq(environment, "info", "-u", settings.redis_url, "--raw", *queues)
        return sum(line.startswith("worker ") for line in shown.splitlines())

    wait_until(lambda: workers("webhooks", "webhooks-slow") == 2)
    assert workers() == 0


def test_a_worker_is_listed_under_the_event_that_it_worked_on_last(
    settings: Settings,
    event: EventRecord,
    database: Database,
    redis_client: redis.Redis,
    start_worker: StartWorker,
) -> None:
    other = create_event(database)
    seed(settings, other)
    worker = start_worker("shown-worker")
    for each in (event, other):
        submit(settings, [book(each.id, "ann")])
        wait_until(partial(redis_client.sismember, f"rq:workers:event:{each.id}", "rq:worker:shown-worker"))
    assert redis_client.smembers(f"rq:workers:event:{event.id}") == set()
    worker.stop()
    wait_until(lambda: redis_client.smembers(f"rq:workers:event:{other.id}") == set())


def test_a_worker_is_listed_while_it_lives_and_not_after(
    event: EventRecord, redis_client: redis.Redis, start_worker: StartWorker
) -> None:
    worker = start_worker("shown-worker")
    wait_until(lambda: Worker.count(connection=redis_client) == 1)
    [listed] = Worker.all(connection=redis_client)
    assert listed.name == "shown-worker"
    assert listed.get_state() == "idle"
    worker.stop()
    wait_until(lambda: Worker.count(connection=redis_client) == 0)
    assert redis_client.keys("rq:worker*") == []


@pytest.mark.parametrize("worker_class", ["rq.SimpleWorker", "rq.Worker"])
def test_a_stock_worker_applies_the_line_in_order_by_the_same_code(
    settings: Settings,
    event: EventRecord,
    database: Database,
    redis_client: redis.Redis,
    environment: dict[str, str],
    worker_class: str,
) -> None:
    commands = [book(event.id, f"user{i}") for i in range(7)]
    submit(settings, commands)
    run_rq(
        environment,
        *("worker", "--url", settings.redis_url, "--serializer", "json", "--burst"),
        *("--worker-class", worker_class, f"event:{event.id}"),
    )
    assert [job_id for _, job_id, _ in outcomes_in_ledger(database, event.id)] == [
        command.job_id for command in commands
    ]
    jobs = [fetch(redis_client, command.job_id) for command in commands]
    assert [job.get_status() for job in jobs] == ["finished"] * 7
    assert [return_value(job)["status"] for job in jobs] == ["succeeded"] * 5 + ["rejected"] * 2
    assert redis_client.llen(f"onsale:order:{event.id}") == 0
    assert_books_balance(database, event.id)


def test_a_stock_worker_beside_ours_keeps_the_order(
    settings: Settings,
    event: EventRecord,
    database: Database,
    redis_client: redis.Redis,
    environment: dict[str, str],
    start_worker: StartWorker,
) -> None:
    commands = [book(event.id, f"user{i}") for i in range(300)]
    submit(settings, commands[:150])
    start_worker()
    options = ("-u", settings.redis_url, "-S", "json", "-b", "-w", "rq.SimpleWorker")
    process = subprocess.Popen([BIN / "rq", "worker", *options, f"event:{event.id}"], env=environment)
    submit(settings, commands[150:])
    assert process.wait(timeout=60) == 0
    wait_until(lambda: len(outcomes_in_ledger(database, event.id)) == 300)
    assert [job_id for _, job_id, _ in outcomes_in_ledger(database, event.id)] == [
        command.job_id for command in commands
    ]
    wait_until(lambda: redis_client.llen(f"onsale:order:{event.id}") == 0)


def test_a_stock_worker_with_the_wrong_serializer_loses_nothing(
    settings: Settings,
    event: EventRecord,
    database: Database,
    redis_client: redis.Redis,
    start_worker: StartWorker,
) -> None:
    command = book(event.id, "ann")
    submit(settings, [command])
    queue = Queue(f"event:{event.id}", connection=redis_client)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        SimpleWorker([queue], connection=redis_client).work(burst=True)
    assert outcomes_in_ledger(database, event.id) == []
    start_worker()
    wait_until(lambda: len(outcomes_in_ledger(database, event.id)) == 1)
    job = fetch(redis_client, command.job_id)
    wait_until(lambda: job.get_status(refresh=True) == "finished")
    assert job.id not in queue.failed_job_registry.get_job_ids()
    assert return_value(job)["status"] == "succeeded"


def test_the_dashboard_shows_a_long_line_and_what_became_of_it(
    settings: Settings,
    event: EventRecord,
    database: Database,
    redis_client: redis.Redis,
    dashboard: DashboardGet,
) -> None:
    name = f"event:{event.id}"
    commands = [book(event.id, f"user{i}") for i in range(20)]
    submit(settings, commands)
    Presence(redis_client, SystemClock(), worker_name="shown-worker", ttl_seconds=60).heartbeat(
        applied=0, failed=0, working_seconds=0.0
    )
    consumer = Consumer(redis_client, settings, worker_name="shown-worker")
    claim = consumer.claim()
    assert claim is not None

    [queue] = dashboard("/0/data/queues.json").json()["queues"]
    assert (queue["name"], queue["count"]) == (name, 20)
    page = dashboard(f"/0/data/jobs/{name}/queued/8/asc/1.json").json()
    assert [job["description"] for job in page["jobs"]] == [f"book 1 for user{i}" for i in range(8)]
    [worker] = dashboard("/0/data/workers.json").json()["workers"]
    assert (worker["state"], worker["queues"]) == ("busy", [name])

    batch = apply_to_database(database, SystemClock(), event.id, claim.peeked.commands, claim.token)
    complete(consumer, event.id, claim.token, batch)
    page = dashboard(f"/0/data/jobs/{name}/finished/8/asc/1.json").json()
    assert len(page["jobs"]) == 8
    for view in ("/0/view/queues", "/0/view/workers", f"/0/view/job/{commands[0].job_id}"):
        assert dashboard(view).status_code == 200
    job = dashboard(f"/0/data/job/{commands[0].job_id}.json").json()
    assert job["status"] == "finished"
    assert job["result"]["booking_id"] == commands[0].job_id
    assert job["started_at"]
    assert job["ended_at"]


def test_the_dashboard_shows_a_webhook_that_is_being_told(
    settings: Settings,
    event: EventRecord,
    database: Database,
    dashboard: DashboardGet,
    start_webhooks: StartWebhooks,
) -> None:
    with running_receiver() as receiver:
        receiver.reply = receiver.hang
        webhook = register(database, event, receiver.url)
        sell(database, event, "ann")
        start_webhooks(webhooks_allow_private=True, webhooks_attempt_seconds_max=30)
        wait_until(lambda: receiver.received)
        workers = dashboard("/0/data/workers.json").json()["workers"]
        states = {tuple(worker["queues"]): worker["state"] for worker in workers}
        assert states == {("webhooks",): "busy", ("webhooks-slow",): "idle"}
        for view in ("/0/view/queues", "/0/view/workers", f"/0/view/job/webhook-{webhook.id}"):
            assert dashboard(view).status_code == 200
        job = dashboard(f"/0/data/job/webhook-{webhook.id}.json").json()
        assert job["status"] == "started"
        assert job["description"] == f"deliver messages of webhook {webhook.id}"
        receiver.released.set()
        wait_until(lambda: dashboard(f"/0/data/job/webhook-{webhook.id}.json").json()["ended_at"])
    page = dashboard("/0/data/jobs/webhooks/finished/8/asc/1.json").json()
    assert [job["id"] for job in page["jobs"]] == [f"webhook-{webhook.id}"]
