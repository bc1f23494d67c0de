"""Durable accepts per second of one API process, next to FastAPI's hello world and a bare ASGI server."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from bench.load import book_for
from bench.options import Options, scratch
from bench.outcome import Bar, Goal, Outcome
from bench.processes import BenchmarkError
from bench.stack import Stack, stack
from bench.targets import HELLO_WORLD, plain_peer
from shared.line.keys import ORDER

HELLO, BARE, OURS = "FastAPI hello world", "bare ASGI", "Onsale"
RATIO_TO_HELLO = 1.2
WARM_UP_SECONDS = 1
HELLO_EVENT = "01a206d1-0000-7000-8000-000000000000"


def run(options: Options, say: Callable[[str], None]) -> Outcome:
    """All in turn, so often as there are rounds. With one round only the hello world is put beside ours."""
    peers = {HELLO: HELLO_WORLD}
    if options.rounds > 1:
        peers[BARE] = "bench.peers.bare:app"
    figures: dict[str, list[float]] = {name: [] for name in (*peers, OURS)}
    for number in range(1, options.rounds + 1):
        for name, application in peers.items():
            with plain_peer(application) as (base_url, _):
                figures[name].append(_accepts(base_url, HELLO_EVENT, options)[0])
        with scratch() as directory, stack(directory) as onsale:
            onsale.start_api()
            event = onsale.make_event()
            per_second, accepted = _accepts(onsale.base_url, event.id, options)
            figures[OURS].append(per_second)
            _check_line(onsale, event.id, accepted, unread=2 * options.connections)
        say(
            f"  round {number}: "
            + ", ".join(f"{name} {values[-1]:,.0f}/s" for name, values in figures.items())
        )
    return outcome(figures, options)


def outcome(figures: dict[str, list[float]], options: Options) -> Outcome:
    """Of the answers per second in each round. A ratio is that of a round; the median of them counts."""
    ratios = {
        name: statistics.median(value / hello for value, hello in zip(values, figures[HELLO], strict=True))
        for name, values in figures.items()
    }
    medians = {name: statistics.median(values) for name, values in figures.items()}
    return Outcome(
        title="Durable accepts of one API process",
        explanation=(
            "Answers of 202 per second with no worker running: each command validated, given its position and"
            " fsynced. The hello world has the same path, body model and answer, and does nothing."
            " Medians of the rounds, in which all take turns; ratios are medians of those of the rounds."
        ),
        columns=("", "answers/s", "times hello world"),
        rows=[(name, f"{value:,.0f}", f"{ratios[name]:.2f}") for name, value in medians.items()],
        goals=[
            Goal(
                asked=f"≥ {RATIO_TO_HELLO} times FastAPI's hello world",
                reached=f"{ratios[OURS]:.2f} times",
                met=ratios[OURS] >= RATIO_TO_HELLO,
            )
        ],
        figures={
            "connections": options.connections,
            "seconds": options.seconds,
            "per_second": figures,
            "median_per_second": medians,
            "ratios_to_hello": ratios,
            "ratio_to_hello": ratios[OURS],
        },
        plot=[Bar(label=name, value=value, ours=name == OURS) for name, value in medians.items()],
        unit="answers/s",
    )


def _accepts(base_url: str, event_id: str, options: Options) -> tuple[float, int]:
    """Accepted per second, and in all, with those of the warm-up."""
    before = book_for(WARM_UP_SECONDS, connections=options.connections, base_url=base_url, event_id=event_id)
    load = book_for(options.seconds, connections=options.connections, base_url=base_url, event_id=event_id)
    return load.accepted / load.seconds, before.accepted + load.accepted


def _check_line(onsale: Stack, event_id: str, told: int, *, unread: int) -> None:
    """All that was accepted stands in line; the last answer on each connection nobody has read."""
    client = onsale.line()
    waiting = client.llen(f"{ORDER}{event_id}")
    client.close()
    if not told <= waiting <= told + unread:
        raise BenchmarkError(f"WRONG RESULT: {told} commands were accepted, {waiting} are in line")
