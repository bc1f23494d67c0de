"""The RQ dashboard in a real browser, and that whatever it offers breaks no promise."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import httpx
import pytest
import redis
from playwright.sync_api import Page, expect
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from shared.database.engine import Database
from shared.line.producer import Submission
from shared.records import EventRecord
from shared.settings import Settings
from tests.browser.pictures import take
from tests.builders import (
    book,
    create_event,
    outcomes_in_ledger,
    queue_length,
    seed,
    submit,
    violations,
    wait_until,
)
from tests.conftest import StartWorker
from tests.dashboards import serving_dashboard

Result = TypeVar("Result")

QUEUES_LISTED = 100
LONG_LINE = 5_000


@pytest.fixture
def dashboard(settings: Settings, project_root: Path) -> Iterator[httpx.Client]:
    environment = os.environ | {"REDIS_URL": settings.redis_url, "PYTHONPATH": str(project_root)}
    with serving_dashboard(environment) as client:
        yield client


@pytest.fixture
def event(settings: Settings, database: Database, redis_client: redis.Redis) -> EventRecord:
    return on_sale(settings, database)


def elsewhere(call: Callable[[], Result]) -> Result:
    """Playwright's event loop has this thread; what needs one of its own runs in another."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def on_sale(settings: Settings, database: Database) -> EventRecord:
    event = create_event(database, total_tickets=3, max_tickets_per_user=1)
    elsewhere(lambda: seed(settings, event))
    return event


def stand_in_line(settings: Settings, event: EventRecord, users: int) -> list[Submission]:
    commands = [book(event.id, f"user{number}") for number in range(users)]
    elsewhere(lambda: submit(settings, commands, line_length_max=LONG_LINE))
    return commands


def rows(page: Page) -> list[list[str]]:
    return [row.inner_text().split("\t") for row in page.locator("tr[data-role=queue]").all()]


def rq_queue(client: redis.Redis, event: EventRecord) -> Queue:
    return Queue(f"event:{event.id}", connection=client, serializer=JSONSerializer)


def job_rows(page: Page) -> list[str]:
    return [row.inner_text() for row in page.locator("tr[data-role=job]").all()]


@pytest.mark.parametrize("quiet", [0, 99, 9_999])
def test_the_list_of_queues_stays_usable_with_the_longest_lines_first(
    page: Page,
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    dashboard: httpx.Client,
    quiet: int,
) -> None:
    hot = on_sale(settings, database)
    stand_in_line(settings, hot, 300)
    with redis_client.pipeline(transaction=False) as pipeline:
        for number in range(quiet):
            key = f"rq:queue:event:00000000-0000-7000-8000-{number:012}"
            pipeline.sadd("rq:queues", key)
            pipeline.rpush(key, *(f"job-{number}-{place}" for place in range(1 + number % 7)))
        pipeline.execute()
    page.goto(str(dashboard.base_url))
    expect(page.locator("tr[data-role=queue]")).to_have_count(min(quiet + 1, QUEUES_LISTED))
    listed = rows(page)
    assert (listed[0][0], listed[0][1].strip()) == (f"event:{hot.id}", "300")
    lengths = [int(row[1]) for row in listed]
    assert lengths == sorted(lengths, reverse=True)
    expect(page.get_by_text(f"The {QUEUES_LISTED} longest lines are listed.")).to_be_visible()


def test_a_line_that_is_not_listed_can_be_looked_at_all_the_same(
    page: Page, settings: Settings, event: EventRecord, redis_client: redis.Redis, dashboard: httpx.Client
) -> None:
    stand_in_line(settings, event, 9)
    page.goto(f"{dashboard.base_url}/0/view/jobs/event:{event.id}/queued/8/asc/1")
    expect(page.locator("tr[data-role=job]")).to_have_count(8)


def test_a_long_line_is_shown_page_by_page_with_its_end(
    page: Page, settings: Settings, event: EventRecord, redis_client: redis.Redis, dashboard: httpx.Client
) -> None:
    stand_in_line(settings, event, LONG_LINE)
    page.goto(str(dashboard.base_url))
    expect(page.locator("tr[data-role=queue]")).to_contain_text(str(LONG_LINE))
    take(page, "dashboard-queues")
    page.get_by_role("link", name=str(LONG_LINE)).click()
    expect(page.locator("tr[data-role=job]")).to_have_count(8)
    assert "book 1 for user0" in job_rows(page)[0]
    take(page, "dashboard-line")
    page.goto(f"{dashboard.base_url}/0/view/jobs/event:{event.id}/queued/8/asc/{LONG_LINE // 8}")
    expect(page.locator("tr[data-role=job]").last).to_contain_text(f"user{LONG_LINE - 1}")


def test_jobs_show_what_became_of_them_and_workers_what_they_do(
    page: Page,
    settings: Settings,
    event: EventRecord,
    database: Database,
    redis_client: redis.Redis,
    dashboard: httpx.Client,
    start_worker: StartWorker,
) -> None:
    rq_queue(redis_client, event).enqueue("os.system", "true")
    commands = stand_in_line(settings, event, 4)
    start_worker("shown-worker")
    wait_until(lambda: len(outcomes_in_ledger(database, event.id)) == 4)
    wait_until(lambda: queue_length(redis_client, event.id) == 0)
    page.goto(f"{dashboard.base_url}/0/view/jobs/event:{event.id}/finished/8/asc/1")
    expect(page.locator("tr[data-role=job]")).to_have_count(4)
    page.goto(f"{dashboard.base_url}/0/view/job/{commands[0].job_id}")
    expect(page.get_by_text("finished")).to_be_visible()
    expect(page.get_by_text("booked")).to_be_visible()
    page.goto(f"{dashboard.base_url}/0/view/job/{commands[3].job_id}")
    expect(page.get_by_text("not-enough-tickets")).to_be_visible()
    page.goto(f"{dashboard.base_url}/0/view/jobs/event:{event.id}/failed/8/asc/1")
    expect(page.locator("tr[data-role=job]")).to_contain_text("not accepted")
    page.goto(f"{dashboard.base_url}/0/view/workers")
    expect(page.get_by_text("shown-worker")).to_be_visible()


def test_an_idle_event_leaves_the_list_and_comes_back_with_its_next_command(
    page: Page,
    settings: Settings,
    event: EventRecord,
    database: Database,
    redis_client: redis.Redis,
    dashboard: httpx.Client,
    start_worker: StartWorker,
) -> None:
    stand_in_line(settings, event, 1)
    page.goto(str(dashboard.base_url))
    expect(page.get_by_role("cell", name=f"event:{event.id}")).to_be_visible()
    worker = start_worker("brief")
    wait_until(lambda: queue_length(redis_client, event.id) == 0)
    # As when the time to live of its results is over.
    redis_client.delete(f"rq:finished:event:{event.id}")
    wait_until(lambda: not redis_client.sismember("rq:queues", f"rq:queue:event:{event.id}"))
    expect(page.get_by_role("cell", name=f"event:{event.id}")).to_be_hidden()
    worker.stop()
    elsewhere(lambda: submit(settings, [book(event.id, "late")]))
    expect(page.get_by_role("cell", name=f"event:{event.id}")).to_be_visible()


def test_requeueing_a_failed_job_in_the_browser_changes_nothing(
    page: Page,
    settings: Settings,
    event: EventRecord,
    database: Database,
    redis_client: redis.Redis,
    dashboard: httpx.Client,
    start_worker: StartWorker,
) -> None:
    queue = rq_queue(redis_client, event)
    foreign = queue.enqueue("os.system", "true")
    start_worker()
    wait_until(lambda: foreign.get_status(refresh=True) == "failed")
    page.goto(f"{dashboard.base_url}/0/view/jobs/event:{event.id}/failed/8/asc/1")
    page.get_by_role("link", name="Requeue", exact=True).click()
    wait_until(lambda: foreign.get_status(refresh=True) == "failed" and queue.count == 0)
    stand_in_line(settings, event, 2)
    wait_until(lambda: len(outcomes_in_ledger(database, event.id)) == 2)
    assert violations(database) == []


def requeue(client: httpx.Client, queue: str, job_id: str) -> httpx.Response:
    return client.post(f"/job/{job_id}/requeue")


def requeue_all(client: httpx.Client, queue: str, job_id: str) -> httpx.Response:
    return client.get(f"/requeue/{queue}")


def compact(client: httpx.Client, queue: str, job_id: str) -> httpx.Response:
    return client.post(f"/queue/{queue}/compact")


def delete(client: httpx.Client, queue: str, job_id: str) -> httpx.Response:
    return client.post(f"/job/{job_id}/delete")


def empty(client: httpx.Client, queue: str, job_id: str) -> httpx.Response:
    return client.post(f"/queue/{queue}/queued/empty")


@pytest.mark.parametrize("press", [requeue, requeue_all, compact, delete, empty])
def test_nothing_that_the_dashboard_can_be_asked_for_loses_or_repeats_a_command(
    settings: Settings,
    event: EventRecord,
    database: Database,
    redis_client: redis.Redis,
    dashboard: httpx.Client,
    start_worker: StartWorker,
    press: Callable[[httpx.Client, str, str], httpx.Response],
) -> None:
    first = stand_in_line(settings, event, 2)
    worker = start_worker("first")
    wait_until(lambda: len(outcomes_in_ledger(database, event.id)) == 2)
    wait_until(lambda: queue_length(redis_client, event.id) == 0)
    worker.stop()
    waiting = [book(event.id, f"late{number}") for number in range(3)]
    elsewhere(lambda: submit(settings, waiting))
    for command in (first[0], waiting[0], waiting[2]):
        press(dashboard, f"event:{event.id}", command.job_id)
    start_worker("second")
    wait_until(lambda: len(outcomes_in_ledger(database, event.id)) == 5)
    ledger = [job_id for _, job_id, _ in outcomes_in_ledger(database, event.id)]
    assert ledger == [command.job_id for command in [*first, *waiting]]
    outcomes = [outcome.value for _, _, outcome in outcomes_in_ledger(database, event.id)]
    assert outcomes == ["booked"] * 3 + ["not-enough-tickets"] * 2
    assert violations(database) == []
    for command in waiting:
        job = Job.fetch(command.job_id, connection=redis_client, serializer=JSONSerializer)
        wait_until(lambda job=job: job.get_status(refresh=True) == "finished")  # type: ignore[misc]
