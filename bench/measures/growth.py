"""Does it slow down as it grows: a longer ledger, more events, a longer line?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import psycopg2

from bench.measures.drain import drain
from bench.options import Options, scratch
from bench.outcome import Goal, Outcome
from bench.stack import Stack, stack
from shared.database import statements
from shared.database.engine import Database
from shared.records import EventRecord

ROWS_SMALL = 10_000
EVENTS_MANY = 10_000
LINE_SHORT = 100
SLOWER_AT_MOST = 0.10
BYTES_PER_WAITING_COMMAND = 1_024
DRAINED = 60_000
"""Long enough for a machine's good and bad moments to level out."""
ACCEPTED = 20_000
TURNS = 9
ROWS_AT_ONCE = 100_000

_OLD_ROWS = """
SET LOCAL session_replication_role = replica;
INSERT INTO bookings SELECT id, '{event_id}', 'old' || n, 1, 'active', now(), now()
FROM (SELECT n, ('01900000-0000-7000-8000-' || lpad(to_hex(n + {others}), 12, '0'))::uuid AS id
      FROM generate_series({first}, {last}) AS n) AS rows;
INSERT INTO ledger SELECT id, '{event_id}', n, 'book', jsonb_build_object('v', 1, 'kind', 'book',
    'user_id', 'old' || n, 'ticket_count', 1), 'booked', NULL, id, now(), now()
FROM (SELECT n, ('01900000-0000-7000-8000-' || lpad(to_hex(n + {others}), 12, '0'))::uuid AS id
      FROM generate_series({first}, {last}) AS n) AS rows;
"""


def run(options: Options, say: Callable[[str], None]) -> Outcome:
    """Small and large in turn, on servers that all run, so that both have the same good and bad moments."""
    pairs: dict[str, _Pair] = {}

    def note(name: str, pair: _Pair, more: str = "") -> None:
        pairs[name] = pair
        say(f"  {name} {pair.small:,.0f}/s → {pair.large:,.0f}/s{more}")

    note(
        f"ledger {ROWS_SMALL:,} → {options.growth_rows:,} rows: drained",
        _drained_behind_ledgers(options.growth_rows),
    )
    note(f"open events 1 → {EVENTS_MANY:,}: drained", _drained_among_events())
    accepted, bytes_each = _accepted_behind_lines(options.growth_line)
    note(
        f"line {LINE_SHORT} → {options.growth_line:,}: accepted",
        accepted,
        f", {bytes_each:.0f} bytes a waiting command",
    )
    changes = {name: pair.large / pair.small - 1 for name, pair in pairs.items()}
    rows = [
        (name, f"{pair.small:,.0f}/s", f"{pair.large:,.0f}/s", f"{changes[name]:+.0%}")
        for name, pair in pairs.items()
    ]
    worst = min(changes.values())
    return Outcome(
        title="Growth",
        explanation=(
            f"Commands per second by one worker from a line of {DRAINED:,}, or accepted through one producer"
            f" without HTTP, {ACCEPTED:,} at a time. Medians of {TURNS} turns, in which small and large"
            " alternate. The event that is drained is the one with the long ledger."
        ),
        columns=("", "small", "large", "change"),
        rows=rows,
        goals=[
            Goal(
                asked=f"within {SLOWER_AT_MOST:.0%}",
                reached=f"{worst:+.0%} at worst",
                met=worst >= -SLOWER_AT_MOST,
            ),
            Goal(
                asked=f"≤ {BYTES_PER_WAITING_COMMAND:,} bytes of Redis a waiting command",
                reached=f"{bytes_each:.0f} bytes",
                met=bytes_each <= BYTES_PER_WAITING_COMMAND,
            ),
        ],
        figures={
            "per_second": {
                name: {"small": pair.all_small, "large": pair.all_large} for name, pair in pairs.items()
            },
            "bytes_per_waiting_command": bytes_each,
        },
    )


@dataclass(frozen=True, slots=True)
class _Pair:
    """Commands per second in each turn, of the small and of the large."""

    all_small: list[float]
    all_large: list[float]

    @property
    def small(self) -> float:
        return statistics.median(self.all_small)

    @property
    def large(self) -> float:
        return statistics.median(self.all_large)


def _in_turn(small: Callable[[int], float], large: Callable[[int], float]) -> _Pair:
    """Measure both in each turn, given its number; who comes first alternates too."""
    pair = _Pair([], [])
    for turn in range(TURNS):
        for measure, figures in ((small, pair.all_small), (large, pair.all_large))[:: -1 if turn % 2 else 1]:
            figures.append(measure(turn))
    return pair


def _drained_behind_ledgers(rows: int) -> _Pair:
    """Drain an event that has sold few tickets before, and one that has sold so many."""
    with _stacks() as (small, large):
        long = _event_that_sold(large, rows)
        return _in_turn(
            lambda turn: drain(small, DRAINED, _event_that_sold(small, ROWS_SMALL, turn * ROWS_SMALL))[0],
            lambda turn: drain(large, DRAINED, long, prefix=f"turn{turn}-")[0],
        )


def _drained_among_events() -> _Pair:
    """Drain a new event, alone and among many."""
    with _stacks() as (small, large):
        large.make_quiet_events(EVENTS_MANY - 1)
        return _in_turn(lambda _: drain(small, DRAINED)[0], lambda _: drain(large, DRAINED)[0])


@contextmanager
def _stacks() -> Iterator[tuple[Stack, Stack]]:
    with scratch() as one, scratch() as other, stack(one) as small, stack(other) as large:
        yield small, large


def _event_that_sold(onsale: Stack, rows: int, others: int = 0) -> EventRecord:
    """An event with so many rows in its ledger; `others` have been written for events before it."""
    event_id = onsale.make_event(total_tickets=10_000_000).id
    with closing(psycopg2.connect(onsale.postgres.url)) as connection, connection.cursor() as cursor:
        for first in range(1, rows + 1, ROWS_AT_ONCE):
            last = min(rows, first + ROWS_AT_ONCE - 1)
            cursor.execute(_OLD_ROWS.format(event_id=event_id, first=first, last=last, others=others))
            connection.commit()
        cursor.execute(
            "SET session_replication_role = replica;"
            " UPDATE events SET applied_position = %s, available_tickets = available_tickets - %s WHERE"
            " id = %s",
            (rows, rows, event_id),
        )
        connection.commit()
        connection.autocommit = True
        cursor.execute("VACUUM ANALYZE")
        # Years of sales have been written in a minute; PostgreSQL would still be at it while it is measured.
        cursor.execute("CHECKPOINT")
    return _tell_redis(onsale, event_id)


def _tell_redis(onsale: Stack, event_id: str) -> EventRecord:
    database = Database(onsale.settings, connections_max=1)
    with database.transaction() as connection:
        event = statements.find_event(connection, event_id)
    database.close()
    assert event is not None
    onsale.with_producer(lambda producer: producer.seed_event(event))
    return event


def _accepted_behind_lines(length: int) -> tuple[_Pair, float]:
    """Accepts per second behind a short and a long line, and the memory of a waiting command in bytes."""
    with _stacks() as (small, large):
        event = large.make_event()
        client = large.line()
        empty = int(client.info("memory")["used_memory"])
        large.fill(event.id, length)
        each = (int(client.info("memory")["used_memory"]) - empty) / length
        client.close()
        pair = _in_turn(
            lambda _: _accepted_behind_short(small),
            lambda turn: _accepted_per_second(large, event.id, f"turn{turn}-"),
        )
    return pair, each


def _accepted_behind_short(onsale: Stack) -> float:
    event = onsale.make_event()
    onsale.fill(event.id, LINE_SHORT)
    return _accepted_per_second(onsale, event.id, "turn-")


def _accepted_per_second(onsale: Stack, event_id: str, prefix: str) -> float:
    started = time.monotonic()
    onsale.fill(event_id, ACCEPTED, prefix=prefix)
    return ACCEPTED / (time.monotonic() - started)
