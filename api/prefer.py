"""The Prefer header (RFC 7240): how long a client wants to wait, and what it is told of that."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated

from fastapi import Depends, Header, Request

from api.context import Context
from api.headers import joined_header
from api.whole_response import lines_of, raw_headers
from shared import limits

_PREFERENCE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')
_SECONDS = re.compile(r"\d+", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """What a client prefers. `wait_seconds` is 0 if it does not want to wait."""

    wait_seconds: float = 0.0
    respond_async: bool = False

    def at_once(self) -> Preference:
        """The same without a wait."""
        return replace(self, wait_seconds=0.0)

    def headers(self, status: int) -> dict[str, str]:
        """What an answer of this status says of the preference that it honours."""
        if self is NO_PREFERENCE:
            return _VARIES
        applied = ["respond-async"] if self.respond_async and status == 202 else []
        if self.wait_seconds:
            applied.append(f"wait={self.wait_seconds:.0f}")
        return {**_VARIES, **({"Preference-Applied": ", ".join(applied)} if applied else {})}

    def lines(self, status: int) -> bytes:
        """The same as lines of a head."""
        if self is NO_PREFERENCE:
            return _VARIES_LINE
        return lines_of(raw_headers(self.headers(status)))


_VARIES = {"Vary": "Prefer"}
_VARIES_LINE = b"vary: Prefer\r\n"
NO_PREFERENCE = Preference()


@lru_cache(maxsize=limits.PREFERENCES_REMEMBERED_MAX)
def read_preference(prefer: str | None, *, seconds_max: float) -> Preference:
    """Read the header; a wait is at most `seconds_max`.

    As the RFC has it, a preference that isn't understood is ignored and the first of a kind counts.
    `respond-async` says that 202 is welcome, which it always is here; with `wait` it comes after the wait.
    """
    if prefer is None:
        return NO_PREFERENCE
    values: dict[str, str] = {}
    for preference in _PREFERENCE.findall(prefer):
        name, _, value = preference.partition(";")[0].partition("=")
        values.setdefault(name.strip().lower(), value.strip().strip('"'))
    wait = values.get("wait", "")
    return Preference(
        wait_seconds=min(float(wait), seconds_max) if _SECONDS.fullmatch(wait) else 0.0,
        respond_async=values.get("respond-async") == "",
    )


async def _preference(
    request: Request,
    context: Context,
    prefer: Annotated[
        str | None,
        Header(
            description="`wait=N`: wait up to N seconds for the result. `respond-async`: don't wait longer",
            examples=["wait=10", "respond-async, wait=10"],
        ),
    ] = None,
) -> Preference:
    """`prefer` documents the header, which may come in several lines."""
    if prefer is None:
        return NO_PREFERENCE
    return read_preference(joined_header(request, "prefer"), seconds_max=context.settings.wait_seconds_max)


PreferHeader = Annotated[Preference, Depends(_preference)]
