"""Redis's memory while commands flow for longer than results live."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass

from redis import Redis

from bench.options import Options, scratch
from bench.outcome import Goal, Outcome
from bench.stack import Stack, booking, stack
from shared.line.producer import Producer
from shared.settings import Settings

SAMPLES = 20
GIB = 1024**3
FLAT_WITHIN = 0.10
SETTLED_AFTER = 1.1
"""So many times as long as results live, since they are not deleted at the very moment."""
MEASURED_AT_LEAST = 2
"""So many times as long as results live; before that, memory has hardly had the time to grow further."""
DUE_AT_LEAST = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Redis at one moment; `waiting` is the length of the line."""

    seconds: float
    bytes: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What was seen while commands flowed. `peak_bytes` is Redis's own, so no moment is missed."""

    samples: Sequence[Sample]
    peak_bytes: int
    per_second: float

    def growth(self, live_seconds: float) -> float | None:
        """By what share the most of the later half is above the most of the earlier, once results expire.

        None where too little was seen of that to tell.
        """
        if self.samples[-1].seconds < MEASURED_AT_LEAST * live_seconds:
            return None
        settled = [each.bytes for each in self.samples if each.seconds > live_seconds * SETTLED_AFTER]
        half = len(settled) // 2
        return max(settled[half:]) / max(settled[:half]) - 1 if half else None


def run(options: Options, say: Callable[[str], None]) -> Outcome:
    """Let commands flow at a steady rate through one worker, and look at the memory now and then."""
    with scratch() as directory, stack(directory) as onsale:
        event = onsale.make_event(total_tickets=10_000_000)
        onsale.start_worker()
        with closing(onsale.line()) as client:
            samples = onsale.with_producer(
                lambda producer: _flow(producer, onsale, client, event.id, options, say)
            )
            applied = onsale.applied(client, event.id)
            peak = int(client.info("memory")["used_memory_peak"])
    flow = Flow(samples=samples, peak_bytes=peak, per_second=applied / samples[-1].seconds)
    return outcome(flow, options, Settings.model_fields["result_ttl_seconds"].default)


def outcome(flow: Flow, options: Options, live_seconds: int) -> Outcome:
    """Of what was seen, where results live so long."""
    growth = flow.growth(live_seconds)
    is_flat = growth is not None and growth <= FLAT_WITHIN
    too_short = f"flat or not was not measured, which takes {MEASURED_AT_LEAST * live_seconds:.0f} s"
    after = too_short if growth is None else f"{growth:+.0%} after it"
    return Outcome(
        title="Redis's memory",
        explanation=(
            f"{flow.per_second:,.0f} bookings per second for {options.memory_seconds} s through one worker,"
            f" submitted without HTTP; results live {live_seconds} s. `waiting` is the length of the line at"
            " that moment. Growth is that of the most in the earlier half of the time after the first results"
            " have gone to the most in the later half; at most is Redis's own peak."
        ),
        columns=("after", "memory", "waiting"),
        rows=[
            (f"{each.seconds:.0f} s", f"{each.bytes / 1e6:,.0f} MB", f"{each.waiting:,}")
            for each in flow.samples
        ],
        goals=[
            Goal(
                asked=f"{options.memory_per_second:,}/s for {options.memory_seconds} s: flat after"
                " the results' time to live, ≤ 1 GiB",
                reached=f"{flow.per_second:,.0f}/s, {after}, {flow.peak_bytes / GIB:.2f} GiB at most",
                met=is_flat
                and flow.peak_bytes <= GIB
                and flow.per_second >= options.memory_per_second * DUE_AT_LEAST,
            )
        ],
        figures={
            "samples": [asdict(each) for each in flow.samples],
            "peak_bytes": flow.peak_bytes,
            "growth": growth,
            "results_live_seconds": live_seconds,
            "seconds": options.memory_seconds,
            "per_second": flow.per_second,
        },
    )


async def _flow(
    producer: Producer,
    onsale: Stack,
    client: Redis,
    event_id: str,
    options: Options,
    say: Callable[[str], None],
) -> list[Sample]:
    samples: list[Sample] = []
    started, sent = time.monotonic(), 0

    def look(elapsed: float) -> None:
        onsale.check()
        used = int(client.info("memory")["used_memory"])
        samples.append(
            Sample(seconds=elapsed, bytes=used, waiting=int(client.llen(f"onsale:order:{event_id}")))
        )
        say(f"  {elapsed:.0f} s: {used / 1e6:,.0f} MB")

    sample_seconds = options.memory_seconds / SAMPLES
    while (elapsed := time.monotonic() - started) < options.memory_seconds:
        due = int(elapsed * options.memory_per_second) - sent
        await asyncio.gather(
            *(producer.submit(booking(event_id, f"user{sent + number}")) for number in range(due))
        )
        sent += due
        if elapsed >= sample_seconds * (len(samples) + 1):
            look(elapsed)
        await asyncio.sleep(0.02)
    look(time.monotonic() - started)
    return samples
