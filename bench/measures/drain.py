"""Commands per second that one worker drains from a full line, next to the limits and to RQ as it comes."""

from __future__ import annotations

import io
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import redis
from rq import Queue

from bench.options import Options, scratch
from bench.outcome import Bar, Goal, Outcome
from bench.processes import REPOSITORY, BenchmarkError
from bench.stack import Stack, new_users, stack, used_between
from local.servers import PostgresServer, ValkeyServer
from shared.clock import SystemClock, format_time
from shared.database.engine import Database
from shared.domain import BookingStatus, CommandKind, OutcomeCode
from shared.identifiers import new_id
from shared.line.codec import book_payload
from shared.line.link import packed
from shared.records import LedgerRecord
from shared.seals import ledger_line

PER_SECOND = 20_000
SHARE_OF_COPY = 0.6
BATCH_ROWS = 1_000
DRAIN_SECONDS_MAX = 300.0
RQ_JOBS = {"SimpleWorker": 1_000, "Worker": 200}
PUSHED_AT_ONCE = 256
RECEIVED_BYTES_MAX = 65_536
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
    """Ours, the limits and RQ in turn; with one round no RQ, which takes long."""
    drained: list[float] = []
    copied: list[float] = []
    pushed: list[float] = []
    rq: dict[str, list[float]] = {} if options.rounds == 1 else {name: [] for name in RQ_JOBS}
    used: list[dict[str, float]] = []
    for number in range(1, options.rounds + 1):
        with scratch() as directory, stack(directory) as onsale:
            per_second, each = drain(onsale, onsale.make_event().id, new_users(options.line))
        drained.append(per_second)
        used.append(each)
        copied.append(_copy_limit(new_users(options.line)))
        pushed.append(_push_limit(options.line))
        for name, values in rq.items():
            values.append(_rq(name, RQ_JOBS[name]))
        say(
            f"  round {number}: drained {drained[-1]:,.0f}/s, COPY limit {copied[-1]:,.0f}/s,"
            f" RPUSH limit {pushed[-1]:,.0f}/s"
            + "".join(f", RQ {name} {values[-1]:,.0f}/s" for name, values in rq.items())
        )
    ours, copy = statistics.median(drained), statistics.median(copied)
    rq_medians = {name: statistics.median(values) for name, values in rq.items()}
    share = statistics.median(a / b for a, b in zip(drained, copied, strict=True))
    rows = [
        *(
            (f"RQ {name}, a job and a transaction each", f"{value:,.0f}")
            for name, value in rq_medians.items()
        ),
        ("Onsale, one worker", f"{ours:,.0f}"),
        ("limit: COPY of the same rows, in batches of 1,000", f"{copy:,.0f}"),
        (
            f"limit: RPUSH of {len(ENTRY)} bytes, {PUSHED_AT_ONCE} in a pipeline, fsync always",
            f"{statistics.median(pushed):,.0f}",
        ),
    ]
    microseconds = {name: statistics.median(each[name] for each in used) for name in used[0]}
    parts = ", ".join(f"{name} {value:.0f} µs" for name, value in microseconds.items())
    return Outcome(
        title="Draining a full line",
        explanation=(
            f"A line of {options.line:,} bookings on one event, by as many users in an order by chance."
            " Medians of the rounds, in which all take turns; each is timed from its first job on. Processor"
            f" time per command: {parts}."
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
            *(Bar(label=f"RQ {name}", value=value, ours=False) for name, value in rq_medians.items()),
            Bar(label="Onsale", value=ours, ours=True),
            Bar(label="COPY limit", value=copy, ours=False),
        ],
        unit="commands/s",
    )


def drain(
    onsale: Stack, event_id: str, users: Sequence[str], *, count: int | None = None
) -> tuple[float, dict[str, float]]:
    """Fill a line, then let a worker drain it; commands per second, and processor time per command in µs.

    Both from its first batch on. With `count` only so many are drained.
    """
    onsale.fill(event_id, users)
    client = onsale.line()
    begun = onsale.applied(client, event_id)
    with onsale.worker():
        measured = time_drain(
            onsale, lambda: onsale.applied(client, event_id), begun, begun + (count or len(users))
        )
    client.close()
    return measured


def time_drain(
    onsale: Stack, count_applied: Callable[[], int], begun: int, end: int
) -> tuple[float, dict[str, float]]:
    """Watch workers from their first batch on until so many commands are applied; what `drain` gives.

    `begun` commands were applied before.

    Raises:
        BenchmarkError: they are not applied in time, or a process has ended.
    """
    deadline = time.monotonic() + DRAIN_SECONDS_MAX
    before = begun
    while before == begun:
        _check(onsale, deadline)
        before = count_applied()
        time.sleep(0.002)
    started, used = time.monotonic(), onsale.processor_seconds()
    applied = before
    while applied < end:
        _check(onsale, deadline)
        time.sleep(0.01)
        applied = count_applied()
    seconds = time.monotonic() - started
    used = used_between(used, onsale.processor_seconds())
    commands = applied - before
    return commands / seconds, {name: spent * 1e6 / commands for name, spent in used.items()}


def _check(onsale: Stack, deadline: float) -> None:
    onsale.check()
    if time.monotonic() > deadline:
        raise BenchmarkError(f"the commands were not applied in {DRAIN_SECONDS_MAX:.0f} s")


def _copy_limit(users: Sequence[str]) -> float:
    """Bookings and ledger rows per second by COPY alone; the database counts the tickets of each batch."""
    with scratch() as directory, stack(directory) as onsale:
        event = onsale.make_event()
        database = Database(onsale.settings, connections_max=1)
        batches = [
            _rows(event.id, start, users[start : start + BATCH_ROWS])
            for start in range(0, len(users), BATCH_ROWS)
        ]
        started = time.monotonic()
        for bookings, entries in batches:
            with database.transaction() as connection:
                cursor = connection.connection.cursor()
                cursor.copy_expert(COPY_BOOKINGS, io.StringIO(bookings))
                cursor.copy_expert(COPY_LEDGER, io.StringIO(entries))
                cursor.close()
        seconds = time.monotonic() - started
        database.close()
    return len(users) / seconds


def _rows(event_id: str, start: int, users: Sequence[str]) -> tuple[str, str]:
    """Bookings and ledger rows as COPY reads them."""
    now = SystemClock().now()
    moment = format_time(now)
    ids = [new_id() for _ in users]
    bookings = [
        "\t".join((id, event_id, user, "1", BookingStatus.ACTIVE, moment, moment))
        for user, id in zip(users, ids, strict=True)
    ]
    entries = [
        ledger_line(
            LedgerRecord(
                job_id=id,
                event_id=event_id,
                position=position,
                kind=CommandKind.BOOK,
                payload=book_payload(user, 1),
                outcome=OutcomeCode.BOOKED,
                detail={},
                booking_id=id,
                accepted_at=now,
                applied_at=now,
            )
        )
        for position, (user, id) in enumerate(zip(users, ids, strict=True), start=start + 1)
    ]
    return "\n".join(bookings), "\n".join(entries)


def _push_limit(entries: int) -> float:
    """Entries per second that Valkey puts on a list and on the disk."""
    together = packed(("RPUSH", "limit", ENTRY)) * PUSHED_AT_ONCE
    times = entries // PUSHED_AT_ONCE
    with (
        scratch() as directory,
        ValkeyServer(directory / "valkey") as valkey,
        socket.create_connection(("127.0.0.1", valkey.port)) as connection,
    ):
        started = time.monotonic()
        for _ in range(times):
            connection.sendall(together)
            answers = 0
            while answers < PUSHED_AT_ONCE:
                answers += connection.recv(RECEIVED_BYTES_MAX).count(b"\n")
        seconds = time.monotonic() - started
    return times * PUSHED_AT_ONCE / seconds


def _rq(worker_class: str, jobs: int) -> float:
    """Bookings per second by RQ's own worker, from its first job until the queue is empty."""
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
        ended = subprocess.run(
            [sys.executable, "-m", "bench.peers.rq_worker", worker_class, valkey.url, "bookings"],
            env=environment,
            cwd=REPOSITORY,
            check=True,
            timeout=DRAIN_SECONDS_MAX,
            capture_output=True,
        )
        seconds = float(ended.stdout)
        count = "from bench.peers.rq_jobs import booked; print(booked())"
        counted = subprocess.run(
            [*python, count], env=environment, cwd=REPOSITORY, check=True, timeout=60, capture_output=True
        )
        client.close()
    if int(counted.stdout) != jobs:
        raise BenchmarkError(f"RQ booked {int(counted.stdout)} of {jobs}")
    return jobs / seconds
