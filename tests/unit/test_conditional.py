"""If-None-Match (RFC 9110, 13.1.2)."""

from __future__ import annotations

import pytest

from api.conditional import is_known, weak_etag


@pytest.mark.parametrize(
    ("if_none_match", "known"),
    [
        (None, False),
        ("", False),
        ("*", True),
        (" * ", True),
        ('"17"', True),
        ('W/"17"', True),
        ('"16", "17"', True),
        ('"16",W/"17"', True),
        ('"16", "18"', False),
        ('"1,7", "17"', True),
        ('"16,"17""', False),
        ("17", False),
        ('"117"', False),
        ('w/"17"', True),
    ],
)
@pytest.mark.parametrize("etag", ['"17"', 'W/"17"'])
def test_a_client_has_the_newest_state(if_none_match: str | None, known: bool, etag: str) -> None:
    assert is_known(if_none_match, etag) == known


def test_documents_that_say_the_same_have_the_same_etag() -> None:
    assert weak_etag({"a": 1, "b": {"c": 2, "d": 3}}) == weak_etag({"b": {"d": 3, "c": 2}, "a": 1})
    assert weak_etag({"a": 1}) != weak_etag({"a": 2})
