"""Who asks, and what they may do. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from shared.api_keys import ApiKey, Role
from shared.domain import CommandKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks. `id` is the same for ever: their Idempotency-Keys and their count of requests hang on it.

    An organiser or seller acts for `account`, a seller perhaps at some `events` only; a customer is
    `user_id`.
    """

    role: Role
    id: str
    account: str | None = None
    events: frozenset[str] | None = None
    user_id: str | None = None

    def manages(self, event_id: str, organiser_id: str | None) -> bool:
        """Whether the event is theirs to sell, given whose it is."""
        match self.role:
            case Role.ANYONE:
                return True
            case Role.ORGANISER:
                return organiser_id == self.account
            case Role.SELLER:
                return organiser_id == self.account and (self.events is None or event_id in self.events)
            case Role.CUSTOMER:
                return False

    def may_see_commands_of(self, kind: str) -> bool:
        """Whether commands of this kind, at an event that they manage, concern them."""
        return self.role is not Role.SELLER or kind != CommandKind.CHANGE


ANYONE = Caller(role=Role.ANYONE, id="")
"""The caller where nobody has to say who they are."""


def caller_of_key(key: ApiKey) -> Caller:
    """The holder of a key. Its id stays when its secret is rotated."""
    return Caller(
        role=key.role,
        id=f"key:{key.id}",
        account=key.account,
        events=None if key.events is None else frozenset(key.events),
    )


def customer(user_id: str) -> Caller:
    """Somebody whom the integrator's identity provider knows."""
    return Caller(role=Role.CUSTOMER, id=f"user:{user_id}", user_id=user_id)
