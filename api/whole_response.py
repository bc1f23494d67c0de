"""An answer that has its final form, made quickly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import orjson
from fastapi import Response
from msgspec import Struct


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
            *raw_headers(headers),
            (b"content-length", b"%d" % len(body)),
            (b"content-type", content_type.encode("latin-1")),
        ]


def raw_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI has them."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


_DESCRIPTION = b"content-length: %d\r\ncontent-type: application/json\r\n"


class WireAnswer(Struct, frozen=True):
    """An answer of which each line of the head is written as it goes over the wire, with its end.

    For what is answered all the time: headers one by one take four times as long.
    """

    status: int
    lines: bytes
    body: bytes

    def response(self) -> Response:
        """The same for who answers in another way."""
        return _WireResponse(self)


class _WireResponse(Response):
    def __init__(self, answer: WireAnswer) -> None:
        self.body = answer.body
        self.status_code = answer.status
        self.background = None
        named = [line.partition(b": ") for line in answer.lines.split(b"\r\n")[:-1]]
        self.raw_headers = [(name, value) for name, _, value in named]


def json_answer(document: object, status: int, lines: bytes, template: bytes, *values: object) -> WireAnswer:
    """JSON that has its final form already, with these lines and those of a template with these values.

    Raises:
        ValueError: a value would end its line.
    """
    body = orjson.dumps(document)
    own = header_lines(template + _DESCRIPTION, *values, len(body))
    return WireAnswer(status, own + lines, body)


def header_lines(template: bytes, *values: object) -> bytes:
    """Lines of a head, with these values at the places that a template has for them.

    Raises:
        ValueError: a value would end its line.
    """
    lines = template % values
    ends = template.count(b"\n")
    if lines.count(b"\n") != ends or lines.count(b"\r") != ends:
        raise ValueError(f"a header has a line break: {lines!r}")
    return lines


def lines_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as ASGI has them, as lines of a head.

    Raises:
        ValueError: one of them would end its line.
    """
    return b"".join([header_lines(b"%b: %b\r\n", *header) for header in headers])
