"""What every request passes that is not open to all: who sends it, and whether they ask too often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from api.authentication import Authenticator
from api.callers import ANYONE, Caller
from api.problems import ProblemError
from api.rate_limit import RateLimiter
from shared.api_keys import Role
from shared.errors import DatabaseUnavailable
from shared.settings import Settings

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """A caller who was let in, and what the answer says of how often they may come."""

    caller: Caller
    headers: Mapping[str, str]


_ANYONE = Admission(caller=ANYONE, headers=NO_HEADERS)


class Gate:
    """Lets callers in, or does not."""

    def __init__(self, authenticator: Authenticator, limiter: RateLimiter, settings: Settings) -> None:
        self._authenticator = authenticator
        self._limiter = limiter
        self._quotas = {
            Role.CUSTOMER: settings.requests_per_customer,
            Role.ORGANISER: settings.requests_per_key,
            Role.SELLER: settings.requests_per_key,
        }

    def still_knows(self, authorization: str | None) -> bool:
        """Whether who sends this header would be let in now too; not counted as a request."""
        try:
            self._authenticator.identify(authorization)
        except (ProblemError, DatabaseUnavailable):
            return False
        return True

    def admit(self, authorization: str | None) -> Admission:
        """Who sends this Authorization header; the request is counted.

        Raises:
            ProblemError: it is missing, or not good.
            RateLimited: the caller asks too often.
            DatabaseUnavailable: the API keys are not known.
        """
        caller = self._authenticator.identify(authorization)
        if caller is ANYONE:
            return _ANYONE
        quota = self._quotas[caller.role]
        headers = self._limiter.admit(caller.id, quota).headers() if quota else NO_HEADERS
        return Admission(caller=caller, headers=headers)
