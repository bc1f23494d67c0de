"""Bookings accepted and applied per second over HTTP on one hot event, next to what it replaces."""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from functools import partial
from pathlib import Path

import psycopg2

from bench.machine import pgbench_path
from bench.measure import measure
from bench.options import Options, scratch
from bench.outcome import Bar, Goal, Outcome
from bench.processes import BenchmarkError
from bench.stack import onsale
from bench.targets import ATOMIC_UPDATE, SYNCHRONOUS, PeerSetting, Target, synchronous_peer
from local.servers import PostgresServer

TRIAL_SECONDS = 4
PEER_SETTINGS = (
    PeerSetting(processes=1, pool_size=5, pool_overflow=10, threads=40),
    PeerSetting(processes=1, pool_size=5, pool_overflow=0, threads=5),
    PeerSetting(processes=1, pool_size=2, pool_overflow=0, threads=2),
    PeerSetting(processes=2, pool_size=5, pool_overflow=0, threads=5),
)
"""FastAPI's and SQLAlchemy's defaults first, then what people try next."""

PEERS = {"synchronous": SYNCHRONOUS, "atomic update": ATOMIC_UPDATE}

RATIO_TO_SYNCHRONOUS = 30.0
RATIO_TO_PGBENCH = 3.0
PGBENCH_CLIENTS = 8

_PGBENCH_TABLES = """
CREATE TABLE bench_events (id int PRIMARY KEY, available int CHECK (available >= 0)) WITH (fillfactor = 50);
CREATE TABLE bench_bookings (id uuid PRIMARY KEY, event_id int, user_id text, n int);
CREATE INDEX ON bench_bookings (event_id, user_id);
INSERT INTO bench_events VALUES (1, 100000000);
"""
_PGBENCH_SCRIPT = """\\set user random(1, 1000000000)
BEGIN;
SELECT available FROM bench_events WHERE id = 1 FOR UPDATE;
SELECT coalesce(sum(n), 0) FROM bench_bookings WHERE event_id = 1 AND user_id = 'user:user';
INSERT INTO bench_bookings VALUES (gen_random_uuid(), 1, 'user:user', 1);
UPDATE bench_events SET available = available - 1 WHERE id = 1;
COMMIT;
"""


def run(options: Options, say: Callable[[str], None]) -> Outcome:
    """Find the peers' best settings, then measure all in turn.

    With one round only the synchronous design is measured, at the setting that is usually its best.
    """
    quick = options.rounds == 1
    applications = {"synchronous": SYNCHRONOUS} if quick else PEERS
    settings = PEER_SETTINGS[1:2] if quick else PEER_SETTINGS
    best = {
        name: _best_setting(application, options, say, settings) for name, application in applications.items()
    }
    figures: dict[str, list[float]] = {name: [] for name in (*applications, "pgbench", "Onsale")}
    for number in range(1, options.rounds + 1):
        for name, application in applications.items():
            figures[name].append(_http(partial(_start_peer, best[name], application), options))
        figures["pgbench"].append(_pgbench(options.seconds))
        figures["Onsale"].append(_http(lambda path: onsale(path, 1), options))
        say(
            f"  round {number}: "
            + ", ".join(f"{name} {values[-1]:,.0f}/s" for name, values in figures.items())
        )
    return _outcome(figures, best)


def _outcome(figures: dict[str, list[float]], best: dict[str, PeerSetting]) -> Outcome:
    medians = {name: statistics.median(values) for name, values in figures.items()}
    to_synchronous = statistics.median(
        ours / peer for ours, peer in zip(figures["Onsale"], figures["synchronous"], strict=True)
    )
    to_pgbench = statistics.median(
        ours / peer for ours, peer in zip(figures["Onsale"], figures["pgbench"], strict=True)
    )
    notes = {
        "synchronous": f"FastAPI, SQLAlchemy, `FOR UPDATE`; {best['synchronous']}",
        "atomic update": f"the same with `UPDATE … WHERE available >= n`; {best.get('atomic update')}",
        "pgbench": f"bare SQL, no HTTP, {PGBENCH_CLIENTS} clients",
        "Onsale": "1 API process, 1 worker; accepted and applied",
    }
    return Outcome(
        title="One hot event over HTTP",
        explanation=(
            "Bookings in PostgreSQL per second, from the first request until the line is empty; the load"
            " generator shares the processor. Medians of the rounds, in which all take turns."
        ),
        columns=("", "booked/s", "times synchronous", ""),
        rows=[
            (name, f"{value:,.0f}", f"{value / medians['synchronous']:.1f}", notes[name])
            for name, value in medians.items()
        ],
        goals=[
            Goal(
                asked=f"≥ {RATIO_TO_SYNCHRONOUS:.0f} times the synchronous design",
                reached=f"{to_synchronous:.1f} times",
                met=to_synchronous >= RATIO_TO_SYNCHRONOUS,
            ),
            Goal(
                asked=f"≥ {RATIO_TO_PGBENCH:.0f} times pgbench on the hot row",
                reached=f"{to_pgbench:.1f} times",
                met=to_pgbench >= RATIO_TO_PGBENCH,
            ),
        ],
        figures={
            "per_second": figures,
            "ratio_to_synchronous": to_synchronous,
            "ratio_to_pgbench": to_pgbench,
        },
        plot=[Bar(label=name, value=value, ours=name == "Onsale") for name, value in medians.items()],
        unit="bookings/s",
    )


def _best_setting(
    application: str, options: Options, say: Callable[[str], None], settings: tuple[PeerSetting, ...]
) -> PeerSetting:
    """By short trials, so that a peer is measured at the setting that suits it best here."""
    if len(settings) == 1:
        return settings[0]
    reached = {}
    for setting in settings:
        with scratch() as directory, synchronous_peer(directory, setting, application) as target:
            result = measure(target, seconds=TRIAL_SECONDS, connections=options.connections)
        reached[setting] = result.applied_per_second
        say(f"  trial: {application.split('.')[-1]} {result.applied_per_second:,.0f}/s at {setting}")
    return max(reached, key=lambda setting: reached[setting])


def _start_peer(setting: PeerSetting, application: str, path: Path) -> AbstractContextManager[Target]:
    return synchronous_peer(path, setting, application)


def _http(start: Callable[[Path], AbstractContextManager[Target]], options: Options) -> float:
    with scratch() as directory, start(directory) as target:
        result = measure(target, seconds=options.seconds, connections=options.connections)
    return result.applied_per_second


def _pgbench(seconds: int) -> float:
    """Transactions per second that PostgreSQL does on one hot row."""
    with scratch() as directory, PostgresServer(directory / "postgres") as postgres:
        script = directory / "booking.sql"
        script.write_text(_PGBENCH_SCRIPT)
        with closing(psycopg2.connect(postgres.url)) as connection, connection.cursor() as cursor:
            cursor.execute(_PGBENCH_TABLES)
            connection.commit()
        command = [
            str(pgbench_path()),
            "--no-vacuum",
            f"--client={PGBENCH_CLIENTS}",
            "--jobs=2",
            f"--time={seconds}",
            f"--file={script}",
            postgres.url,
        ]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
    for line in ended.stdout.splitlines():
        if line.startswith("tps = "):
            return float(line.split()[2])
    raise BenchmarkError(f"pgbench failed:\n{ended.stdout}{ended.stderr}")
