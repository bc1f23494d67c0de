"""The SQL of API keys."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from shared.api_keys import ApiKey, Role
from shared.database.tables import api_keys


def insert_key(connection: Connection, key: ApiKey) -> None:
    """Add a key."""
    connection.execute(
        insert(api_keys).values(
            id=key.id,
            role=key.role.value,
            account=key.account,
            label=key.label,
            events=None if key.events is None else list(key.events),
            secret_hash=key.secret_hash,
            created_at=key.created_at,
            expires_at=key.expires_at,
        )
    )


def all_keys(connection: Connection, *, count_max: int) -> list[ApiKey]:
    """Every key, the oldest first, also those that are revoked."""
    rows = connection.execute(select(api_keys).order_by(api_keys.c.id).limit(count_max))
    return [_api_key(row) for row in rows]


def count_keys(connection: Connection) -> int:
    """How many keys there are."""
    return connection.execute(select(func.count()).select_from(api_keys)).scalar_one()


def rotate_key(
    connection: Connection, key_id: str, secret_hash: bytes, *, previous_until: datetime
) -> ApiKey | None:
    """Give a key a new secret; the one before it is good until then. None if there is no such key."""
    row = connection.execute(
        update(api_keys)
        .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        .values(previous_hash=api_keys.c.secret_hash, previous_until=previous_until, secret_hash=secret_hash)
        .returning(api_keys)
    ).one_or_none()
    return None if row is None else _api_key(row)


def revoke_key(connection: Connection, key_id: str, moment: datetime) -> bool:
    """End a key; gives whether there was one that was not revoked yet."""
    row = connection.execute(
        update(api_keys)
        .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        .values(revoked_at=moment)
        .returning(api_keys.c.id)
    ).one_or_none()
    return row is not None


def _api_key(row: Row[*tuple[Any, ...]]) -> ApiKey:
    return ApiKey(
        **{
            **row._asdict(),
            "role": Role(row.role),
            "secret_hash": bytes(row.secret_hash),
            "previous_hash": None if row.previous_hash is None else bytes(row.previous_hash),
        }
    )
