"""Real servers for the whole run, and a clean line and database for each test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg2
import pytest
import redis

from local.servers import PostgresServer, ValkeyServer
from shared.clock import SystemClock
from shared.database.engine import Database
from shared.database.migrate import migrate
from shared.database.roles import API, RIGHTS, WEBHOOKS, WORKER
from shared.line.connections import connect
from shared.settings import Settings
from tests.builders import build_worker, tamper
from tests.serving import serving
from worker.consume import Worker
from worker.webhooks.process import run_webhooks

IDLE_SECONDS_MAX = 30.0

StartWorker = Callable[..., Worker]
StartWebhooks = Callable[..., threading.Event]


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with PostgresServer(tmp_path_factory.mktemp("postgres") / "data") as server:
        _make_logins_quick(server)
        yield server


def _make_logins_quick(server: PostgresServer) -> None:
    """Tests log in thousands of times, and to hash the password as often as is usual takes half of it."""
    password = urlsplit(server.url).password
    with closing(psycopg2.connect(server.url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("SET LOCAL scram_iterations = 1; ALTER ROLE onsale PASSWORD %s", (password,))


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    # Tests restart it, and it should not read what hundreds of others have written before them.
    often = {"auto-aof-rewrite-min-size": "4mb"}
    with ValkeyServer(tmp_path_factory.mktemp("valkey") / "data", settings=often) as server:
        yield server


@pytest.fixture(scope="session")
def logins(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The migrated database, by URLs with which the role of each process logs in."""
    directory = tmp_path_factory.mktemp("passwords")
    urls = {}
    for role in RIGHTS:
        (directory / role).mkdir()
        password = f"{role}'s \\ password"
        (directory / role / "password").write_text(password + "\n")
        settings = Settings(
            database_url=f"postgresql://{role}@{postgres.url.rpartition('@')[2]}",
            redis_url="redis://nowhere",
            database_password_file=directory / role / "password",
        )
        urls[role] = settings.database_url
    migrate(postgres.url, passwords_directory=directory)
    return urls


@pytest.fixture(scope="session")
def migrated_url(postgres: PostgresServer, logins: dict[str, str]) -> str:
    return postgres.url


@pytest.fixture
def settings(migrated_url: str, valkey: ValkeyServer) -> Settings:
    """Short waits, so that a test of a time limit does not take one."""
    return Settings(
        database_url=migrated_url,
        redis_url=valkey.url,
        lease_seconds=1.0,
        idle_wait_seconds=0.1,
        webhooks_look_seconds=0.1,
        sweep_seconds=1.0,
    )


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    # A transaction of a test may lie idle longer than a claim lasts there: on a busy machine it has to.
    patient = settings.model_copy(update={"lease_seconds": IDLE_SECONDS_MAX})
    database = Database(patient, connections_max=5)
    tamper(
        database,
        "TRUNCATE events, bookings, ledger, api_keys, webhooks, webhook_messages, webhook_attempts",
    )
    yield database
    database.close()


@pytest.fixture
def redis_client(settings: Settings) -> Iterator[redis.Redis]:
    client = connect(settings)
    client.flushdb()
    yield client
    client.close()


@pytest.fixture
def start_worker(
    settings: Settings, logins: dict[str, str], database: Database, redis_client: redis.Redis
) -> Iterator[StartWorker]:
    """Starts workers in threads of this process; all are stopped at the end."""
    with ExitStack() as stack:
        own = Database(settings.model_copy(update={"database_url": logins[WORKER]}), connections_max=5)
        stack.callback(own.close)

        def start(name: str = "test-worker") -> Worker:
            worker = build_worker(settings, own, name=name)
            thread = threading.Thread(target=worker.run, name=name)
            thread.start()
            stack.callback(thread.join)
            stack.callback(worker.stop)
            return worker

        yield start


@pytest.fixture
def start_webhooks(
    settings: Settings, logins: dict[str, str], database: Database, redis_client: redis.Redis
) -> Iterator[StartWebhooks]:
    """Starts the webhooks process in threads, with other settings; all are stopped at the end."""
    with ExitStack() as stack:

        def start(**changes: object) -> threading.Event:
            stopping = threading.Event()
            own = settings.model_copy(update={"database_url": logins[WEBHOOKS], **changes})
            thread = threading.Thread(target=run_webhooks, args=(own, SystemClock(), stopping))
            thread.start()
            stack.callback(thread.join)
            stack.callback(stopping.set)
            return stopping

        yield start


@pytest.fixture
def api(
    settings: Settings, logins: dict[str, str], database: Database, redis_client: redis.Redis
) -> Iterator[httpx.Client]:
    """A client of an API that runs in a thread, on a socket of its own."""
    with serving(settings, database_url=logins[API]) as served:
        yield served.client


@pytest.fixture
def clock() -> SystemClock:
    return SystemClock()


@pytest.fixture
def project_root() -> Path:
    return Path(__file__).parent.parent
