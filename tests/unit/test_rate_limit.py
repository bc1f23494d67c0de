"""The sliding window in which a caller's requests are counted."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from api.rate_limit import Standing, seconds_until_room, used_in_window
from shared import limits

WINDOW = limits.RATE_WINDOW_SECONDS


def test_the_span_before_counts_for_as_much_of_it_as_the_window_covers() -> None:
    assert [used_in_window(10, 3, share) for share in (0.0, 0.25, 0.5, 0.99)] == [13, 10, 8, 3]


@given(
    st.integers(0, 1_000), st.integers(0, 1_000), st.integers(1, 500), st.floats(0, WINDOW, exclude_max=True)
)
@example(earlier=1, now=0, quota=1, elapsed=1e-38)
def test_after_the_wait_there_is_room_and_not_long_before(
    earlier: int, now: int, quota: int, elapsed: float
) -> None:
    if used_in_window(earlier, now, elapsed / WINDOW) < quota:
        return
    wait = seconds_until_room(earlier, now, quota, elapsed)
    assert wait >= 1

    def used_at(seconds: float) -> int:
        if seconds < WINDOW:
            return used_in_window(earlier, now, seconds / WINDOW)
        return used_in_window(now, 0, min(seconds / WINDOW - 1.0, 1.0))

    assert used_at(elapsed + wait) < quota
    if wait > 2:
        assert used_at(elapsed + wait - 2) >= quota


def test_a_standing_is_written_as_structured_fields() -> None:
    assert Standing(quota=120, remaining=7, reset_seconds=33).headers() == {
        "RateLimit-Policy": '"caller";q=120;w=60',
        "RateLimit": '"caller";r=7;t=33',
    }
