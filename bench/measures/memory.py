"""Redis's memory while commands flow for longer than results live."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from bench.options import Options, scratch
from bench.outcome import Goal, Outcome
from bench.stack import Stack, booking, stack
from shared.line.producer import Producer
from shared.settings import Settings

SAMPLES = 20
GIB = 1024**3
FLAT_WITHIN = 0.10


def run(options: Options, say: Callable[[str], None]) -> Outcome:
    """Let commands flow at a steady rate through one worker, and look at the memory now and then."""
    with scratch() as directory, stack(directory) as onsale:
        event = onsale.make_event(total_tickets=10_000_000)
        onsale.start_worker()
        samples = onsale.with_producer(lambda producer: _flow(producer, onsale, event.id, options, say))
        applied = onsale.applied(onsale.line(), event.id)
    time_to_live = Settings.model_fields["result_ttl_seconds"].default
    settled = [used for seconds, used, _ in samples if seconds > time_to_live * 1.1] or [samples[-1][1]]
    growth = settled[-1] / settled[0] - 1
    most = max(used for _, used, _ in samples)
    per_second = applied / options.memory_seconds
    return Outcome(
        title="Redis's memory",
        explanation=(
            f"{per_second:,.0f} bookings per second for {options.memory_seconds} s through one worker,"
            " submitted"
            f" without HTTP; results live {time_to_live} s. `waiting` is the length of the line at that"
            " moment."
        ),
        columns=("after", "memory", "waiting"),
        rows=[
            (f"{seconds:.0f} s", f"{used / 1e6:,.0f} MB", f"{waiting:,}")
            for seconds, used, waiting in samples
        ],
        goals=[
            Goal(
                asked=f"{options.memory_per_second:,}/s for {options.memory_seconds} s: flat after"
                " the results' time to live, ≤ 1 GiB",
                reached=f"{per_second:,.0f}/s, {growth:+.0%} after it, {most / GIB:.2f} GiB at most",
                met=growth <= FLAT_WITHIN and most <= GIB and per_second >= options.memory_per_second * 0.95,
            )
        ],
        figures={
            "samples": [
                {"seconds": seconds, "bytes": used, "waiting": waiting} for seconds, used, waiting in samples
            ],
            "per_second": per_second,
        },
    )


async def _flow(
    producer: Producer, onsale: Stack, event_id: str, options: Options, say: Callable[[str], None]
) -> list[tuple[float, int, int]]:
    client = onsale.line()
    samples: list[tuple[float, int, int]] = []
    started, sent = time.monotonic(), 0
    sample_seconds = options.memory_seconds / SAMPLES
    while (elapsed := time.monotonic() - started) < options.memory_seconds:
        due = int(elapsed * options.memory_per_second) - sent
        await asyncio.gather(
            *(producer.submit(booking(event_id, f"user{sent + number}")) for number in range(due))
        )
        sent += due
        if elapsed >= sample_seconds * (len(samples) + 1):
            used = int(client.info("memory")["used_memory"])
            samples.append((elapsed, used, int(client.llen(f"onsale:order:{event_id}"))))
            say(f"  {elapsed:.0f} s: {used / 1e6:,.0f} MB")
            onsale.check()
        await asyncio.sleep(0.02)
    client.close()
    return samples
