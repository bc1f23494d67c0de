"""Bring the schema up to date, once, however many processes ask for it at the same time."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, create_engine, text

from shared.database.roles import grant_rights

MIGRATION_LOCK = 0x4F4E53414C45
"""Key of the advisory lock under which migrations run: the bytes of `ONSALE`."""


def migrate(database_url: str, revision: str = "head", *, passwords_directory: Path | None = None) -> None:
    """Bring a database to a revision, up or down. Waits for another process that does the same.

    At the newest revision the roles get their rights, and the passwords that the directory has for them.

    Raises:
        sqlalchemy.exc.OperationalError: PostgreSQL can't be reached.
        OSError: a password can't be read.
    """
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg2://", 1))
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            configuration = _configuration(connection)
            current = MigrationContext.configure(connection).get_current_revision()
            if revision != "head" and current is not None and revision < current:
                command.downgrade(configuration, revision)
            else:
                command.upgrade(configuration, revision)
            if revision == "head":
                grant_rights(connection, passwords_directory)
    finally:
        engine.dispose()


def _configuration(connection: Connection) -> Config:
    configuration = Config()
    configuration.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    configuration.attributes["connection"] = connection
    return configuration
