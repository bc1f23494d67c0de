"""What it costs while nothing happens: thousands of open events and idle workers."""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.options import Options, scratch
from bench.outcome import Goal, Outcome
from bench.stack import seconds_used, stack, used_between
from bench.targets import HELLO_WORLD, plain_peer

EVENTS = 10_000
WORKERS = 4
SETTLE_SECONDS = 5
SECONDS = 20
SHARE_OF_A_CORE = 0.02
HELLO = "FastAPI hello world, for comparison"


def run(options: Options, say: Callable[[str], None]) -> Outcome:
    """Count the processor time of every process for a while."""
    events = EVENTS if options.rounds > 1 else EVENTS // 10
    with scratch() as directory, stack(directory) as onsale, plain_peer(HELLO_WORLD) as (_, hello):
        onsale.make_quiet_events(events)
        onsale.start_api()
        for number in range(1, WORKERS + 1):
            onsale.start_worker(f"worker-{number}")
        # A start costs more than a minute of rest.
        onsale.await_workers(WORKERS)
        time.sleep(SETTLE_SECONDS)
        before, before_of_hello = onsale.processor_seconds(), seconds_used(hello.pid)
        time.sleep(SECONDS)
        used = used_between(before, onsale.processor_seconds())
        of_hello = (seconds_used(hello.pid) - before_of_hello) / SECONDS
        onsale.check()
    shares = {name: seconds / SECONDS for name, seconds in used.items()}
    total = sum(shares.values())
    say(
        f"  {total:.1%} of a core: "
        + ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
        + f"; {HELLO}: {of_hello:.1%}"
    )
    return Outcome(
        title="Idle",
        explanation=(
            f"{events:,} open events that nobody asks for, {WORKERS} workers, for {SECONDS} s."
            " Most of it is what it costs to wake up, which differs from machine to machine;"
            " so beside it stands an idle FastAPI application that does nothing,"
            " whose server wakes ten times a second."
        ),
        columns=("", "share of a core"),
        rows=[
            *((name, f"{share:.2%}") for name, share in shares.items()),
            ("in all", f"{total:.2%}"),
            (HELLO, f"{of_hello:.2%}"),
        ],
        goals=[
            Goal(
                asked=f"≤ {SHARE_OF_A_CORE:.0%} of a core in all",
                reached=f"{total:.1%}",
                met=total <= SHARE_OF_A_CORE,
            )
        ],
        figures={
            "events": events,
            "workers": WORKERS,
            "seconds": SECONDS,
            "share_of_a_core": shares,
            "share_of_a_core_in_all": total,
            "share_of_a_core_hello_world": of_hello,
        },
    )
