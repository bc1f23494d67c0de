"""Does it slow down as it grows: a longer ledger, more events, a longer line?"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

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
SAMPLE = 20_000
ROWS_AT_ONCE = 100_000

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
    """Each pair small first, then large, so often as there are rounds; the better of each is compared."""
    pairs = {
        f"ledger {ROWS_SMALL:,} → {options.growth_rows:,} rows: drained": (
            [_drained_after(ROWS_SMALL) for _ in range(2)],
            [_drained_after(options.growth_rows) for _ in range(2)],
        )
    }
    say(f"  {list(pairs)[-1]} {_shown(pairs)}")
    pairs[f"open events 1 → {EVENTS_MANY:,}: drained"] = (
        [_drained_among(1) for _ in range(2)],
        [_drained_among(EVENTS_MANY) for _ in range(2)],
    )
    say(f"  {list(pairs)[-1]} {_shown(pairs)}")
    short, long, bytes_each = _accepted_behind(options.growth_line)
    pairs[f"line {LINE_SHORT} → {options.growth_line:,}: accepted"] = (short, long)
    say(f"  {list(pairs)[-1]} {_shown(pairs)}, {bytes_each:.0f} bytes a waiting command")
    changes = {name: max(large) / max(small) - 1 for name, (small, large) in pairs.items()}
    rows = [
        (name, f"{max(small):,.0f}/s", f"{max(large):,.0f}/s", f"{changes[name]:+.0%}")
        for name, (small, large) in pairs.items()
    ]
    worst = min(changes.values())
    return Outcome(
        title="Growth",
        explanation=(
            f"Commands per second by one worker from a line of {SAMPLE:,}, or accepted through one"
            " producer without"
            " HTTP. The better of two runs each. The event that is drained is the one with the long ledger."
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
            "per_second": {name: {"small": small, "large": large} for name, (small, large) in pairs.items()},
            "bytes_per_waiting_command": bytes_each,
        },
    )


def _shown(pairs: dict[str, tuple[list[float], list[float]]]) -> str:
    small, large = list(pairs.values())[-1]
    return f"{max(small):,.0f}/s → {max(large):,.0f}/s"


def _drained_after(rows: int) -> float:
    """Drain an event that has sold so many tickets before."""
    with scratch() as directory, stack(directory) as onsale:
        event = onsale.make_event(total_tickets=10_000_000)
        return drain(onsale, SAMPLE, _write_old_rows(onsale, event.id, rows))[0]


def _write_old_rows(onsale: Stack, event_id: str, rows: int) -> EventRecord:
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
    return _tell_redis(onsale, event_id)


def _tell_redis(onsale: Stack, event_id: str) -> EventRecord:
    database = Database(onsale.settings, connections_max=1)
    with database.transaction() as connection:
        event = statements.find_event(connection, event_id)
    database.close()
    assert event is not None
    onsale.with_producer(lambda producer: producer.seed_event(event))
    return event


def _drained_among(events: int) -> float:
    """Drain one of so many open events."""
    with scratch() as directory, stack(directory) as onsale:
        onsale.make_quiet_events(events - 1)
        return drain(onsale, SAMPLE)[0]


def _accepted_behind(length: int) -> tuple[list[float], list[float], float]:
    """Accepts per second behind a short and a long line, and the memory of a waiting command in bytes."""
    with scratch() as directory, stack(directory) as onsale:
        event = onsale.make_event()
        client = onsale.line()
        onsale.fill(event.id, LINE_SHORT, prefix="first")
        empty = int(client.info("memory")["used_memory"])
        short = [_accepted_per_second(onsale, event.id, prefix) for prefix in ("early", "soon")]
        filled = length - LINE_SHORT - 2 * SAMPLE
        onsale.fill(event.id, filled, prefix="waiting")
        each = (int(client.info("memory")["used_memory"]) - empty) / (filled + 2 * SAMPLE)
        long = [_accepted_per_second(onsale, event.id, prefix) for prefix in ("late", "last")]
        client.close()
    return short, long, each


def _accepted_per_second(onsale: Stack, event_id: str, prefix: str) -> float:
    started = time.monotonic()
    onsale.fill(event_id, SAMPLE, prefix=prefix)
    return SAMPLE / (time.monotonic() - started)
