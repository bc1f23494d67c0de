"""More workers: eight busy events, drained by one, two and four of them."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable

from bench.measures.drain import time_drain
from bench.options import Options, scratch
from bench.outcome import Bar, Goal, Outcome
from bench.stack import new_users, stack

EVENTS = 8
WORKERS = (1, 2, 4)
CONSTANT_WITHIN = 0.15


def run(options: Options, say: Callable[[str], None]) -> Outcome:
    """Fill eight lines, start the workers, and time until all are empty; in turn, round after round."""
    rounds: dict[int, list[tuple[float, dict[str, float]]]] = {workers: [] for workers in WORKERS}
    for _ in range(options.rounds):
        for workers, measured in rounds.items():
            measured.append(_drain_all(workers, options.line // EVENTS))
            say(f"  {workers} workers: {measured[-1][0]:,.0f}/s, {sum(measured[-1][1].values()):.0f} µs each")
    per_second = {
        workers: statistics.median(rate for rate, _ in measured) for workers, measured in rounds.items()
    }
    microseconds = {
        workers: {name: statistics.median(each[name] for _, each in measured) for name in measured[0][1]}
        for workers, measured in rounds.items()
    }
    cost = {workers: sum(parts.values()) for workers, parts in microseconds.items()}
    change = max((each / cost[1] - 1 for each in cost.values()), key=abs)
    busy = cost[WORKERS[-1]] * per_second[WORKERS[-1]] / 1e6
    limit = _limit(busy, microseconds[WORKERS[-1]])
    parts = list(microseconds[1])
    return Outcome(
        title="More workers",
        explanation=(
            f"{EVENTS} events with {options.line // EVENTS:,} bookings each in line; medians of the rounds."
            f" Processor time is that of all processes, per command. {limit}"
        ),
        columns=("workers", "commands/s", *(f"µs of {part}" for part in parts), "µs in all"),
        rows=[
            (
                str(workers),
                f"{per_second[workers]:,.0f}",
                *(f"{microseconds[workers].get(part, 0.0):.0f}" for part in parts),
                f"{cost[workers]:.0f}",
            )
            for workers in WORKERS
        ],
        goals=[
            Goal(
                asked=f"processor time per command constant (within {CONSTANT_WITHIN:.0%})",
                reached=f"{change:+.0%} at most",
                met=abs(change) <= CONSTANT_WITHIN,
            )
        ],
        figures={
            "per_second": {workers: [rate for rate, _ in measured] for workers, measured in rounds.items()},
            "processor_microseconds": microseconds,
        },
        plot=[
            Bar(label=f"{workers} worker{'s' if workers > 1 else ''}", value=value, ours=True)
            for workers, value in per_second.items()
        ],
        unit="commands/s",
    )


def _limit(busy_cores: float, parts: dict[str, float]) -> str:
    """What keeps more workers from doing more here."""
    cores = len(os.sched_getaffinity(0))
    most = max(parts, key=lambda name: parts[name])
    if busy_cores > cores * 0.85:
        return f"With {WORKERS[-1]} workers {busy_cores:.1f} of {cores} cores are busy: that is the limit."
    return (
        f"With {WORKERS[-1]} workers {busy_cores:.1f} of {cores} cores are busy; most of it is {most}:"
        " waiting for the"
        " disk and for each other is the limit."
    )


def _drain_all(workers: int, commands: int) -> tuple[float, dict[str, float]]:
    """Commands per second, and processor time per command in µs."""
    with scratch() as directory, stack(directory) as onsale:
        events = [onsale.make_event() for _ in range(EVENTS)]
        for number, event in enumerate(events):
            onsale.fill(event.id, new_users(commands, prefix=f"event{number}-user"))
        client = onsale.line()
        for number in range(1, workers + 1):
            onsale.start_worker(f"worker-{number}")
        measured = time_drain(
            onsale,
            lambda: sum(onsale.applied(client, event.id) for event in events),
            begun=0,
            end=commands * EVENTS,
        )
        client.close()
    return measured
