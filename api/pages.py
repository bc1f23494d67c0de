"""Lists in pages: an opaque cursor says where the next page begins, whatever is written meanwhile."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

import orjson
from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from api.problems import ProblemError, invalid_request
from api.submit import json_response
from shared import limits
from shared.identifiers import canonical_id

_LARGEST_WHOLE_NUMBER = 2**63 - 1


class PageQuery(BaseModel):
    """Which page of a list, in the query."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=limits.PAGE_ITEMS_MAX, description="items on a page at most")] = (
        limits.PAGE_ITEMS_DEFAULT
    )
    cursor: Annotated[
        str | None,
        Field(max_length=limits.CURSOR_LENGTH_MAX, description="`next_cursor` of the page before"),
    ] = None


def read_cursor(cursor: str | None, *checks: Callable[[object], bool]) -> tuple[Any, ...] | None:
    """The values that a cursor holds, each of which passes its check; None for the first page.

    Raises:
        ProblemError: it is none that a list of this kind has given.
    """
    if cursor is None:
        return None
    try:
        values = orjson.loads(urlsafe_b64decode(cursor.encode("ascii")))
    except ValueError:
        values = None
    if (
        not isinstance(values, list)
        or len(values) != len(checks)
        or not all(check(value) for check, value in zip(checks, values, strict=True))
    ):
        raise ProblemError(invalid_request([("cursor", "use the next_cursor of the page before")]))
    return tuple(values)


def is_text(value: object) -> bool:
    """PostgreSQL has no text with a zero byte."""
    return isinstance(value, str) and "\x00" not in value


def is_id(value: object) -> bool:
    """PostgreSQL compares ids with ids only."""
    return isinstance(value, str) and canonical_id(value) is not None


def is_position(value: object) -> bool:
    """PostgreSQL has no larger position."""
    return type(value) is int and 0 <= value <= _LARGEST_WHOLE_NUMBER


def page_response(
    path: str, query: PageQuery, found: Sequence[tuple[Mapping[str, Any], tuple[Any, ...]]]
) -> Response:
    """A page of items, each given with the values of the cursor behind it.

    One more than asked for was looked up; if it is there, there is a next page.
    """
    items = [item for item, _ in found[: query.limit]]
    headers = {"Cache-Control": "no-store"}
    cursor = None
    if len(found) > query.limit:
        cursor = urlsafe_b64encode(orjson.dumps(found[query.limit - 1][1])).decode()
        following = query.model_copy(update={"cursor": cursor}).model_dump(exclude_none=True, mode="json")
        headers["Link"] = f'<{path}?{urlencode(following)}>; rel="next"'
    return json_response({"items": items, "next_cursor": cursor}, 200, headers)
