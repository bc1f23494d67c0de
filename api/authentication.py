"""Who sends a request: an API key, a customer's token, or, with authentication off, anyone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict

from api.callers import ANYONE, Caller, customer
from api.customer_tokens import BadKeyFile, BadToken, CustomerToken, CustomerTokens, is_good_at
from api.key_ring import KeyRing
from api.problems import ProblemError, unauthenticated
from shared import limits
from shared.clock import Clock
from shared.errors import DatabaseUnavailable
from shared.log import log_event
from shared.settings import Authentication, Settings

logger = logging.getLogger(__name__)

_SCHEME = "bearer "


class Authenticator:
    """Names the caller of a request from its Authorization header, without asking a server."""

    def __init__(self, keys: KeyRing, tokens: CustomerTokens, clock: Clock, settings: Settings) -> None:
        self._is_off = settings.auth is Authentication.OFF
        self._keys = keys
        self._tokens = tokens
        self._clock = clock
        self._refresh_seconds = settings.keys_refresh_seconds
        self._known: OrderedDict[str, tuple[CustomerToken, Caller]] = OrderedDict()
        self._refreshing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the keys, and begin to read them again and again."""
        if not self._is_off:
            await self._refresh()
            self._refreshing = asyncio.create_task(self._keep_refreshing())

    async def stop(self) -> None:
        """Read no more."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._refreshing

    def identify(self, authorization: str | None) -> Caller:
        """Who sends this header.

        Raises:
            ProblemError: it is missing, or not good (401).
            DatabaseUnavailable: the keys are not known, or not any more.
        """
        if self._is_off:
            return ANYONE
        if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
            raise _refusal("Send the header `Authorization: Bearer` with an API key or a customer's token.")
        if len(authorization) > limits.AUTHORIZATION_LENGTH_MAX:
            raise _refusal(f"The Authorization header is over {limits.AUTHORIZATION_LENGTH_MAX} characters.")
        token = authorization[len(_SCHEME) :].strip()
        caller = self._known_customer(token) or self._keys.caller_of(token) or self._new_customer(token)
        if caller is None:
            raise _refusal("The API key or token is not good, or not any more. Get a new one.")
        return caller

    def _known_customer(self, token: str) -> Caller | None:
        known = self._known.get(token)
        if known is None:
            return None
        if not is_good_at(known[0], self._clock.now()):
            del self._known[token]
            return None
        self._known.move_to_end(token)
        return known[1]

    def _new_customer(self, token: str) -> Caller | None:
        try:
            read = self._tokens.read(token)
        except BadToken as error:
            log_event(logger, logging.INFO, "token refused", reason=error)
            return None
        caller = customer(read.user_id)
        self._known[token] = (read, caller)
        if len(self._known) > limits.TOKENS_REMEMBERED_MAX:
            self._known.popitem(last=False)
        return caller

    async def _keep_refreshing(self) -> None:
        while True:
            await asyncio.sleep(self._refresh_seconds)
            await self._refresh()

    async def _refresh(self) -> None:
        try:
            await self._keys.refresh()
        except DatabaseUnavailable as error:
            log_event(logger, logging.WARNING, "keys not read, those known before are used", reason=error)
        try:
            if self._tokens.refresh():
                self._known.clear()
        except BadKeyFile as error:
            log_event(logger, logging.ERROR, "key file not read, that read before is used", reason=error)


def _refusal(detail: str) -> ProblemError:
    return ProblemError(unauthenticated(detail), {"WWW-Authenticate": "Bearer"})
