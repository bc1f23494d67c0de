"""The same Idempotency-Key is the same job, whoever is asked and however late."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import redis
from rq.job import Job
from rq.serializers import JSONSerializer

from local.servers import PostgresServer, ValkeyServer
from shared.clock import SystemClock
from shared.database import statements
from shared.database.engine import Database
from shared.identifiers import derived_id
from shared.line.codec import book_payload, cancel_payload
from shared.line.consumer import NO_CLAIM, Consumer
from shared.line.keys import ORDER, RQ_JOB, RQ_RESULTS
from shared.line.producer import Submission
from shared.settings import Settings
from tests.builders import (
    apply_waiting,
    assert_books_balance,
    book,
    create_event,
    outcomes_in_ledger,
    own_client,
    seed,
    submit,
    violations,
    wait_until,
)
from tests.conftest import StartWorker
from tests.serving import serving
from worker.batch import apply_to_database


def post(
    api: httpx.Client, event_id: str, key: str, *, user_id: str = "ann", wait: bool = False
) -> httpx.Response:
    headers = {"Idempotency-Key": key, **({"Prefer": "wait=10"} if wait else {})}
    return api.post(
        f"/events/{event_id}/bookings", json={"user_id": user_id, "ticket_count": 1}, headers=headers
    )


def test_a_key_sent_again_while_the_command_waits_gives_the_same_job(
    api: httpx.Client, database: Database
) -> None:
    event = create_event(database)
    first, second = post(api, event.id, "k1"), post(api, event.id, "k1")
    other = post(api, event.id, "k2")
    assert first.status_code == second.status_code == 202
    assert second.json() == first.json()
    assert [first.json()["position"], other.json()["position"]] == [1, 2]


def test_a_key_sent_by_many_at_once_is_accepted_once(
    api: httpx.Client, database: Database, start_worker: StartWorker
) -> None:
    event = create_event(database)
    start_worker()

    def send(_: int) -> httpx.Response:
        with own_client(api) as own:
            return post(own, event.id, "k1", wait=True)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, range(32)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(outcomes_in_ledger(database, event.id)) == 1


def test_a_key_sent_again_when_it_is_done_gives_its_result(
    api: httpx.Client, database: Database, start_worker: StartWorker, redis_client: redis.Redis
) -> None:
    event = create_event(database)
    start_worker()
    booked = post(api, event.id, "k1", wait=True)
    assert post(api, event.id, "k1", wait=True).json() == booked.json()
    again = post(api, event.id, "k1")
    assert (again.status_code, again.json()["status"]) == (202, "succeeded")
    # There is nothing left to ask again for.
    assert "retry-after" not in again.headers
    redis_client.flushdb()
    late = post(api, event.id, "k1", wait=True)
    assert (late.status_code, late.json()) == (201, booked.json())
    assert post(api, event.id, "k1").json()["done"]
    assert len(outcomes_in_ledger(database, event.id)) == 1


def test_a_key_of_a_cancellation_is_the_same_job_after_its_booking_was_refused(
    api: httpx.Client, database: Database, start_worker: StartWorker, redis_client: redis.Redis
) -> None:
    event = create_event(database, max_tickets_per_user=1)
    booked, refused = (post(api, event.id, key).json()["id"] for key in ("k1", "k2"))

    def cancel(booking_id: str, **headers: str) -> httpx.Response:
        return api.delete(f"/bookings/{booking_id}", headers=headers)

    key = {"Idempotency-Key": "k3"}
    first = cancel(refused, **key)
    assert first.status_code == 202
    start_worker()
    wait_until(lambda: api.get(f"/jobs/{first.json()['id']}").json()["done"])
    for _ in ("Redis knows the job", "only the ledger does"):
        again = cancel(refused, **key)
        assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
        assert again.json()["error"]["type"] == "booking-not-found"
        assert cancel(refused, **key, Prefer="wait=5").json() == again.json()["error"]
        assert cancel(refused).status_code == 404
        assert cancel(refused, **{"Idempotency-Key": "another"}).status_code == 404
        for other, its_key in ((booked, "k3"), (refused, "k1")):
            reused = cancel(other, **{"Idempotency-Key": its_key})
            assert (reused.status_code, reused.json()["type"]) == (422, "idempotency-key-reused")
        redis_client.flushdb()
    assert len(outcomes_in_ledger(database, event.id)) == 3


def test_a_key_means_the_same_job_at_every_process_and_after_a_restart_of_redis(
    settings: Settings,
    api: httpx.Client,
    database: Database,
    valkey: ValkeyServer,
    start_worker: StartWorker,
) -> None:
    event = create_event(database)
    with serving(settings) as other:
        first = post(api, event.id, "k1").json()
        assert post(other.client, event.id, "k1").json()["id"] == first["id"]
        valkey.stop()
        valkey.start()
        for client in (api, other.client):
            again = post(client, event.id, "k1").json()
            assert (again["id"], again["position"]) == (first["id"], 1)
        start_worker()
        assert post(other.client, event.id, "k1", wait=True).json()["id"] == first["id"]
        assert post(other.client, event.id, "k1", user_id="bob").status_code == 422
    assert len(outcomes_in_ledger(database, event.id)) == 1


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_key_sent_with_another_command_is_refused(
    api: httpx.Client,
    database: Database,
    start_worker: StartWorker,
    redis_client: redis.Redis,
    forgotten: bool,
) -> None:
    event, other = create_event(database), create_event(database)
    start_worker()
    booking = post(api, event.id, "k1", wait=True).json()
    if forgotten:
        redis_client.flushdb()
    for answer in (
        post(api, event.id, "k1", user_id="bob"),
        post(api, other.id, "k1"),
        api.delete(f"/bookings/{booking['id']}", headers={"Idempotency-Key": "k1"}),
    ):
        assert answer.status_code == 422
        assert answer.json()["type"] == "idempotency-key-reused"


def test_a_cancellation_sent_again_gives_the_same_job(
    api: httpx.Client, database: Database, start_worker: StartWorker
) -> None:
    event = create_event(database)
    start_worker()
    booking = post(api, event.id, "k1", wait=True).json()
    headers = {"Idempotency-Key": "k2", "Prefer": "wait=10"}
    first, second = (api.delete(f"/bookings/{booking['id']}", headers=headers) for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json()


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "ü"])
def test_a_malformed_key_is_refused(api: httpx.Client, database: Database, key: str) -> None:
    event = create_event(database)
    answer = api.post(
        f"/events/{event.id}/bookings",
        json={"user_id": "ann", "ticket_count": 1},
        headers=[(b"Idempotency-Key", key.encode())],
    )
    assert answer.status_code == 400
    assert answer.json()["type"] == "idempotency-key-malformed"


def test_without_postgresql_a_keyed_command_is_accepted(
    api: httpx.Client, database: Database, postgres: PostgresServer, start_worker: StartWorker
) -> None:
    event = create_event(database)
    post(api, event.id, "k0")
    postgres.stop()
    try:
        answers = [post(api, event.id, "k1") for _ in range(2)]
    finally:
        postgres.start()
    # The connections of the test itself are lost too.
    database.engine.dispose()
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    start_worker()
    wait_until(lambda: api.get(f"/jobs/{answers[0].json()['id']}").json()["done"])
    assert len(outcomes_in_ledger(database, event.id)) == 2


@pytest.mark.parametrize("unchecked", [True, False])
def test_a_repetition_that_nobody_looked_up_fills_its_position_and_applies_nothing(
    settings: Settings, database: Database, redis_client: redis.Redis, unchecked: bool
) -> None:
    """Also where the API looked, too early to see it applied, and Redis has forgotten it since."""
    event = create_event(database)
    seed(settings, event)
    first = book(event.id, "ann")
    submit(settings, [first])
    consumer = Consumer(redis_client, settings, worker_name="w")
    applied = apply_to_database(database, SystemClock(), event.id, consumer.peek(event.id).commands, NO_CLAIM)
    redis_client.flushdb()
    with database.transaction() as connection:
        found = statements.find_event(connection, event.id)
    assert found is not None
    seed(settings, found)
    repeated = Submission(
        job_id=first.job_id, event_id=event.id, payload=book_payload("ann", 1), unchecked=unchecked
    )
    acceptances = submit(settings, [repeated, book(event.id, "bob")])
    assert [each.position for each in acceptances] == [2, 3]
    for _ in range(2):
        waiting = consumer.peek(event.id).commands
        batch = apply_to_database(database, SystemClock(), event.id, waiting, NO_CLAIM)
        assert batch.results[0] == applied.results[0]
    assert [outcome for _, _, outcome in outcomes_in_ledger(database, event.id)] == [
        "booked",
        "repeated",
        "booked",
    ]
    assert_books_balance(database, event.id)
    assert violations(database) == []


@pytest.mark.parametrize("kind", ["another user", "another event", "a cancellation"])
def test_a_key_that_nobody_looked_up_is_not_told_the_result_of_another_command(
    settings: Settings, api: httpx.Client, database: Database, redis_client: redis.Redis, kind: str
) -> None:
    event, other = create_event(database), create_event(database)
    for each in (event, other):
        seed(settings, each)
    first = book(event.id, "ann")
    submit(settings, [first])
    apply_waiting(settings, database, redis_client, event.id)
    # The result has expired, and then PostgreSQL is away for a moment.
    redis_client.delete(f"{RQ_JOB}{first.job_id}", f"{RQ_RESULTS}{first.job_id}")
    at, payload = {
        "another user": (event, book_payload("bob", 1)),
        "another event": (other, book_payload("ann", 1)),
        "a cancellation": (event, cancel_payload(first.job_id)),
    }[kind]
    submit(settings, [Submission(job_id=first.job_id, event_id=at.id, payload=payload, unchecked=True)])
    apply_waiting(settings, database, redis_client, at.id)
    told = api.get(f"/jobs/{first.job_id}")
    assert told.status_code == 200
    assert (told.json()["status"], told.json()["booking"]) == ("rejected", None)
    assert told.json()["error"]["type"] == "idempotency-key-reused"
    assert "immutable" not in told.headers["cache-control"]
    redis_client.delete(f"{RQ_JOB}{first.job_id}", f"{RQ_RESULTS}{first.job_id}")
    assert api.get(f"/jobs/{first.job_id}").json()["booking"]["user_id"] == "ann"
    assert [outcome for _, _, outcome in outcomes_in_ledger(database, at.id)][-1] == "repeated"
    for each in (event, other):
        assert_books_balance(database, each.id)
    assert violations(database) == []


@pytest.mark.parametrize("batch_commands_max", [1, 1_000])
def test_a_key_sent_again_after_its_job_was_deleted_holds_up_nobody(
    settings: Settings, database: Database, redis_client: redis.Redis, batch_commands_max: int
) -> None:
    """A tool of RQ deletes jobs, not their places in line: the command fails there, as it is told to fail."""
    event = create_event(database)
    seed(settings, event)
    first, second, last = (book(event.id, user_id) for user_id in ("ann", "bob", "cid"))
    submit(settings, [first, second])
    Job.fetch(first.job_id, connection=redis_client, serializer=JSONSerializer).delete()
    [again] = submit(settings, [first])
    submit(settings, [last])
    assert (again.position, again.known) == (3, False)
    steps = settings.model_copy(update={"batch_commands_max": batch_commands_max})
    for _ in range(4 // min(batch_commands_max, 4)):
        apply_waiting(steps, database, redis_client, event.id)
    assert [(job_id, outcome) for _, job_id, outcome in outcomes_in_ledger(database, event.id)] == [
        (first.job_id, "command-unreadable"),
        (second.job_id, "booked"),
        (derived_id("repeat", first.job_id, "3"), "repeated"),
        (last.job_id, "booked"),
    ]
    assert redis_client.llen(f"{ORDER}{event.id}") == 0
    assert_books_balance(database, event.id)
    assert violations(database) == []
