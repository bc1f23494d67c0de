"""Headers that tell browsers what not to do with an answer (OWASP, HTTP Headers Cheat Sheet)."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Awaitable, Iterable
from hashlib import sha256

from starlette.types import Message, Scope, Send

from api.whole_response import lines_of

_ALWAYS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
_NOTHING = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_IF_KEPT = (*_ALWAYS, _NOTHING)
_IF_NOT_KEPT = (*_IF_KEPT, (b"cache-control", b"no-store"))
LINES_IF_NOT_KEPT = lines_of(_IF_NOT_KEPT)
"""What `security_headers` gives an answer that says nothing of how long it is kept, as lines of a head."""

_PAGES = frozenset({"/docs", "/redoc"})
_INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


def with_security_headers(scope: Scope, send: Send) -> Send:
    """Send answers with these headers. What is not said to be kept is not kept."""
    if scope["path"] in _PAGES:
        return _with_policy_of_page(send)

    def send_with_headers(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            headers = message["headers"]
            message["headers"] = [*headers, *security_headers(headers)]
        return send(message)

    return send_with_headers


def security_headers(headers: list[tuple[bytes, bytes]]) -> Iterable[tuple[bytes, bytes]]:
    """Those that an answer with these headers is given besides.

    A page that has a policy of its own also says how long it may be kept.
    """
    named = dict(headers)
    if b"cache-control" not in named:
        return _IF_NOT_KEPT
    return _ALWAYS if b"content-security-policy" in named else _IF_KEPT


def _with_policy_of_page(send: Send) -> Send:
    """The pages of the API's guide run one script of their own, and others from where they are published."""
    start: Message = {}

    async def send_with_policy(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start":
            start = message
            return
        if start:
            policy = (b"content-security-policy", _policy(message.get("body", b"")))
            await send({**start, "headers": [*start["headers"], *_ALWAYS, policy]})
            start = {}
        await send(message)

    return send_with_policy


def _policy(page: bytes) -> bytes:
    hashes = [b64encode(sha256(script).digest()).decode() for script in _INLINE_SCRIPT.findall(page)]
    own_scripts = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src https://cdn.jsdelivr.net {own_scripts};"
        " style-src 'unsafe-inline' https://cdn.jsdelivr.net https://fonts.googleapis.com;"
        " font-src https://fonts.gstatic.com; img-src data: https:; worker-src blob:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ).encode()
