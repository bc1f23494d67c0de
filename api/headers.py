"""How headers are read. Several lines of one mean the same as one (RFC 9110, 5.3)."""

from __future__ import annotations

from fastapi import Request


def joined_header(request: Request, name: str) -> str | None:
    """All lines of a header, joined; None if there is none."""
    lines = request.headers.getlist(name)
    return ", ".join(lines) if lines else None


def header_text(value: bytes | None) -> str | None:
    """A header of an ASGI scope as text, any bytes of it; None if it isn't there."""
    return None if value is None else value.decode("latin-1")
