"""Commands per second that one worker drains from a full line, next to the limits and to RQ as it comes."""

from __future__ import annotations

import io
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import redis
from rq import Queue

from bench.options import Options, scratch
from bench.outcome import Bar, Goal, Outcome
from bench.processes import REPOSITORY, BenchmarkError
from bench.stack import Stack, stack, used_between
from local.servers import PostgresServer, ValkeyServer
from shared.clock import SystemClock, format_time
from shared.database.engine import Database
from shared.domain import BookingStatus, CommandKind, OutcomeCode
from shared.identifiers import new_id
from shared.line.codec import book_payload
from shared.records import EventRecord, LedgerRecord
from shared.seals import ledger_line

PER_SECOND = 20_000
SHARE_OF_COPY = 0.6
BATCH_ROWS = 1_000
DRAIN_SECONDS_MAX = 300.0
RQ_JOBS = {"SimpleWorker": 1_000, "Worker": 200}
PUSHED_AT_ONCE = 256
ENTRY = "x" * 400
COPY_BOOKINGS = (
    "COPY bookings (id, event_id, user_id, ticket_count, status, created_at, updated_at)"
    " FROM STDIN WITH (NULL '')"
)
COPY_LEDGER = (
    "COPY ledger (job_id, event_id, position, kind, payload, outcome, detail, booking_id, accepted_at,"
    " applied_at) FROM STDIN WITH (NULL '')"
)


def run(options: Options, say: Callable[[str], None]) -> Outcome:
    """Ours and the limits in turn; RQ once."""
    drained: list[float] = []
    copied: list[float] = []
    used: list[dict[str, float]] = []
    for number in range(1, options.rounds + 1):
        with scratch() as directory, stack(directory) as onsale:
            per_second, seconds = drain(onsale, options.line)
        drained.append(per_second)
        used.append(seconds)
        copied.append(_copy_limit(options.line))
        say(f"  round {number}: drained {drained[-1]:,.0f}/s, COPY limit {copied[-1]:,.0f}/s")
    pushed = _push_limit(options.line)
    rq = {} if options.rounds == 1 else {name: _rq(name, jobs) for name, jobs in RQ_JOBS.items()}
    say(f"  RPUSH {pushed:,.0f}/s" + "".join(f", RQ {name} {value:,.0f}/s" for name, value in rq.items()))
    ours, copy = statistics.median(drained), statistics.median(copied)
    share = statistics.median(a / b for a, b in zip(drained, copied, strict=True))
    rows = [
        *((f"RQ {name}, a job and a transaction each", f"{value:,.0f}") for name, value in rq.items()),
        ("Onsale, one worker", f"{ours:,.0f}"),
        ("limit: COPY of the same rows, in batches of 1,000", f"{copy:,.0f}"),
        (
            f"limit: RPUSH of {len(ENTRY)} bytes, {PUSHED_AT_ONCE} in a pipeline, fsync always",
            f"{pushed:,.0f}",
        ),
    ]
    microseconds = {
        name: statistics.median(each.get(name, 0.0) for each in used) * 1e6 / options.line for name in used[0]
    }
    return Outcome(
        title="Draining a full line",
        explanation=(
            f"A line of {options.line:,} bookings by as many users on one event. Processor time per command: "
            + ", ".join(f"{name} {value:.0f} µs" for name, value in microseconds.items())
            + "."
        ),
        columns=("", "commands/s"),
        rows=rows,
        goals=[
            Goal(
                asked=f"≥ {PER_SECOND:,}/s, or ≥ {SHARE_OF_COPY:.0%} of the COPY limit",
                reached=f"{ours:,.0f}/s, {share:.0%} of the COPY limit",
                met=ours >= PER_SECOND or share >= SHARE_OF_COPY,
            )
        ],
        figures={
            "drained_per_second": drained,
            "copied_per_second": copied,
            "share_of_copy": share,
            "pushed_per_second": pushed,
            "rq_per_second": rq,
            "processor_microseconds": microseconds,
        },
        plot=[
            *(Bar(label=f"RQ {name}", value=value, ours=False) for name, value in rq.items()),
            Bar(label="Onsale", value=ours, ours=True),
            Bar(label="COPY limit", value=copy, ours=False),
        ],
        unit="commands/s",
    )


def drain(
    onsale: Stack, commands: int, event: EventRecord | None = None, *, prefix: str = "user"
) -> tuple[float, dict[str, float]]:
    """Fill a line, then let a worker drain it; commands per second and processor seconds.

    Both from its first batch on. Who books has not booked before: their names begin with `prefix`.
    """
    event = event or onsale.make_event()
    onsale.fill(event.id, commands, prefix=prefix)
    client = onsale.line()
    begun = before = onsale.applied(client, event.id)
    with onsale.worker():
        deadline = time.monotonic() + DRAIN_SECONDS_MAX
        while before == begun:
            before = onsale.applied(client, event.id)
            time.sleep(0.002)
        started, used = time.monotonic(), onsale.processor_seconds()
        while onsale.applied(client, event.id) < begun + commands:
            onsale.check()
            if time.monotonic() > deadline:
                raise BenchmarkError(f"the line was not drained in {DRAIN_SECONDS_MAX:.0f} s")
            time.sleep(0.01)
        seconds = time.monotonic() - started
        used = used_between(used, onsale.processor_seconds())
    client.close()
    return (begun + commands - before) / seconds, used


def _copy_limit(rows: int) -> float:
    """Bookings and ledger rows per second by COPY alone; the database counts the tickets of each batch."""
    with scratch() as directory, stack(directory) as onsale:
        event = onsale.make_event()
        database = Database(onsale.settings, connections_max=1)
        batches = [_rows(event.id, range(start, start + BATCH_ROWS)) for start in range(0, rows, BATCH_ROWS)]
        started = time.monotonic()
        for bookings, entries in batches:
            with database.transaction() as connection:
                cursor = connection.connection.cursor()
                cursor.copy_expert(COPY_BOOKINGS, io.StringIO(bookings))
                cursor.copy_expert(COPY_LEDGER, io.StringIO(entries))
                cursor.close()
        seconds = time.monotonic() - started
        database.close()
    return rows / seconds


def _rows(event_id: str, numbers: range) -> tuple[str, str]:
    """Bookings and ledger rows as COPY reads them."""
    now = SystemClock().now()
    moment = format_time(now)
    ids = [new_id() for _ in numbers]
    bookings = [
        "\t".join((id, event_id, f"user{number}", "1", BookingStatus.ACTIVE, moment, moment))
        for number, id in zip(numbers, ids, strict=True)
    ]
    entries = [
        ledger_line(
            LedgerRecord(
                job_id=id,
                event_id=event_id,
                position=number + 1,
                kind=CommandKind.BOOK,
                payload=book_payload(f"user{number}", 1),
                outcome=OutcomeCode.BOOKED,
                detail={},
                booking_id=id,
                accepted_at=now,
                applied_at=now,
            )
        )
        for number, id in zip(numbers, ids, strict=True)
    ]
    return "\n".join(bookings), "\n".join(entries)


def _push_limit(entries: int) -> float:
    """Entries per second that Valkey puts on a list and on the disk."""
    with scratch() as directory, ValkeyServer(directory / "valkey") as valkey:
        client = redis.Redis.from_url(valkey.url)
        started = time.monotonic()
        for _ in range(0, entries, PUSHED_AT_ONCE):
            pipeline = client.pipeline(transaction=False)
            for _ in range(PUSHED_AT_ONCE):
                pipeline.rpush("limit", ENTRY)
            pipeline.execute()
        seconds = time.monotonic() - started
        client.close()
    return entries / seconds


def _rq(worker_class: str, jobs: int) -> float:
    """Bookings per second by RQ's own worker, from its start until the queue is empty."""
    with (
        scratch() as directory,
        PostgresServer(directory / "postgres") as postgres,
        ValkeyServer(directory / "valkey") as valkey,
    ):
        environment = {**os.environ, "DATABASE_URL": postgres.url}
        python = [sys.executable, "-c"]
        prepare = "from bench.peers.rq_jobs import create_tables; create_tables()"
        subprocess.run([*python, prepare], env=environment, cwd=REPOSITORY, check=True, timeout=60)
        client = redis.Redis.from_url(valkey.url)
        queue = Queue("bookings", connection=client)
        for number in range(jobs):
            queue.enqueue("bench.peers.rq_jobs.book", f"user{number}", 1)
        command = [sys.executable, "-m", "rq.cli", "worker", "--burst", "--quiet", "--url", valkey.url]
        command += ["--worker-class", f"rq.worker.{worker_class}", "bookings"]
        started = time.monotonic()
        subprocess.run(
            command,
            env=environment,
            cwd=REPOSITORY,
            check=True,
            timeout=DRAIN_SECONDS_MAX,
            capture_output=True,
        )
        seconds = time.monotonic() - started
        count = "from bench.peers.rq_jobs import booked; print(booked())"
        counted = subprocess.run(
            [*python, count], env=environment, cwd=REPOSITORY, check=True, timeout=60, capture_output=True
        )
        client.close()
    if int(counted.stdout) != jobs:
        raise BenchmarkError(f"RQ booked {int(counted.stdout)} of {jobs}")
    return jobs / seconds
