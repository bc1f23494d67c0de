"""When a command will be applied, and when it is worth to ask again."""

from __future__ import annotations

from typing import cast

import pytest

from api.jobs import JobDocument, commands_ahead, estimated_wait_seconds, retry_after_seconds


def waiting(estimate: float | None) -> JobDocument:
    return cast(JobDocument, {"estimated_wait_seconds": estimate})


def test_what_is_ahead_is_what_was_accepted_before_and_not_applied() -> None:
    assert [commands_ahead(10, applied) for applied in (0, 8, 9, 10, 11)] == [9, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("ahead", "rate", "seconds"),
    [(0, 100.0, 0.01), (99, 100.0, 1.0), (999_999, 10_000.0, 100.0), (5, None, None), (5, 0.0, None)],
)
def test_the_estimate_is_the_time_for_those_ahead_and_oneself(
    ahead: int, rate: float | None, seconds: float | None
) -> None:
    assert estimated_wait_seconds(ahead, rate) == seconds


@pytest.mark.parametrize(
    ("estimate", "chance", "seconds"),
    [
        (0.001, 0.0, 1),
        (0.001, 1.0, 1),
        (10.0, 0.0, 10),
        (10.0, 0.5, 13),
        (10.0, 1.0, 15),
        (3_600.0, 0.0, 30),
        (3_600.0, 1.0, 45),
        (None, 0.0, 2),
        (None, 1.0, 3),
    ],
)
def test_clients_are_sent_back_when_it_is_worth_it_and_not_all_at_once(
    estimate: float | None, chance: float, seconds: int
) -> None:
    assert retry_after_seconds(waiting(estimate), chance) == seconds
