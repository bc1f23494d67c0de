"""The trace of a request: its id, and the W3C trace context of its client. Follows a command to the ledger.

As text, which is what travels in the line and rests in the ledger: the id, and behind a space the
`traceparent` if there was one. Neither can contain a space, a comma or anything that would end a line.
"""

from __future__ import annotations

import re
from contextvars import ContextVar

from msgspec import Struct

from shared import limits
from shared.identifiers import new_id

_REQUEST_ID = re.compile(rf"[A-Za-z0-9._:/+=@~-]{{1,{limits.REQUEST_ID_LENGTH_MAX}}}")
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Trace(Struct, frozen=True, kw_only=True):
    """Where a request comes from. `sent`: its client said so, and will want to find it again."""

    request_id: str
    traceparent: str | None = None
    sent: bool = False

    def __str__(self) -> str:
        return self.request_id if self.traceparent is None else f"{self.request_id} {self.traceparent}"


_NOBODYS = Trace(request_id="")
_current: ContextVar[Trace] = ContextVar("trace", default=_NOBODYS)


def begin_trace(request_id: str | None, traceparent: str | None) -> Trace:
    """The trace of a request, from its headers; it is the current one from here on.

    A header that is not well-formed counts as none: it must never reach a log or the ledger.
    """
    trace = _read(request_id, traceparent)
    _current.set(trace)
    return trace


def current_trace() -> Trace | None:
    """The trace of the request that is being answered, or None outside of one."""
    trace = _current.get()
    return None if trace is _NOBODYS else trace


def carried_trace() -> str:
    """The current trace as it goes along with a command: empty unless the client sent one."""
    trace = _current.get()
    return str(trace) if trace.sent else ""


def read_trace(text: str | None) -> Trace | None:
    """A trace from its text, or None if it is not one."""
    if not text:
        return None
    request_id, _, traceparent = text.partition(" ")
    if not _REQUEST_ID.fullmatch(request_id) or (traceparent and not _TRACEPARENT.fullmatch(traceparent)):
        return None
    return Trace(request_id=request_id, traceparent=traceparent or None, sent=True)


def _read(request_id: str | None, traceparent: str | None) -> Trace:
    if request_id is None and traceparent is None:
        return Trace(request_id=new_id())
    id = request_id if request_id and _REQUEST_ID.fullmatch(request_id) else None
    parent = traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else None
    return Trace(request_id=id or new_id(), traceparent=parent, sent=bool(id or parent))
