"""When a worker decides batches ahead, and when it does so without reading what users hold."""

from __future__ import annotations

from datetime import timedelta

import pytest

from shared import limits
from tests.clocks import StoppedClock
from worker.plan import Planning


@pytest.mark.parametrize("seconds", [limits.UNSURE_GUESS_PAUSE_SECONDS, limits.REFUSED_GUESS_PAUSE_SECONDS])
def test_it_guesses_again_after_a_pause(seconds: float) -> None:
    clock, planning = StoppedClock(), Planning()
    assert planning.may_guess(clock)
    planning.pause_guesses(clock, seconds)
    clock.moment += timedelta(seconds=seconds - 0.1)
    assert not planning.may_guess(clock)
    assert planning.may_decide_ahead(clock)
    clock.moment += timedelta(seconds=0.2)
    assert planning.may_guess(clock)


def test_it_decides_ahead_again_after_a_pause() -> None:
    clock, planning = StoppedClock(), Planning()
    assert planning.may_decide_ahead(clock)
    planning.pause(clock)
    clock.moment += timedelta(seconds=limits.PLANS_PAUSE_SECONDS - 0.1)
    assert not planning.may_decide_ahead(clock)
    clock.moment += timedelta(seconds=0.2)
    assert planning.may_decide_ahead(clock)
