"""The webhooks process with everything around it: API, workers, Redis, PostgreSQL, targets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from local.servers import PostgresServer, ValkeyServer, free_port
from shared import limits
from shared.clock import SystemClock
from shared.database.engine import Database
from shared.line.consumer import Consumer
from shared.line.presence import is_worker_alive_on_this_host
from shared.line.webhook_jobs import QUEUE_NAME, SLOW_QUEUE_NAME, WebhookJobs
from shared.records import EventRecord
from shared.settings import Settings
from shared.webhooks.records import MessageStatus, WebhookRecord
from tests.builders import assert_books_balance, create_event, outcomes_in_ledger, tamper, wait_until
from tests.clocks import MovableClock
from tests.conftest import StartWebhooks, StartWorker
from tests.processes import frozen
from tests.receivers import Receiver, running_receiver
from tests.webhooks import attempts_of, current, make_all, messages_of, register, sell
from worker.webhooks.process import run_webhooks


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Generous towards targets; quick to see what has changed."""
    return settings.model_copy(
        update={"webhooks_allow_private": True, "webhooks_attempt_seconds_max": 20.0, "webhooks_threads": 2}
    )


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as receiver:
        yield receiver


@pytest.fixture
def event(database: Database) -> EventRecord:
    return create_event(database, total_tickets=100)


def environment(settings: Settings, project_root: Path) -> dict[str, str]:
    return os.environ | {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "ONSALE_WEBHOOKS_ALLOW_PRIVATE": "true",
        "ONSALE_WEBHOOKS_ATTEMPT_SECONDS_MAX": "10",
        "ONSALE_WEBHOOKS_LOOK_SECONDS": "0.1",
        "PYTHONPATH": str(project_root),
    }


@contextmanager
def webhooks_process(settings: Settings, project_root: Path) -> Iterator[subprocess.Popen[str]]:
    """`python -m worker webhooks`, killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", "webhooks"],
        env=environment(settings, project_root),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def delivered(database: Database, webhook: WebhookRecord) -> int:
    return sum(message.status is MessageStatus.DELIVERED for message in messages_of(database, webhook))


def test_what_is_booked_over_http_is_told(
    api: httpx.Client,
    database: Database,
    event: EventRecord,
    receiver: Receiver,
    start_worker: StartWorker,
    start_webhooks: StartWebhooks,
) -> None:
    webhook = register(database, event, receiver.url)
    start_worker()
    start_webhooks()
    booked = api.post(
        f"/events/{event.id}/bookings",
        json={"user_id": "ann", "ticket_count": 2},
        headers={"Prefer": "wait=10"},
    ).json()
    cancelled = api.delete(f"/bookings/{booked['id']}", headers={"Prefer": "wait=10"}).json()
    wait_until(lambda: len(receiver.received) == 2)
    first, second = (received.verified(webhook.secret) for received in receiver.received)
    assert (first["type"], first["data"]["booking"]) == ("booking.created", booked)
    assert (second["type"], second["data"]["booking"]) == ("booking.cancelled", cancelled)


def test_the_ledger_arrives_whole_and_in_order(
    database: Database, event: EventRecord, receiver: Receiver, start_webhooks: StartWebhooks
) -> None:
    webhook = register(database, event, receiver.url)
    start_webhooks()
    start_webhooks()
    jobs = [job for number in range(8) for job in sell(database, event, f"a{number}", f"b{number}")]
    wait_until(lambda: delivered(database, webhook) == 16)
    assert [received.data["job_id"] for received in receiver.received] == jobs


def test_what_redis_has_lost_is_delivered_all_the_same(
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    event: EventRecord,
    receiver: Receiver,
    start_webhooks: StartWebhooks,
) -> None:
    webhook = register(database, event, receiver.url)
    sell(database, event, "ann")
    make_all(database)
    jobs = WebhookJobs(redis_client, SystemClock(), settings)
    jobs.enqueue([(webhook.id, False)])
    assert redis_client.llen(f"rq:queue:{QUEUE_NAME}") == 1
    redis_client.flushdb()
    start_webhooks()
    wait_until(lambda: delivered(database, webhook) == 1)
    redis_client.flushdb()
    sell(database, event, "bob")
    wait_until(lambda: delivered(database, webhook) == 2)


def test_a_job_that_somebody_took_away_is_put_in_the_queue_again(
    settings: Settings, database: Database, redis_client: redis.Redis, event: EventRecord, receiver: Receiver
) -> None:
    webhook = register(database, event, receiver.url)
    clock = MovableClock()
    jobs = WebhookJobs(redis_client, clock, settings)
    for _ in range(2):
        jobs.enqueue([(webhook.id, False)])
        clock.advance(seconds=2)
        assert redis_client.lrange(f"rq:queue:{QUEUE_NAME}", 0, -1) == [f"webhook-{webhook.id}".encode()]
    redis_client.lpop(f"rq:queue:{QUEUE_NAME}")
    clock.advance(seconds=2)
    jobs.enqueue([(webhook.id, True)])
    jobs.enqueue([(webhook.id, True)])
    assert redis_client.llen(f"rq:queue:{QUEUE_NAME}") == 0
    assert redis_client.llen(f"rq:queue:{SLOW_QUEUE_NAME}") == 1


def test_a_target_that_hangs_holds_up_neither_the_line_nor_other_targets(
    api: httpx.Client,
    database: Database,
    settings: Settings,
    receiver: Receiver,
    start_worker: StartWorker,
    start_webhooks: StartWebhooks,
) -> None:
    event = create_event(database, total_tickets=100)
    receiver.reply = receiver.hang
    hanging = register(database, event, receiver.url)
    start_worker()
    start_webhooks()
    sell(database, event, "ann")
    wait_until(lambda: receiver.received)
    with running_receiver() as healthy:
        webhook = register(database, event, healthy.url)
        for number in range(10):
            answer = api.post(
                f"/events/{event.id}/bookings",
                json={"user_id": f"user{number}", "ticket_count": 1},
                headers={"Prefer": "wait=20"},
            )
            assert answer.status_code == 201
        wait_until(lambda: delivered(database, webhook) == 10)
        assert len(receiver.received) == 1
        assert delivered(database, hanging) == 0
    assert_books_balance(database, event.id)
    receiver.released.set()
    wait_until(lambda: delivered(database, hanging) == 11)


def test_targets_known_to_hang_leave_threads_to_the_others(
    database: Database,
    settings: Settings,
    event: EventRecord,
    receiver: Receiver,
    start_webhooks: StartWebhooks,
) -> None:
    """More of them than there are threads in both lanes together."""
    receiver.reply = receiver.hang
    hanging = [register(database, event, receiver.url) for _ in range(6)]
    sell(database, event, "ann")
    stopping = start_webhooks(webhooks_attempt_seconds_max=0.2)
    wait_until(lambda: all(current(database, webhook).slow for webhook in hanging))
    stopping.set()
    # An attempt may have been given up before it reached the receiver.
    received = len(receiver.received)
    start_webhooks(webhooks_attempt_seconds_max=60)
    wait_until(lambda: len(receiver.received) > received)
    with running_receiver() as healthy:
        webhook = register(database, event, healthy.url)
        sell(database, event, "bob")
        wait_until(lambda: delivered(database, webhook) == 1)
    receiver.released.set()


def test_a_frozen_postgresql_is_waited_for(
    database: Database,
    settings: Settings,
    event: EventRecord,
    postgres: PostgresServer,
    receiver: Receiver,
    start_webhooks: StartWebhooks,
) -> None:
    webhook = register(database, event, receiver.url)
    start_webhooks(transaction_seconds_max=1.0, webhooks_attempt_seconds_max=5.0)
    sell(database, event, "ann")
    wait_until(lambda: delivered(database, webhook) == 1)
    assert postgres.pid is not None
    with frozen(postgres.pid):
        threading.Event().wait(2.0)
    sell(database, event, "bob")
    wait_until(lambda: delivered(database, webhook) == 2)


def test_a_frozen_redis_is_waited_for(
    database: Database,
    settings: Settings,
    event: EventRecord,
    valkey: ValkeyServer,
    receiver: Receiver,
    start_webhooks: StartWebhooks,
) -> None:
    webhook = register(database, event, receiver.url)
    start_webhooks(redis_timeout_seconds=0.3)
    sell(database, event, "ann")
    wait_until(lambda: delivered(database, webhook) == 1)
    assert valkey.pid is not None
    with frozen(valkey.pid):
        sell(database, event, "bob")
        threading.Event().wait(1.5)
    wait_until(lambda: delivered(database, webhook) == 2)


def test_a_process_that_is_started_before_its_servers_waits_for_them(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = settings.model_copy(
        update={
            "database_url": f"postgresql://onsale@127.0.0.1:{free_port()}/onsale",
            "redis_url": f"redis://127.0.0.1:{free_port()}/0",
        }
    )
    stopping = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        process = pool.submit(run_webhooks, nowhere, SystemClock(), stopping)
        try:
            wait_until(lambda: process.done() or caplog.text.count("deliveries interrupted") >= 3)
            wait_until(lambda: process.done() or caplog.text.count("webhooks interrupted") >= 2)
        finally:
            stopping.set()
        process.result(30)


def test_sigterm_ends_the_process_and_takes_its_workers_off_rqs_list(
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    event: EventRecord,
    receiver: Receiver,
    project_root: Path,
) -> None:
    webhook = register(database, event, receiver.url)
    with webhooks_process(settings, project_root) as process:
        sell(database, event, "ann")
        wait_until(lambda: delivered(database, webhook) == 1)
        assert redis_client.scard("rq:workers") == 2
        assert is_worker_alive_on_this_host(redis_client)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
    assert process.returncode == 0, log
    assert "webhooks stopped" in log
    assert "Traceback" not in log
    assert receiver.url not in log
    assert redis_client.scard("rq:workers") == 0


def test_a_process_that_is_killed_again_and_again_tells_everything(
    settings: Settings, database: Database, event: EventRecord, receiver: Receiver, project_root: Path
) -> None:
    webhook = register(database, event, receiver.url)
    for number in range(3):
        with webhooks_process(settings, project_root):
            sell(database, event, *(f"user{number}-{each}" for each in range(20)))
            seen = len(receiver.received)
            wait_until(lambda seen=seen: len(receiver.received) > seen + 5)  # type: ignore[misc]
        # What a claim waits for is time alone.
        tamper(database, "UPDATE webhooks SET claimed_until = NULL")
    with webhooks_process(settings, project_root):
        wait_until(lambda: delivered(database, webhook) == 60)
    messages = messages_of(database, webhook)
    told = list(dict.fromkeys(received.id for received in receiver.received))
    assert told == [message.id for message in messages]
    assert len(receiver.received) <= 60 + 3


def test_the_product_without_webhooks_asks_redis_for_nothing_but_work(
    settings: Settings, redis_client: redis.Redis, start_webhooks: StartWebhooks
) -> None:
    start_webhooks()
    wait_until(lambda: redis_client.scard("rq:workers") == 2)
    assert redis_client.llen(f"rq:queue:{QUEUE_NAME}") == 0
    assert not redis_client.exists(f"rq:finished:{QUEUE_NAME}")


def test_rqs_tools_see_the_queue_and_the_sweep_leaves_it(
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    event: EventRecord,
    receiver: Receiver,
    project_root: Path,
) -> None:
    webhook = register(database, event, receiver.url)
    sell(database, event, "ann")
    make_all(database)
    WebhookJobs(redis_client, SystemClock(), settings).enqueue([(webhook.id, False)])
    Consumer(redis_client, settings, worker_name="sweeper").sweep()
    tool = Path(sys.executable).with_name("rq")
    info = subprocess.run(
        [str(tool), "info", "--raw", "-u", settings.redis_url], capture_output=True, text=True, timeout=60
    )
    assert info.returncode == 0, info.stderr
    assert f"queue {QUEUE_NAME} 1" in info.stdout
    job = Job.fetch(f"webhook-{webhook.id}", connection=redis_client, serializer=JSONSerializer)
    assert job.description == f"deliver messages of webhook {webhook.id}"
    assert job.args == [webhook.id]


def test_a_job_shows_what_came_of_it(
    database: Database,
    redis_client: redis.Redis,
    event: EventRecord,
    receiver: Receiver,
    start_webhooks: StartWebhooks,
) -> None:
    webhook = register(database, event, receiver.url)
    sell(database, event, "ann")
    start_webhooks()

    def result() -> object:
        if not redis_client.exists(f"rq:job:webhook-{webhook.id}"):
            return None
        job = Job.fetch(f"webhook-{webhook.id}", connection=redis_client, serializer=JSONSerializer)
        return job.return_value() if job.is_finished else None

    wait_until(lambda: result() == {"delivered": 1, "failed": 0})
    assert redis_client.zscore(f"rq:finished:{QUEUE_NAME}", f"webhook-{webhook.id}") is not None
    assert 0 < redis_client.ttl(f"rq:job:webhook-{webhook.id}") <= 90


def test_rqs_stock_worker_delivers_by_the_same_code(
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    event: EventRecord,
    receiver: Receiver,
    project_root: Path,
) -> None:
    webhook = register(database, event, receiver.url)
    sell(database, event, "ann")
    make_all(database)
    WebhookJobs(redis_client, SystemClock(), settings).enqueue([(webhook.id, False)])
    tool = Path(sys.executable).with_name("rq")
    command = [str(tool), "worker", "--url", settings.redis_url, "--serializer", "json", "--burst"]
    stock = subprocess.run(
        [*command, QUEUE_NAME],
        env=environment(settings, project_root),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert stock.returncode == 0, stock.stderr
    assert [received.data["job_id"] for received in receiver.received] == [
        job_id for _, job_id, _ in outcomes_in_ledger(database, event.id)
    ]


def test_a_job_that_names_another_function_fails_and_calls_nothing(
    database: Database,
    redis_client: redis.Redis,
    event: EventRecord,
    receiver: Receiver,
    start_webhooks: StartWebhooks,
    tmp_path: Path,
) -> None:
    queue = Queue(QUEUE_NAME, connection=redis_client, serializer=JSONSerializer)
    foreign = queue.enqueue("os.mkdir", str(tmp_path / "made"))
    redis_client.hset(foreign.key, "failure_callback_name", "os.getcwd")
    redis_client.rpush(queue.key, "not-there")
    redis_client.hset("rq:job:spoilt", mapping={"created_at": "never", "data": "x"})
    redis_client.rpush(queue.key, "spoilt")
    webhook = register(database, event, receiver.url)
    sell(database, event, "ann")
    start_webhooks()
    wait_until(lambda: delivered(database, webhook) == 1)
    wait_until(lambda: foreign.id in queue.failed_job_registry.get_job_ids())
    result = foreign.latest_result()
    assert result is not None
    assert "ForeignJob: 'os.mkdir' is not what this queue is for" in str(result.exc_string)
    assert not (tmp_path / "made").exists()


def test_a_message_is_delivered_however_often_its_webhook_is_enqueued(
    settings: Settings, database: Database, redis_client: redis.Redis, event: EventRecord, receiver: Receiver
) -> None:
    """Two processes may both find that it is in no queue."""
    webhook = register(database, event, receiver.url)
    sell(database, event, "ann")
    make_all(database)
    jobs = WebhookJobs(redis_client, SystemClock(), settings)
    jobs.enqueue([(webhook.id, False)])
    redis_client.rpush(f"rq:queue:{QUEUE_NAME}", f"webhook-{webhook.id}")
    stopping = threading.Event()
    thread = threading.Thread(target=run_webhooks, args=(settings, SystemClock(), stopping))
    thread.start()
    wait_until(lambda: delivered(database, webhook) == 1 and not redis_client.llen("rq:queue:webhooks"))
    stopping.set()
    thread.join()
    assert len(receiver.received) == 1
    [message] = messages_of(database, webhook)
    assert len(attempts_of(database, message)) == 1


def test_the_time_limits_of_a_delivery_fit_into_each_other(settings: Settings) -> None:
    longest = Settings.model_fields["webhooks_attempt_seconds_max"].metadata
    [attempt_seconds_max] = [bound.le for bound in longest if hasattr(bound, "le")]
    seconds = limits.WEBHOOK_STRETCH_SECONDS_MAX + attempt_seconds_max
    assert seconds + 2 * settings.transaction_seconds_max < limits.WEBHOOK_JOB_SECONDS_MAX
