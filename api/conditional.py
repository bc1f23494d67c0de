"""Conditional requests (RFC 9110, 13.1.2): answer 304 to a client that has the newest state."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Annotated

import orjson
from fastapi import Depends, Header, Request, Response

from api.headers import joined_header

_ETAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def is_known(if_none_match: str | None, etag: str) -> bool:
    """Whether the client has the state with this ETag, by weak comparison; `*` means that any will do."""
    if if_none_match is None:
        return False
    if if_none_match.strip() == "*":
        return True
    return etag.removeprefix("W/") in _ETAG.findall(if_none_match)


def weak_etag(document: object) -> str:
    """The same for documents that say the same, in whatever order of their fields."""
    text = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    return f'W/"{blake2b(text, digest_size=8).hexdigest()}"'


def conditional_response(
    document: object, headers: Mapping[str, str], *, etag: str, if_none_match: str | None
) -> Response:
    """200 with JSON, or 304 if the client has it; both with these headers."""
    tagged = {**headers, "ETag": etag}
    if is_known(if_none_match, etag):
        return Response(status_code=304, headers=tagged)
    return Response(orjson.dumps(document), headers=tagged, media_type="application/json")


async def _if_none_match(
    request: Request,
    if_none_match: Annotated[
        str | None, Header(description="ETags that the client has, or `*`; 304 if one is the newest")
    ] = None,
) -> str | None:
    """`if_none_match` documents the header, which may come in several lines."""
    return None if if_none_match is None else joined_header(request, "if-none-match")


IfNoneMatch = Annotated[str | None, Depends(_if_none_match)]
