"""Servers that are frozen, gone or behind: bounded waits, clear answers, and nothing lost."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg2
import pytest
import redis

from local.servers import PostgresServer, ValkeyServer
from shared.clock import SystemClock
from shared.database import statements
from shared.database.engine import Database
from shared.errors import DatabaseUnavailable, LineUnavailable
from shared.identifiers import new_id
from shared.line.connections import connect, connect_async, connect_subscriber
from shared.line.consumer import Consumer
from shared.line.producer import Producer
from shared.line.replies import Replies
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
    wait_until,
)
from tests.conftest import StartWorker
from tests.processes import frozen
from tests.serving import serving

CONCERT = {"name": "Concert", "total_tickets": 10}


def post(api: httpx.Client, event_id: str, user_id: str, **headers: str) -> httpx.Response:
    with own_client(api) as own:
        return own.post(
            f"/events/{event_id}/bookings", json={"user_id": user_id, "ticket_count": 1}, headers=headers
        )


def test_a_frozen_postgresql_is_given_up(
    settings: Settings, postgres: PostgresServer, database: Database
) -> None:
    event = create_event(database)
    impatient = Database(settings.model_copy(update={"transaction_seconds_max": 0.5}), connections_max=1)
    with impatient.transaction() as connection:
        statements.ping(connection)
    assert postgres.pid is not None
    with frozen(postgres.pid), pytest.raises(DatabaseUnavailable), impatient.transaction() as connection:
        statements.find_event(connection, event.id)
    with impatient.transaction() as connection:
        assert statements.find_event(connection, event.id) is not None
    impatient.close()


def test_work_goes_on_after_postgresql_was_frozen(
    settings: Settings,
    api: httpx.Client,
    postgres: PostgresServer,
    database: Database,
    start_worker: StartWorker,
) -> None:
    event = create_event(database)
    start_worker()
    assert post(api, event.id, "ann", Prefer="wait=10").status_code == 201
    assert postgres.pid is not None
    with frozen(postgres.pid):
        accepted = [post(api, event.id, f"user{i}") for i in range(5)]
    assert [answer.status_code for answer in accepted] == [202] * 5
    wait_until(lambda: len(outcomes_in_ledger(database, event.id)) == 6)
    assert_books_balance(database, event.id)


@contextmanager
def read_only(postgres: PostgresServer) -> Iterator[None]:
    """PostgreSQL takes no writes, as a standby, or where its host stops them before its disk is full."""
    name = urlsplit(postgres.url).path.lstrip("/")
    with closing(
        psycopg2.connect(postgres.url, options="-c default_transaction_read_only=off")
    ) as connection:
        connection.autocommit = True
        cursor = connection.cursor()

        cursor.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        try:
            yield
        finally:
            # What is connected notices by itself.
            cursor.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')


def test_a_postgresql_that_takes_no_writes_is_waited_for(
    api: httpx.Client,
    postgres: PostgresServer,
    database: Database,
    start_worker: StartWorker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    event = create_event(database)
    start_worker()
    assert post(api, event.id, "ann", Prefer="wait=10").status_code == 201
    with read_only(postgres):
        assert post(api, event.id, "bob").status_code == 202
        # The first of them finds just that its connection was cut.
        for _ in range(2):
            made = api.post("/events", json=CONCERT)
            assert made.status_code == 503
            assert "retry-after" in made.headers
        assert api.get("/ready").json()["status"] == "degraded"
        wait_until(lambda: caplog.messages.count("work interrupted, trying again") >= 3)
    wait_until(lambda: api.get("/ready").json()["status"] == "ready")
    assert api.post("/events", json=CONCERT).status_code == 201
    database.close_idle()
    wait_until(lambda: len(outcomes_in_ledger(database, event.id)) == 2)
    assert_books_balance(database, event.id)


def test_a_frozen_redis_is_refused_to_all_who_wait(
    api: httpx.Client, valkey: ValkeyServer, database: Database, start_worker: StartWorker
) -> None:
    event = create_event(database)
    assert post(api, event.id, "ann").status_code == 202
    assert valkey.pid is not None
    with frozen(valkey.pid), ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda i: post(api, event.id, f"user{i}"), range(40)))
    assert {answer.status_code for answer in answers} == {503}
    assert all("retry-after" in answer.headers for answer in answers)
    start_worker()
    assert post(api, event.id, "zoe", Prefer="wait=10").status_code == 201
    assert_books_balance(database, event.id)


def test_a_consumer_frozen_with_the_row_locked_loses_it_together_with_its_claim(
    settings: Settings, database: Database, redis_client: redis.Redis, start_worker: StartWorker
) -> None:
    event, other = create_event(database), create_event(database)
    for each in (event, other):
        seed(settings, each)
        submit(settings, [book(each.id, "ann")])

    patient = Database(settings.model_copy(update={"transaction_seconds_max": 100}), connections_max=1)

    def be_frozen() -> None:
        with patient.transaction() as connection:
            statements.lock_event(connection, event.id)
            start_worker()
            wait_until(lambda: outcomes_in_ledger(database, other.id))
            wait_until(lambda: outcomes_in_ledger(database, event.id))
            statements.ping(connection)

    with pytest.raises(DatabaseUnavailable):
        be_frozen()
    patient.close()


def test_many_first_comers_get_positions_without_gaps(
    api: httpx.Client, database: Database, redis_client: redis.Redis, start_worker: StartWorker
) -> None:
    event = create_event(database, total_tickets=1_000)
    start_worker()
    with ThreadPoolExecutor(60) as pool:
        answers = list(pool.map(lambda i: post(api, event.id, f"user{i}"), range(180)))
    assert {answer.status_code for answer in answers} == {202}
    assert sorted(answer.json()["position"] for answer in answers) == list(range(1, 181))
    wait_until(lambda: len(outcomes_in_ledger(database, event.id)) == 180)


def test_more_readers_at_once_than_connections_are_all_answered(
    settings: Settings, database: Database, redis_client: redis.Redis, start_worker: StartWorker
) -> None:
    event = create_event(database, total_tickets=1_000)
    start_worker()

    async def ask_all(base_url: httpx.URL, job_id: str) -> Counter[int]:
        limits = httpx.Limits(max_connections=120)
        async with httpx.AsyncClient(base_url=base_url, timeout=60, limits=limits, verify=False) as client:
            paths = [f"/jobs/{job_id}", f"/events/{event.id}"] * 60
            return Counter(answer.status_code for answer in await asyncio.gather(*map(client.get, paths)))

    # They wait for a connection, on a busy machine longer than the usual limit.
    with serving(settings, redis_timeout_seconds=20.0) as served:
        job_id = post(served.client, event.id, "ann").json()["id"]
        assert asyncio.run(ask_all(served.client.base_url, job_id)) == {200: 120}


def test_a_result_sent_while_the_subscription_was_lost_is_asked_for(
    settings: Settings, database: Database, redis_client: redis.Redis
) -> None:
    event = create_event(database)
    seed(settings, event)

    async def run() -> str:
        client, subscriber = connect_async(settings), connect_subscriber(settings)
        producer = Producer(client, client, SystemClock(), settings)
        replies = Replies(subscriber, producer, process_id=new_id(), seconds_max=2.0)
        replies.start()
        try:
            command = book(event.id, "ann")
            with replies.expect(command.job_id) as reply:
                await producer.submit(command)
                await producer.read_job(command.job_id, reply_to=replies.channel)
                while not await client.pubsub_numsub(replies.channel) == [(replies.channel.encode(), 1)]:
                    await asyncio.sleep(0.01)
                redis_client.client_kill_filter(_type="pubsub")
                await asyncio.to_thread(apply_waiting, settings, database, redis_client, event.id)
                return (await asyncio.wait_for(reply, 20))["outcome"]
        finally:
            await replies.stop()
            await client.aclose()
            await subscriber.aclose()

    assert asyncio.run(run()) == "booked"


def test_a_redis_whose_data_folder_was_deleted_is_filled_again_from_postgresql(
    tmp_path: Path, settings: Settings, database: Database
) -> None:
    """What was applied is known, positions go on; what was accepted and not applied is gone with the disk."""
    with ValkeyServer(tmp_path / "data") as valkey:
        own = settings.model_copy(update={"redis_url": valkey.url})
        event = create_event(database)
        applied, lost, later = book(event.id, "ann"), book(event.id, "bob"), book(event.id, "cid")
        seed(own, event)
        submit(own, [applied])
        with connect(own) as client:
            apply_waiting(own, database, client, event.id)
            submit(own, [lost])
        valkey.stop()
        shutil.rmtree(tmp_path / "data")
        valkey.start()
        with database.transaction() as connection:
            known = statements.find_event(connection, event.id)
        assert known is not None
        seed(own, known)
        [acceptance] = submit(own, [later])
        assert acceptance.position == 2
        with connect(own) as client:
            apply_waiting(own, database, client, event.id)
    assert [job_id for _, job_id, _ in outcomes_in_ledger(database, event.id)] == [
        applied.job_id,
        later.job_id,
    ]
    assert_books_balance(database, event.id)


@contextmanager
def replicated(folder: Path) -> Iterator[tuple[ValkeyServer, ValkeyServer]]:
    """A primary, and a replica that has begun to tell of its disk."""
    with ValkeyServer(folder / "primary") as primary:
        follows = {"replicaof": f"127.0.0.1 {primary.port}"}
        with ValkeyServer(folder / "replica", settings=follows) as replica:
            with redis.Redis.from_url(primary.url) as client:
                # One that is online writes its own file anew first, and says nothing of its disk meanwhile.
                wait_until(lambda: _is_on_the_disk_of_a_replica(client))
            yield primary, replica


def test_a_command_that_was_accepted_survives_the_loss_of_the_primary(
    tmp_path: Path, settings: Settings, database: Database
) -> None:
    with replicated(tmp_path) as (primary, replica):
        durable = settings.model_copy(update={"redis_url": primary.url, "durable_replicas": 1})
        event = create_event(database, total_tickets=100)
        seed(durable, event)
        commands = [book(event.id, f"user{i}") for i in range(50)]
        accepted = submit(durable, commands)
        primary.kill()
        promoted = settings.model_copy(update={"redis_url": replica.url})
        with connect(promoted) as client:
            client.replicaof("NO", "ONE")
            waiting = Consumer(client, promoted, worker_name="w").peek(event.id).commands
    assert [each.command.id for each in waiting] == [command.job_id for command in commands]
    assert [each.position for each in waiting] == [each.position for each in accepted]


def test_a_command_sent_again_over_another_connection_waits_for_the_replica_too(
    tmp_path: Path, settings: Settings, database: Database
) -> None:
    """Redis waits for what the connection that asks has written, and this one would write nothing."""
    with replicated(tmp_path) as (primary, replica):
        changes = {"redis_url": primary.url, "durable_replicas": 1, "redis_timeout_seconds": 0.5}
        durable = settings.model_copy(update=changes)
        event = create_event(database)
        seed(durable, event)
        command = book(event.id, "ann")
        assert replica.pid is not None
        with frozen(replica.pid):
            for _ in range(2):
                with pytest.raises(LineUnavailable, match="0 of 1 replicas"):
                    submit(durable, [command])
        patient = durable.model_copy(update={"redis_timeout_seconds": 10.0})
        [acceptance] = submit(patient, [command])
        assert (acceptance.position, acceptance.known) == (1, True)


def _is_on_the_disk_of_a_replica(client: redis.Redis) -> bool:
    client.set("written", "now")
    _, replicas = client.waitaof(1, 1, 100)
    return replicas == 1


def test_without_its_replica_a_command_is_not_acknowledged(
    settings: Settings, database: Database, redis_client: redis.Redis
) -> None:
    event = create_event(database)
    seed(settings, event)
    durable = settings.model_copy(update={"durable_replicas": 1, "redis_timeout_seconds": 0.5})
    with pytest.raises(LineUnavailable, match="0 of 1 replicas"):
        submit(durable, [book(event.id, "ann")])
