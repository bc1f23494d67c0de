"""The measures by name, in the order in which they run, with about how long each takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.measures import accepts, drain, growth, hot_event, latency, memory, profiles, quiet, reads, scaling
from bench.options import Options
from bench.outcome import Outcome

Run = Callable[[Options, Callable[[str], None]], Outcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One measure: `seconds` estimates how long it takes with these options."""

    run: Run
    seconds: Callable[[Options], float]


MEASURES: dict[str, Measure] = {
    "hot-event": Measure(
        run=hot_event.run,
        seconds=lambda o: 300 + o.rounds * 4 * (o.seconds + 5) if o.rounds > 1 else 3 * (o.seconds + 4.5),
    ),
    "accepts": Measure(
        run=accepts.run, seconds=lambda o: o.rounds * (3 if o.rounds > 1 else 2) * (o.seconds + 3)
    ),
    "drain": Measure(run=drain.run, seconds=lambda o: o.rounds * ((o.rounds > 1) * 38 + 9 + o.line / 10_000)),
    "steady": Measure(run=latency.run_steady, seconds=lambda o: o.rounds * 2 * (o.seconds + 8)),
    "stampede": Measure(run=latency.run_stampede, seconds=lambda o: o.rounds * 16),
    "reads": Measure(run=reads.run, seconds=lambda o: o.rounds * 2 * (o.seconds + 2) + 8),
    "scaling": Measure(run=scaling.run, seconds=lambda o: o.rounds * 3 * (10 + o.line / 5_000)),
    "quiet": Measure(run=quiet.run, seconds=lambda o: 45),
    "growth": Measure(
        run=growth.run, seconds=lambda o: 620 + o.growth_rows / 50_000 + o.growth_line / 30_000
    ),
    "profiles": Measure(run=profiles.run, seconds=lambda o: 95),
    "memory": Measure(run=memory.run, seconds=lambda o: 10 + o.memory_seconds),
}

QUICK = ("hot-event", "accepts", "drain")
