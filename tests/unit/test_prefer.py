"""The Prefer header."""

from __future__ import annotations

import pytest

from api.prefer import read_preference


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
        ("await=5", 0),
        ("respond-async", 0),
    ],
)
def test_the_wait_that_a_client_prefers(prefer: str | None, seconds: float) -> None:
    assert read_preference(prefer, seconds_max=30).wait_seconds == seconds
