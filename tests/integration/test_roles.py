"""The database's roles: the product runs under them, and each is refused what is not its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg2
import pytest
import redis
from psycopg2.errors import CheckViolation, InsufficientPrivilege
from sqlalchemy import text

from local.logins import make_logins
from local.servers import PostgresServer
from shared.database.engine import Database
from shared.database.migrate import migrate
from shared.database.roles import API, RIGHTS, WEBHOOKS, WORKER
from shared.identifiers import new_id
from shared.settings import Settings
from tests.builders import create_event, violations, wait_until
from tests.conftest import StartWebhooks, StartWorker
from tests.serving import serving

WAIT = {"Prefer": "wait=10"}


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
    start_worker()
    start_webhooks(webhooks_allow_private=True)
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


def test_temporary_tables_do_not_hide_the_real_ones_from_the_safety_net(
    logins: dict[str, str], database: Database
) -> None:
    create_event(database)
    connection = psycopg2.connect(logins[WORKER])
    try:
        with connection.cursor() as cursor:
            # Without a fixed search path these are found first, and the net counts in them.
            cursor.execute("CREATE TEMPORARY TABLE events AS SELECT * FROM public.events")
            cursor.execute("CREATE TEMPORARY TABLE bookings AS SELECT * FROM public.bookings")
            with pytest.raises(CheckViolation):
                cursor.execute(
                    "INSERT INTO public.bookings"
                    " SELECT gen_random_uuid(), id, 'mallory', 1, 'active', now(), now()"
                    " FROM public.events, generate_series(1, 3)"
                )
    finally:
        connection.close()


def test_the_safety_net_counts_also_for_who_may_not_count(database: Database) -> None:
    event = create_event(database)
    with database.transaction() as connection:
        connection.execute(text("CREATE ROLE clerk"))
        connection.execute(text("GRANT SELECT, INSERT ON bookings TO clerk"))
        connection.execute(text("SET LOCAL ROLE clerk"))
        connection.execute(
            text(
                f"INSERT INTO bookings VALUES ('{new_id()}', '{event.id}', 'ann', 2, 'active', now(), now())"
            )
        )
        connection.execute(text("RESET ROLE"))
        connection.execute(text("DROP OWNED BY clerk"))
        connection.execute(text("DROP ROLE clerk"))
        left = connection.execute(text("SELECT available_tickets FROM events")).scalar_one()
    assert left == event.total_tickets - 2


def test_postgresql_never_sees_a_password(tmp_path: Path) -> None:
    with PostgresServer(tmp_path / "postgres", settings={"log_statement": "all"}) as server:
        logins = make_logins(server.url, tmp_path / "passwords")
        migrate(server.url, passwords_directory=logins.passwords_directory)
        for role, url in logins.urls.items():
            psycopg2.connect(url).close()
            log = server.log_path.read_text()
            assert f'ALTER ROLE "{role}" LOGIN PASSWORD' in log
            password = urlsplit(url).password
            assert password is not None
            assert password not in log


def test_rights_that_were_given_by_hand_are_taken_back(
    postgres: PostgresServer, logins: dict[str, str], database: Database
) -> None:
    with database.transaction() as connection:
        connection.execute(text(f"GRANT ALL ON bookings TO {API}"))
        connection.execute(text(f"GRANT CREATE ON SCHEMA public TO {API}, PUBLIC"))
    migrate(postgres.url)
    with database.transaction() as connection:
        may = connection.execute(text(f"SELECT has_table_privilege('{API}', 'bookings', 'INSERT')"))
        assert may.scalar_one() is False
        may = connection.execute(text(f"SELECT has_schema_privilege('{API}', 'public', 'CREATE')"))
        assert may.scalar_one() is False


def test_a_password_that_is_missing_is_named(postgres: PostgresServer, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="onsale_api"):
        migrate(postgres.url, passwords_directory=tmp_path)
