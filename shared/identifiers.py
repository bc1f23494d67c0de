"""Ids: UUID version 7 (RFC 9562), so that new rows go to the end of their index."""

from __future__ import annotations

import re
from hashlib import sha256
from uuid import UUID

import uuid_utils

_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def new_id() -> str:
    """A new id in canonical form: 36 characters, lower case."""
    return str(uuid_utils.uuid7())


def derived_id(*parts: str) -> str:
    """The id that always comes of these texts: a UUID version 8 of their SHA-256.

    Each part is preceded by its length, so that no two lists of parts run together into the same text.
    """
    text = "".join(f"{len(part)}:{part}" for part in parts)
    digest = bytearray(sha256(text.encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return str(UUID(bytes=bytes(digest)))


def canonical_id(text: str) -> str | None:
    """The canonical form of an id that a client wrote, or None if it is not a UUID."""
    lowered = text.lower()
    return lowered if _CANONICAL_UUID.fullmatch(lowered) else None
