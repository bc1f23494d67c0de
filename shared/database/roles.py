"""What each process may do in the database: rights of its role, and no more.

The safety net against a process that was taken over or has a defect: the API can't write what was sold, and
nobody but the owner can change the schema or put a trigger aside.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from psycopg2 import sql
from psycopg2.extensions import encrypt_password
from sqlalchemy import Connection, text

from shared.log import log_event

logger = logging.getLogger(__name__)

API, WORKER, WEBHOOKS = "onsale_api", "onsale_worker", "onsale_webhooks"

_ALL = ("SELECT", "INSERT", "UPDATE", "DELETE")
_CHANGED_BY_BATCHES = (
    "name",
    "total_tickets",
    "available_tickets",
    "sales_open_at",
    "sales_closed",
    "applied_position",
    "fencing_token",
    "updated_at",
    "ledger_digest",
    "seal",
)

RIGHTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    API: {
        "events": ("SELECT", "INSERT"),
        "bookings": ("SELECT",),
        "ledger": ("SELECT",),
        "api_keys": ("SELECT",),
        "webhooks": ("SELECT", "INSERT", "UPDATE"),
        "webhook_messages": ("SELECT", "UPDATE"),
        "webhook_attempts": ("SELECT",),
    },
    WORKER: {
        "events": ("SELECT", *(f"UPDATE ({column})" for column in _CHANGED_BY_BATCHES)),
        "bookings": ("SELECT", "INSERT", "UPDATE (status)", "UPDATE (updated_at)"),
        "ledger": ("SELECT", "INSERT"),
    },
    WEBHOOKS: {
        "events": ("SELECT",),
        "ledger": ("SELECT",),
        "webhooks": _ALL,
        "webhook_messages": _ALL,
        "webhook_attempts": _ALL,
    },
}
"""Rights by role and table. What is not here is not granted."""

_MAKE_ROLE = """
DO $$ BEGIN
    CREATE ROLE {role} NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END $$
"""


def grant_rights(connection: Connection, passwords_directory: Path | None) -> None:
    """Make the roles and give each its rights, taking back whatever else it had. Bears repetition.

    A role can log in if the directory has its password, as the first line of `<role>/password`. Without the
    right to make roles, which hosted servers may keep for themselves, they must be there already, or are left
    out with a warning.

    Raises:
        OSError: a password can't be read.
    """
    may_make_roles = connection.execute(
        text("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
    ).scalar_one()
    # Up to PostgreSQL 14 everybody may make tables here.
    connection.execute(text("REVOKE CREATE ON SCHEMA public FROM PUBLIC"))
    for role in RIGHTS:
        if may_make_roles:
            connection.execute(text(_MAKE_ROLE.format(role=role)))
            _let_log_in(connection, role, passwords_directory)
        elif not _exists(connection, role):
            log_event(logger, logging.WARNING, "role left out, for it can't be made", role=role)
            continue
        connection.execute(text(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}"))
        connection.execute(text(f"REVOKE ALL ON SCHEMA public FROM {role}"))
        connection.execute(text(f"GRANT USAGE ON SCHEMA public TO {role}"))
        for table, rights in RIGHTS[role].items():
            for right in rights:
                connection.execute(text(f"GRANT {right} ON {table} TO {role}"))


def _exists(connection: Connection, role: str) -> bool:
    found = connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role})
    return found.one_or_none() is not None


def _let_log_in(connection: Connection, role: str, passwords_directory: Path | None) -> None:
    if passwords_directory is None:
        return
    password = (passwords_directory / role / "password").read_text().splitlines()[0]
    cursor = connection.connection.cursor()
    try:
        # Hashed here, for PostgreSQL may write the statement into its log.
        hashed = encrypt_password(password, role, scope=cursor.connection, algorithm="scram-sha-256")
        # A password can't be a parameter of this statement.
        cursor.execute(
            sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal(hashed))
        )
    finally:
        cursor.close()
