"""The schema: what the migrations make is what the tables say."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, text

from local.servers import PostgresServer
from shared.clock import SystemClock
from shared.database import statements
from shared.database.engine import Database
from shared.database.migrate import migrate
from shared.database.tables import metadata
from shared.identifiers import new_id
from shared.line.codec import book_payload, decode_waiting_command, encode_job_data
from shared.line.consumer import NO_CLAIM
from shared.settings import Settings
from tests.builders import create_event, in_new_database, violations
from worker.batch import apply_to_database


def test_a_migrated_schema_equals_the_tables(postgres: PostgresServer) -> None:
    url = in_new_database(postgres, "migrated")
    migrate(url)
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg2://"))
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_constraints_of_a_migrated_schema_equal_those_of_the_tables(postgres: PostgresServer) -> None:
    migrated, created = in_new_database(postgres, "by_migration"), in_new_database(postgres, "by_tables")
    migrate(migrated)
    engine = create_engine(created.replace("postgresql://", "postgresql+psycopg2://"))
    metadata.create_all(engine)
    engine.dispose()
    assert constraints(migrated) == constraints(created)


def test_migrations_started_at_the_same_time_run_once(postgres: PostgresServer) -> None:
    url = in_new_database(postgres, "at_once")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate, [url] * 4))
    migrate(url)


def constraints(url: str) -> set[tuple[str, str]]:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg2://"))
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
                " WHERE conrelid::regclass::text = ANY(:tables)"
                " UNION SELECT indexname, indexdef FROM pg_indexes WHERE tablename = ANY(:tables)"
            ),
            {"tables": list(metadata.tables)},
        )
        found = {(str(name), str(definition)) for name, definition in rows}
    engine.dispose()
    return found


def test_data_survives_down_and_up(postgres: PostgresServer) -> None:
    url = in_new_database(postgres, "down_and_up")
    migrate(url)
    database = Database(Settings(database_url=url, redis_url="redis://localhost"), connections_max=1)
    event = create_event(database)
    waiting = [
        decode_waiting_command(
            new_id(),
            encode_job_data(event.id, book_payload("ann", 2)),
            b"2026-11-23T10:00:00.000000Z",
            b"1",
        )
    ]
    apply_to_database(database, SystemClock(), event.id, waiting, NO_CLAIM)
    database.close()
    migrate(url, "0001")
    migrate(url)
    assert violations(database) == []
    with database.transaction() as connection:
        kept = statements.find_event(connection, event.id)
    assert kept is not None
    assert (kept.available_tickets, kept.applied_position) == (8, 1)
    database.close()
