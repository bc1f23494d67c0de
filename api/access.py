"""Whether a caller may do what they ask for. What is not theirs is answered like what does not exist.

Each route says by the type of its `caller` who may use it at all; the functions decide about the thing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.callers import Caller
from api.context import ApiContext, Context
from api.headers import joined_header
from api.problems import ProblemError, event_not_found, forbidden
from shared.api_keys import Role

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="bearer",
    description="an API key of an organiser or seller, or a customer's token (JWT) of the identity provider",
)


async def _admitted(
    request: Request,
    context: Context,
    _documented: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
) -> Caller:
    admission = context.gate.admit(joined_header(request, "authorization"))
    request.state.rate_limit_headers = admission.headers
    return admission.caller


def _only(*roles: Role) -> Callable[[Caller], Awaitable[Caller]]:
    async def check(caller: Annotated[Caller, Depends(_admitted)]) -> Caller:
        if caller.role not in (Role.ANYONE, *roles):
            raise ProblemError(forbidden(f"This is for {' and '.join(f'{role}s' for role in roles)} only."))
        return caller

    return check


AnyCaller = Annotated[Caller, Depends(_only(Role.ORGANISER, Role.SELLER, Role.CUSTOMER))]
"""Whoever says who they are."""

Organiser = Annotated[Caller, Depends(_only(Role.ORGANISER))]


async def check_booking_for(context: ApiContext, caller: Caller, event_id: str, user_id: str) -> None:
    """Customers book for themselves, organisers and sellers for anybody at their events.

    Raises:
        ProblemError: they may not.
        TemporarilyUnavailable: it can't be found out whose the event is.
    """
    check_books_for(caller, user_id)
    if not await may_touch(context, caller, event_id=event_id, user_id=user_id):
        raise ProblemError(event_not_found(event_id))


def check_books_for(caller: Caller, user_id: str) -> None:
    """Of whom a caller may book for, what can be said without asking whose the event is.

    Raises:
        ProblemError: they may not book for this user.
    """
    if caller.role is Role.CUSTOMER and user_id != caller.user_id:
        raise ProblemError(
            forbidden("You can book for yourself only. Set user_id to the `sub` of your token.")
        )


async def check_manages(context: ApiContext, caller: Caller, event_id: str) -> None:
    """Only who sells an event looks behind it.

    Raises:
        ProblemError: the event is not theirs.
        TemporarilyUnavailable: it can't be found out whose the event is.
    """
    if not await may_touch(context, caller, event_id=event_id, user_id=None):
        raise ProblemError(event_not_found(event_id))


async def may_touch(context: ApiContext, caller: Caller, *, event_id: str, user_id: str | None) -> bool:
    """Whether something at this event, that is this user's, concerns the caller.

    Raises:
        TemporarilyUnavailable: it can't be found out whose the event is.
    """
    if caller.role is Role.ANYONE:
        return True
    if caller.role is Role.CUSTOMER:
        return user_id is not None and user_id == caller.user_id
    return caller.manages(event_id, await context.owners.owner_of(event_id))
