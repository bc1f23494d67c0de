"""What is noted of every request: its id, how long its answer took and of which class it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.types import Message, Scope, Send

from api.headers import header_text
from shared.clock import SystemClock
from shared.metrics import REQUEST_SECONDS
from shared.trace import begin_trace

UNKNOWN_ROUTE = "(none)"
"""The route of a request that was answered before its route was known, or has none."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OTHER_METHOD = "(other)"

_seconds = SystemClock().monotonic_seconds
_observers: dict[tuple[str, str, int], Callable[[float], None]] = {}


class Watch:
    """One request, from its head to that of its answer: for a client that waits, its wait is part of it."""

    __slots__ = ("_began_at", "_request_id", "_scope")

    def __init__(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        """Begin, and with it the trace of the request. `headers` are its own, the last line of each."""
        self._began_at = _seconds()
        self._scope = scope
        trace = begin_trace(
            header_text(headers.get(b"x-request-id")), header_text(headers.get(b"traceparent"))
        )
        self._request_id = (b"x-request-id", trace.request_id.encode())

    def answered(self, status: int) -> tuple[bytes, bytes]:
        """Note the answer; gives the header that tells it from others."""
        _observe(self._scope, status, _seconds() - self._began_at)
        return self._request_id


def watched(scope: Scope, send: Send) -> Send:
    """Watch a request; what this gives in the place of `send` notes the answer."""
    watch = Watch(scope, dict(scope["headers"]))

    def send_watched(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), watch.answered(message["status"])]
        return send(message)

    return send_watched


def _observe(scope: Scope, status: int, seconds: float) -> None:
    route = scope.get("route")
    path: str = route if isinstance(route, str) else getattr(route, "path", UNKNOWN_ROUTE)
    key: tuple[str, str, int] = (scope["method"], path, status)
    observe = _observers.get(key)
    if observe is None:
        method = key[0] if key[0] in _METHODS else _OTHER_METHOD
        observe = REQUEST_SECONDS.labels(method, path, f"{status // 100}xx").observe
        if method is not _OTHER_METHOD:
            _observers[key] = observe
    observe(seconds)
