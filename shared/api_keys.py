"""API keys: who an integrator's program is, how its secret is made and recognised."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from hmac import compare_digest
from uuid import UUID

_TOKEN = re.compile(r"onsale_([0-9a-f]{32})_([A-Za-z0-9_-]{43})")
_SECRET_BYTES = 32


class Role(StrEnum):
    """What a caller is."""

    ANYONE = "anyone"
    """Nobody has to say who they are, and everybody may do everything."""
    ORGANISER = "organiser"
    SELLER = "seller"
    CUSTOMER = "customer"


KEY_ROLES = (Role.ORGANISER, Role.SELLER)
"""The roles that a key can have; customers come with a token of their identity provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as it is stored: of its secret only the SHA-256.

    It acts for `account`, the organiser. A seller may be held to some of its `events`; None is for all.
    After a rotation the secret before it is good until `previous_until`. The secrets have 256 random bits, so
    a slow hash would protect nothing.
    """

    id: str
    role: Role
    account: str
    label: str
    events: Sequence[str] | None
    secret_hash: bytes
    previous_hash: bytes | None
    previous_until: datetime | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    def accepts(self, secret: str, moment: datetime) -> bool:
        """Whether this is the key's secret, and the key good then. Takes the same time either way."""
        given = hash_secret(secret)
        is_present = compare_digest(given, self.secret_hash)
        is_previous = compare_digest(given, self.previous_hash or b"") and (
            self.previous_until is not None and moment < self.previous_until
        )
        return (is_present or is_previous) and self.is_good_at(moment)

    def is_good_at(self, moment: datetime) -> bool:
        """Whether the key is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or moment < self.expires_at)


def new_secret() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def hash_secret(secret: str) -> bytes:
    """What is stored of a secret."""
    return sha256(secret.encode()).digest()


def write_token(key_id: str, secret: str) -> str:
    """A key as its holder sends it. The prefix lets scanners find one that has leaked."""
    return f"onsale_{UUID(key_id).hex}_{secret}"


def read_token(token: str) -> tuple[str, str] | None:
    """The key's id and secret; None if this is no API key."""
    match = _TOKEN.fullmatch(token)
    return None if match is None else (str(UUID(match[1])), match[2])
