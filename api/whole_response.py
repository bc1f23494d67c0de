"""An answer that has its final form, made quickly."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Response


class WholeResponse(Response):
    """A body of bytes with its headers, each written once.

    Starlette's own first looks whether its caller has given a length or a type already, which takes as long
    again.
    """

    def __init__(self, body: bytes, status: int, headers: Mapping[str, str], content_type: str) -> None:
        self.body = body
        self.status_code = status
        self.background = None
        self.raw_headers = [
            *[(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
            (b"content-length", b"%d" % len(body)),
            (b"content-type", content_type.encode("latin-1")),
        ]
