"""What the benchmark makes of what it has seen, where it could be too kind to itself."""

from __future__ import annotations

import pytest

from bench.measures import accepts, memory, profiles
from bench.measures.memory import GIB, Flow, Sample
from bench.options import Options
from bench.processes import BenchmarkError

LIVE_SECONDS = 90


def flow(megabytes: list[float], *, every_seconds: float = 30.0, peak_bytes: int = 0) -> Flow:
    samples = [
        Sample(seconds=every_seconds * number, bytes=int(each * 1e6), waiting=0)
        for number, each in enumerate(megabytes, start=1)
    ]
    peak = peak_bytes or max(each.bytes for each in samples)
    return Flow(samples=samples, peak_bytes=peak, per_second=5_000.0)


def is_met(seen: Flow) -> bool:
    (goal,) = memory.outcome(seen, Options(), LIVE_SECONDS).goals
    return goal.met


def test_memory_that_stays_is_flat() -> None:
    seen = flow([200, 400, 600, 760, 740, 750, 740, 730])
    assert seen.growth(LIVE_SECONDS) == pytest.approx(-0.0132, abs=0.001)
    assert is_met(seen)


def test_memory_that_grows_is_not_flat_even_if_it_ends_low() -> None:
    """The first and the last sample say nothing of what was between."""
    assert not is_met(flow([200, 400, 600, 700, 710, 720, 900, 700]))


def test_a_run_too_short_to_see_results_go_can_not_be_flat() -> None:
    seen = flow([100, 100, 100, 100, 100], every_seconds=35.9)
    assert seen.growth(LIVE_SECONDS) is None
    assert not is_met(seen)
    (goal,) = memory.outcome(seen, Options(), LIVE_SECONDS).goals
    assert goal.reached == "5,000/s, flat or not was not measured, which takes 180 s, 0.09 GiB at most"


def test_the_shortest_run_that_can_be_flat_is_twice_as_long_as_results_live() -> None:
    assert is_met(flow([100] * 6, every_seconds=30.0))


def test_a_peak_between_two_samples_counts() -> None:
    assert not is_met(flow([500] * 10, peak_bytes=GIB + 1))
    assert is_met(flow([500] * 10, peak_bytes=GIB))


def test_the_ratio_of_the_goal_is_that_of_the_table() -> None:
    rounds = {accepts.HELLO: [100.0, 200.0, 400.0], accepts.OURS: [300.0, 400.0, 900.0]}
    outcome = accepts.outcome(rounds, Options())
    assert outcome.figures["ratio_to_hello"] == 2.25
    assert outcome.goals[0].reached == "2.25 times"
    assert [row[2] for row in outcome.rows] == ["1.00", "2.25"]


def test_what_a_function_takes_is_told_without_what_it_calls() -> None:
    shares = profiles.own_shares(
        "main (app.py:1);work (app.py:7) 30\nmain (app.py:1);work (app.py:7);wait (lib/io.py:3) 50\n"
        "main (app.py:1);other (app.py:9);work (app.py:7) 20\n"
    )
    assert shares == {"work (app.py)": 0.5, "wait (lib/io.py)": 0.5}
    assert profiles.largest({**shares, "wait (lib/io.py)": 0.6})[0] == ("wait (lib/io.py)", 0.6)


def test_a_profile_of_nothing_is_none() -> None:
    with pytest.raises(BenchmarkError, match="seen nothing"):
        profiles.own_shares("")
