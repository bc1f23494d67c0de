"""Does it slow down as it grows: a longer ledger, more events, a longer line?"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial

import psycopg2

from bench.measures.drain import drain
from bench.options import Options, scratch
from bench.outcome import Goal, Outcome
from bench.stack import Stack, new_users, stack, stack_with
from local.servers import PostgresServer
from shared.database import statements
from shared.database.engine import Database

ROWS_SMALL = 10_000
EVENTS_MANY = 10_000
SLOWER_AT_MOST = 0.10
BYTES_PER_WAITING_COMMAND = 1_024
DRAINED = 60_000
"""Long enough for a machine's good and bad moments to level out."""
ACCEPTED = 20_000
TURNS = 7
NO_OTHER_CHECKPOINT = {"checkpoint_timeout": "1h"}
DRAINS_FIRST = 4
"""So many until 95 % of the pages of the users' index have been written since the checkpoint."""
RESAMPLED = 2_000
CONFIDENCE = 0.9
ROWS_AT_ONCE = 100_000

_Measured = Callable[[Stack, str, int, int], float]
"""Commands per second at an event with so many old rows, in a turn."""

_OLD_ROWS = """
SET LOCAL session_replication_role = replica;
INSERT INTO bookings SELECT id, '{event_id}', 'old' || n, 1, 'active', now(), now()
FROM (SELECT n, ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid AS id
      FROM generate_series({first}, {last}) AS n) AS rows;
INSERT INTO ledger SELECT id, '{event_id}', n, 'book', jsonb_build_object('v', 1, 'kind', 'book',
    'user_id', 'old' || n, 'ticket_count', 1), 'booked', NULL, id, now(), now()
FROM (SELECT n, ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid AS id
      FROM generate_series({first}, {last}) AS n) AS rows;
"""


def run(options: Options, say: Callable[[str], None]) -> Outcome:
    """Small and large in turn, so that both have the same good and bad moments of the machine."""
    pairs: dict[str, Pair] = {}

    def note(name: str, drained: Pair, accepted: Pair) -> None:
        for what, pair in (("drained", drained), ("accepted", accepted)):
            pairs[f"{name}: {what}"] = pair
            say(f"  {name}: {what} {pair.small:,.0f}/s → {pair.large:,.0f}/s, {pair}")

    drained, accepted, behind_checkpoint = _behind_ledgers(options.growth_rows)
    note(f"ledger {ROWS_SMALL:,} → {options.growth_rows:,} rows", drained, accepted)
    first_drains = " → ".join(f"{per_second:,.0f}" for per_second in behind_checkpoint)
    say(f"  behind a checkpoint: {first_drains}/s")
    note(f"open events 1 → {EVENTS_MANY:,}", *_among_events())
    drained, accepted, bytes_each = _behind_lines(options.growth_line)
    note(f"line of at most {DRAINED:,} → {options.growth_line:,}", drained, accepted)
    say(f"  {bytes_each:.0f} bytes a waiting command")
    rows = [
        (name, f"{pair.small:,.0f}/s", f"{pair.large:,.0f}/s", f"{pair.change:+.0%}", str(pair))
        for name, pair in pairs.items()
    ]
    worst = min(pair.change for pair in pairs.values())
    return Outcome(
        title="Growth",
        explanation=(
            f"Commands per second by one worker from a line of {DRAINED:,}, or accepted through one producer"
            f" without HTTP, {ACCEPTED:,} at a time. {TURNS} turns, in which small and large alternate; the"
            " change is the median of the turns' own, behind it what it may be by chance (bootstrap,"
            f" {CONFIDENCE:.0%}). The event that is drained is the one with the long ledger, and the names of"
            " its new users fall among the old ones. PostgreSQL logs each page whole once after a checkpoint:"
            f" the first {DRAINS_FIRST} drains of the long ledger after one ({first_drains}/s) don't count,"
            " nor does one at another event of each new server; no other checkpoint comes."
        ),
        columns=("", "small", "large", "change", "between"),
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
            "change": {
                name: {"median": pair.change, "between": pair.between} for name, pair in pairs.items()
            },
            "behind_checkpoint_per_second": behind_checkpoint,
            "bytes_per_waiting_command": bytes_each,
        },
    )


@dataclass(frozen=True, slots=True)
class Pair:
    """Commands per second in each turn, of the small and of the large."""

    all_small: list[float]
    all_large: list[float]

    @property
    def small(self) -> float:
        """The median."""
        return statistics.median(self.all_small)

    @property
    def large(self) -> float:
        """The median."""
        return statistics.median(self.all_large)

    @property
    def change(self) -> float:
        """The median of what each turn says by itself."""
        return statistics.median(self._changes())

    @property
    def between(self) -> tuple[float, float]:
        """What the change may be by chance (Efron's bootstrap of the median, percentiles)."""
        chance = random.Random(len(self.all_small))  # noqa: S311 (statistics, the same for the same figures)
        changes = self._changes()
        medians = sorted(statistics.median(chance.choices(changes, k=len(changes))) for _ in range(RESAMPLED))
        outside = round(RESAMPLED * (1 - CONFIDENCE) / 2)
        return medians[outside], medians[-outside - 1]

    def _changes(self) -> list[float]:
        return [large / small - 1 for small, large in zip(self.all_small, self.all_large, strict=True)]

    def __str__(self) -> str:
        low, high = self.between
        return f"{low:+.0%} and {high:+.0%}"


def _in_turn(small: Callable[[int], float], large: Callable[[int], float]) -> Pair:
    """Measure both in each turn, given its number; who comes first alternates too."""
    pair = Pair([], [])
    for turn in range(TURNS):
        for measure, figures in ((small, pair.all_small), (large, pair.all_large))[:: -1 if turn % 2 else 1]:
            figures.append(measure(turn))
    return pair


def _behind_ledgers(rows: int) -> tuple[Pair, Pair, list[float]]:
    """An event that has sold few tickets, and one that has sold so many: drained from and accepted at.

    Redis is new in each turn with either, so that only PostgreSQL is longer. Behind them what was drained a
    second straight after a checkpoint.
    """
    with (
        scratch() as directory,
        PostgresServer(directory / "postgres", settings=NO_OTHER_CHECKPOINT) as postgres,
    ):
        with stack_with(postgres, directory) as first:
            long = _event_that_sold(first, rows)

        def with_many(measured: _Measured, turn: int) -> float:
            with scratch() as own, stack_with(postgres, own) as large:
                _tell_redis(large, long)
                return measured(large, long, rows, turn)

        def with_few(measured: _Measured, turn: int) -> float:
            with scratch() as own, stack(own) as small:
                event_id = _event_that_sold(small, ROWS_SMALL)
                # A server that has never written much has its log yet to make, which the long one has.
                drain(small, small.make_event().id, new_users(DRAINED))
                return measured(small, event_id, ROWS_SMALL, turn)

        def pair(measured: _Measured) -> Pair:
            return _in_turn(partial(with_few, measured), partial(with_many, measured))

        behind_checkpoint = [with_many(_drained, TURNS + number) for number in range(DRAINS_FIRST)]
        return pair(_drained), pair(_accepted), behind_checkpoint


def _among_events() -> tuple[Pair, Pair]:
    """A new event in each turn, alone and among many."""

    def new(measured: _Measured, onsale: Stack, turn: int) -> float:
        return measured(onsale, onsale.make_event().id, 0, turn)

    with _stacks() as (small, large):
        large.make_quiet_events(EVENTS_MANY - 1)

        def pair(measured: _Measured) -> Pair:
            return _in_turn(partial(new, measured, small), partial(new, measured, large))

        return pair(_drained), pair(_accepted)


def _drained(onsale: Stack, event_id: str, rows: int, turn: int) -> float:
    return drain(onsale, event_id, _users_among(rows, DRAINED, turn))[0]


def _accepted(onsale: Stack, event_id: str, rows: int, turn: int) -> float:
    users = _users_among(rows, ACCEPTED, TURNS + DRAINS_FIRST + turn)
    started = time.monotonic()
    onsale.fill(event_id, users)
    return ACCEPTED / (time.monotonic() - started)


def _users_among(rows: int, count: int, turn: int) -> list[str]:
    """New users whose names fall among those of so many old ones, by chance."""
    chance = random.Random(turn)  # noqa: S311 (an order, the same in each run)
    return [f"old{chance.randint(1, max(rows, 1))}-{turn}-{number}" for number in range(count)]


@contextmanager
def _stacks() -> Iterator[tuple[Stack, Stack]]:
    with scratch() as one, scratch() as other, stack(one) as small, stack(other) as large:
        yield small, large


def _event_that_sold(onsale: Stack, rows: int) -> str:
    """The id of an event with so many rows in its ledger."""
    event_id = onsale.make_event(total_tickets=10_000_000).id
    with closing(psycopg2.connect(onsale.postgres.url)) as connection, connection.cursor() as cursor:
        for first in range(1, rows + 1, ROWS_AT_ONCE):
            last = min(rows, first + ROWS_AT_ONCE - 1)
            cursor.execute(_OLD_ROWS.format(event_id=event_id, first=first, last=last))
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
    _tell_redis(onsale, event_id)
    return event_id


def _tell_redis(onsale: Stack, event_id: str) -> None:
    database = Database(onsale.settings, connections_max=1)
    with database.transaction() as connection:
        event = statements.find_event(connection, event_id)
    database.close()
    assert event is not None
    onsale.with_producer(lambda producer: producer.seed_event(event))


def _behind_lines(length: int) -> tuple[Pair, Pair, float]:
    """Drained from and accepted behind a short line and a long one; memory of a waiting command in bytes."""
    with _stacks() as (small, large):
        event_id = large.make_event().id
        client = large.line()
        empty = int(client.info("memory")["used_memory"])
        large.fill(event_id, new_users(length))
        each = (int(client.info("memory")["used_memory"]) - empty) / length
        client.close()

        def short(measured: _Measured, turn: int) -> float:
            return measured(small, small.make_event().id, 0, turn)

        def drained_from_long(turn: int) -> float:
            return drain(large, event_id, _users_among(length, DRAINED, turn), count=DRAINED)[0]

        accepted = _in_turn(partial(short, _accepted), partial(_accepted, large, event_id, length))
        drained = _in_turn(partial(short, _drained), drained_from_long)
    return drained, accepted, each
