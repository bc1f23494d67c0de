"""The database's roles: the product runs under them, and each is refused what is not its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg2
import pytest
import redis
from psycopg2.errors import InsufficientPrivilege
from sqlalchemy import text

from local.servers import PostgresServer
from shared.database.engine import Database
from shared.database.migrate import migrate
from shared.database.roles import API, RIGHTS, WEBHOOKS, WORKER
from shared.settings import Settings
from tests.builders import violations, wait_until
from tests.conftest import StartWebhooks, StartWorker
from tests.serving import serving

WAIT = {"Prefer": "wait=10"}


@pytest.fixture(scope="module")
def logins(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The URL with which each role logs in."""
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


@pytest.fixture
def api(settings: Settings, logins: dict[str, str], database: Database) -> Iterator[httpx.Client]:
    with serving(settings, database_url=logins[API], webhooks_allow_private=True) as served:
        yield served.client


def test_the_product_runs_under_its_roles(
    settings: Settings,
    logins: dict[str, str],
    database: Database,
    redis_client: redis.Redis,
    api: httpx.Client,
    start_worker: StartWorker,
    start_webhooks: StartWebhooks,
) -> None:
    worker_database = Database(
        settings.model_copy(update={"database_url": logins[WORKER]}), connections_max=1
    )
    start_worker("worker", worker_database)
    start_webhooks(database_url=logins[WEBHOOKS], webhooks_allow_private=True)
    event = api.post("/events", json={"name": "Test Event", "total_tickets": 3}).json()["id"]
    url = f"/events/{event}"
    webhook = api.post(
        f"{url}/webhooks", json={"url": "https://127.0.0.1:1/", "types": ["booking.created"]}
    ).json()
    booked = api.post(f"{url}/bookings", json={"user_id": "ann", "ticket_count": 2}, headers=WAIT)
    assert booked.status_code == 201
    assert api.patch(url, json={"total_tickets": 4, "name": "Renamed"}, headers=WAIT).status_code == 200
    cancelled = api.delete(f"/bookings/{booked.json()['id']}", headers=WAIT)
    assert cancelled.json()["status"] == "cancelled"
    for path in (url, "/events", f"{url}/bookings", f"{url}/ledger", f"/jobs/{booked.json()['id']}"):
        assert api.get(path).status_code == 200
    assert api.post(f"/webhooks/{webhook['id']}/secret").status_code == 200
    log = f"/webhooks/{webhook['id']}/messages"
    wait_until(lambda: [message["attempts"] > 0 for message in api.get(log).json()["items"]] == [True])
    assert api.delete(f"/webhooks/{webhook['id']}").status_code == 204
    assert violations(worker_database) == []
    worker_database.close()


def test_the_rights_are_those_of_the_table(
    postgres: PostgresServer, logins: dict[str, str], database: Database
) -> None:
    with database.transaction() as connection:
        found = {
            (role, table, right)
            for role, table, right in connection.execute(
                text(
                    "SELECT grantee, table_name, privilege_type FROM information_schema.role_table_grants"
                    " WHERE grantee = ANY(:roles)"
                    " UNION SELECT grantee, table_name, privilege_type || ' (' || column_name || ')'"
                    " FROM information_schema.role_column_grants AS columns WHERE grantee = ANY(:roles)"
                    " AND NOT EXISTS (SELECT FROM information_schema.role_table_grants AS tables"
                    " WHERE tables.grantee = columns.grantee AND tables.table_name = columns.table_name"
                    " AND tables.privilege_type = columns.privilege_type)"
                ),
                {"roles": list(RIGHTS)},
            )
        }
    assert found == {
        (role, table, right)
        for role, tables in RIGHTS.items()
        for table, rights in tables.items()
        for right in rights
    }


REFUSED = [
    (API, "INSERT INTO bookings DEFAULT VALUES"),
    (API, "UPDATE bookings SET user_id = 'eve'"),
    (API, "DELETE FROM bookings"),
    (API, "INSERT INTO ledger DEFAULT VALUES"),
    (API, "DELETE FROM ledger"),
    (API, "UPDATE events SET available_tickets = total_tickets"),
    (API, "UPDATE events SET organiser_id = 'eve'"),
    (API, "DELETE FROM events"),
    (API, "INSERT INTO api_keys DEFAULT VALUES"),
    (API, "UPDATE api_keys SET role = 'organiser'"),
    (API, "SELECT pg_read_file('/etc/passwd')"),
    (WORKER, "DELETE FROM bookings"),
    (WORKER, "UPDATE bookings SET user_id = 'eve'"),
    (WORKER, "UPDATE ledger SET outcome = 'booked'"),
    (WORKER, "DELETE FROM ledger"),
    (WORKER, "INSERT INTO events DEFAULT VALUES"),
    (WORKER, "UPDATE events SET max_tickets_per_user = 100"),
    (WORKER, "UPDATE events SET organiser_id = 'eve'"),
    (WORKER, "SELECT * FROM api_keys"),
    (WORKER, "SELECT secret FROM webhooks"),
    (WEBHOOKS, "INSERT INTO bookings DEFAULT VALUES"),
    (WEBHOOKS, "SELECT * FROM bookings"),
    (WEBHOOKS, "SELECT * FROM api_keys"),
    (WEBHOOKS, "UPDATE events SET name = 'eve'"),
    *(
        (role, statement)
        for role in RIGHTS
        for statement in (
            "ALTER TABLE bookings DISABLE TRIGGER ALL",
            "DROP TRIGGER keep_the_count_of_inserted ON bookings",
            "DROP TABLE ledger",
            "TRUNCATE bookings",
            "CREATE TABLE mine (id int)",
            "SET session_replication_role = replica",
            "CREATE ROLE mine",
            "ALTER ROLE onsale_worker SUPERUSER",
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("role", "statement"), REFUSED)
def test_a_role_is_refused_what_is_not_its_own(logins: dict[str, str], role: str, statement: str) -> None:
    connection = psycopg2.connect(logins[role])
    try:
        with connection.cursor() as cursor, pytest.raises(InsufficientPrivilege):
            cursor.execute(statement)
    finally:
        connection.close()


def test_rights_that_were_given_by_hand_are_taken_back(
    postgres: PostgresServer, logins: dict[str, str], database: Database
) -> None:
    with database.transaction() as connection:
        connection.execute(text(f"GRANT ALL ON bookings TO {API}"))
    migrate(postgres.url)
    with database.transaction() as connection:
        may = connection.execute(text(f"SELECT has_table_privilege('{API}', 'bookings', 'INSERT')"))
        assert may.scalar_one() is False


def test_a_password_that_is_missing_is_named(postgres: PostgresServer, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="onsale_api"):
        migrate(postgres.url, passwords_directory=tmp_path)
