"""The API keys that a process knows: read from PostgreSQL again and again, asked in memory."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool

from api.callers import Caller, caller_of_key
from shared import limits
from shared.api_keys import ApiKey, read_token
from shared.clock import Clock
from shared.database import api_keys
from shared.database.engine import Database
from shared.errors import DatabaseUnavailable


class KeyRing:
    """Recognises API keys without asking a server.

    While PostgreSQL is away the keys that were known last stay good for a time, so that sales go on; after it
    none is, since one may have been revoked.
    """

    def __init__(self, database: Database, clock: Clock, *, trust_seconds: float) -> None:
        self._database = database
        self._clock = clock
        self._trust_seconds = trust_seconds
        self._keys: dict[str, tuple[ApiKey, Caller]] = {}
        self._read_at: float | None = None

    async def refresh(self) -> None:
        """Read the keys.

        Raises:
            DatabaseUnavailable: PostgreSQL does not answer; the keys that are known stay.
        """
        started = self._clock.monotonic_seconds()
        keys = await run_in_threadpool(self._read)
        self._keys = {key.id: (key, caller_of_key(key)) for key in keys}
        self._read_at = started

    def caller_of(self, token: str) -> Caller | None:
        """The holder of this key; None if there is no such key, or it is not good.

        Raises:
            DatabaseUnavailable: it is too long ago that the keys were read.
        """
        named = read_token(token)
        if named is None:
            return None
        age = None if self._read_at is None else self._clock.monotonic_seconds() - self._read_at
        if age is None or age > self._trust_seconds:
            raise DatabaseUnavailable("the API keys could not be read from PostgreSQL")
        key_id, secret = named
        key, caller = self._keys.get(key_id, (None, None))
        return caller if key is not None and key.accepts(secret, self._clock.now()) else None

    def _read(self) -> list[ApiKey]:
        with self._database.transaction() as connection:
            return api_keys.all_keys(connection, count_max=limits.API_KEYS_MAX)
