"""The Prefer header."""

from __future__ import annotations

import pytest

from api.prefer import Preference, read_preference


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("wait=5", 5),
        ("Wait = 5", 5),
        ('wait="5"', 5),
        ("respond-async, wait=10", 10),
        ("wait=3; foo=bar", 3),
        ("wait=5, wait=9", 5),
        ("wait=0", 0),
        ("wait=-1", 0),
        ("wait=soon", 0),
        ("wait=99999", 30),
        ("wait=99999999999", 30),
        ("wait=" + "9" * 20_000, 30),
        ("await=5", 0),
        ("respond-async", 0),
        ("wait=soon, wait=5", 0),
        ('note="a, wait=9", wait=5', 5),
        ('note="a, wait=9', 0),
        ("wait=\u0665", 0),
    ],
)
def test_the_wait_that_a_client_prefers(prefer: str | None, seconds: float) -> None:
    assert read_preference(prefer, seconds_max=30).wait_seconds == seconds


@pytest.mark.parametrize(
    ("prefer", "status", "applied"),
    [
        (None, 202, None),
        ("respond-async", 202, "respond-async"),
        ("respond-async", 200, None),
        ("respond-async, wait=5", 202, "respond-async, wait=5"),
        ("respond-async, wait=5", 201, "wait=5"),
        ("wait=99", 202, "wait=30"),
        ("respond-async=no", 202, None),
    ],
)
def test_an_answer_says_which_preferences_it_honours(
    prefer: str | None, status: int, applied: str | None
) -> None:
    headers = read_preference(prefer, seconds_max=30).headers(status)
    assert headers["Vary"] == "Prefer"
    assert headers.get("Preference-Applied") == applied


def test_a_wait_that_is_not_granted_is_not_said_to_be() -> None:
    assert Preference(wait_seconds=5).at_once().headers(202) == {"Vary": "Prefer"}
