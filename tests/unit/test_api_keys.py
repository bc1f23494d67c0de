"""API keys: how they are written, and when their secret is good."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from api.callers import ANYONE, Caller, caller_of_key, customer
from shared.api_keys import ApiKey, Role, hash_secret, new_secret, read_token, write_token
from shared.identifiers import new_id

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SECRET, OLD_SECRET = new_secret(), new_secret()
KEY = ApiKey(
    id=new_id(),
    role=Role.SELLER,
    account="acme",
    label="",
    events=None,
    secret_hash=hash_secret(SECRET),
    previous_hash=None,
    previous_until=None,
    created_at=NOON,
    expires_at=None,
    revoked_at=None,
)


def test_a_token_names_its_key_and_its_secret() -> None:
    token = write_token(KEY.id, SECRET)
    assert token.startswith("onsale_")
    assert read_token(token) == (KEY.id, SECRET)


@pytest.mark.parametrize(
    "text",
    ["", "onsale_", "onsale_x_y", write_token(KEY.id, SECRET) + "x"],
    ids=["nothing", "prefix", "short", "long"],
)
def test_what_is_no_token_is_told_from_one(text: str) -> None:
    assert read_token(text) is None


def test_only_the_secret_itself_is_good() -> None:
    assert KEY.accepts(SECRET, NOON)
    assert not KEY.accepts(OLD_SECRET, NOON)
    assert not KEY.accepts("", NOON)


def test_after_a_rotation_both_secrets_are_good_for_a_while() -> None:
    rotated = replace(KEY, previous_hash=hash_secret(OLD_SECRET), previous_until=NOON + HOUR)
    assert rotated.accepts(SECRET, NOON)
    assert rotated.accepts(OLD_SECRET, NOON)
    assert rotated.accepts(SECRET, NOON + HOUR)
    assert not rotated.accepts(OLD_SECRET, NOON + HOUR)


@pytest.mark.parametrize("ended", [replace(KEY, revoked_at=NOON), replace(KEY, expires_at=NOON)])
def test_a_key_that_is_over_is_good_no_more(ended: ApiKey) -> None:
    assert not ended.accepts(SECRET, NOON)


EVENT, OTHER_EVENT = new_id(), new_id()
SELLER_OF_ONE = caller_of_key(replace(KEY, events=[EVENT]))
ORGANISER = caller_of_key(replace(KEY, role=Role.ORGANISER))


@pytest.mark.parametrize(
    ("caller", "manages"),
    [
        (ANYONE, [True, True, True, True]),
        (ORGANISER, [True, True, False, False]),
        (caller_of_key(KEY), [True, True, False, False]),
        (SELLER_OF_ONE, [True, False, False, False]),
        (customer("ann"), [False, False, False, False]),
    ],
)
def test_who_manages_which_event(caller: Caller, manages: list[bool]) -> None:
    """An own event, another own one, one of somebody else, one of nobody."""
    cases = [(EVENT, "acme"), (OTHER_EVENT, "acme"), (EVENT, "rival"), (EVENT, None)]
    assert [caller.manages(*case) for case in cases] == manages


def test_callers_never_share_an_id() -> None:
    callers = [ANYONE, caller_of_key(KEY), customer("ann"), customer(f"key:{KEY.id}"), customer("")]
    assert len({caller.id for caller in callers}) == len(callers)


def test_the_id_of_a_caller_outlives_a_rotation() -> None:
    assert caller_of_key(replace(KEY, secret_hash=b"other")).id == caller_of_key(KEY).id
