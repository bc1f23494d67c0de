"""Ids: UUID version 7 (RFC 9562), so that new rows go to the end of their index."""

from __future__ import annotations

import re

import uuid_utils

_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def new_id() -> str:
    """A new id in canonical form: 36 characters, lower case."""
    return str(uuid_utils.uuid7())


def canonical_id(text: str) -> str | None:
    """The canonical form of an id that a client wrote, or None if it is not a UUID."""
    lowered = text.lower()
    return lowered if _CANONICAL_UUID.fullmatch(lowered) else None
