"""Headers that may come in several lines, which mean the same as one (RFC 9110, 5.3)."""

from __future__ import annotations

from fastapi import Request


def joined_header(request: Request, name: str) -> str | None:
    """All lines of a header, joined; None if there is none."""
    lines = request.headers.getlist(name)
    return ", ".join(lines) if lines else None
