"""Bookings accepted and applied per second over HTTP on one hot event, next to what it replaces."""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import TypeVar

import psycopg2

from bench.machine import pgbench_path
from bench.measure import Result, measure
from bench.options import Options, scratch
from bench.outcome import Bar, Goal, Outcome
from bench.processes import BenchmarkError
from bench.stack import onsale
from bench.targets import ATOMIC_UPDATE, SYNCHRONOUS, USUAL_BEST, PeerSetting, synchronous_peer
from local.servers import PostgresServer

TRIAL_SECONDS = 4
TRIALS = 2
PEER_SETTINGS = (
    PeerSetting(processes=1, pool_size=5, pool_overflow=10, threads=40),
    PeerSetting(processes=1, pool_size=5, pool_overflow=0, threads=5),
    PeerSetting(processes=1, pool_size=2, pool_overflow=0, threads=2),
    PeerSetting(processes=2, pool_size=5, pool_overflow=0, threads=5),
    PeerSetting(processes=2, pool_size=3, pool_overflow=0, threads=3),
    USUAL_BEST,
    PeerSetting(processes=2, pool_size=1, pool_overflow=0, threads=1),
)
"""FastAPI's and SQLAlchemy's defaults first, then fewer bookings at once, by one process and by two."""

Setting = TypeVar("Setting")

PEERS = {"synchronous": SYNCHRONOUS, "atomic update": ATOMIC_UPDATE}

RATIO_TO_SYNCHRONOUS = 30.0
RATIO_TO_PGBENCH = 3.0
PGBENCH_CLIENTS = (1, 2, 4, 8)
PGBENCH_USUAL_BEST = 2

_PGBENCH_TABLES = """
CREATE TABLE bench_events (id int PRIMARY KEY, available int CHECK (available >= 0)) WITH (fillfactor = 50);
CREATE TABLE bench_bookings (id uuid PRIMARY KEY, event_id int, user_id text, n int);
CREATE INDEX ON bench_bookings (event_id, user_id);
INSERT INTO bench_events VALUES (1, 100000000);
"""
_PGBENCH_SCRIPT = """\\set user random(1, 1000000000)
BEGIN;
SELECT available FROM bench_events WHERE id = 1 FOR UPDATE;
SELECT coalesce(sum(n), 0) FROM bench_bookings WHERE event_id = 1 AND user_id = 'user' || :user::text;
INSERT INTO bench_bookings VALUES (gen_random_uuid(), 1, 'user' || :user::text, 1);
UPDATE bench_events SET available = available - 1 WHERE id = 1;
COMMIT;
"""


def run(options: Options, say: Callable[[str], None]) -> Outcome:
    """Find the settings that suit the others best, then measure all in turn.

    With one round only the synchronous design and pgbench are measured, at what is usually their best.
    """
    quick = options.rounds == 1
    applications = {"synchronous": SYNCHRONOUS} if quick else PEERS
    settings = (USUAL_BEST,) if quick else PEER_SETTINGS
    trials = {
        name: _tried(settings, partial(_peer_trial, application, options), name, say)
        for name, application in applications.items()
    }
    clients = _tried(
        (PGBENCH_USUAL_BEST,) if quick else PGBENCH_CLIENTS,
        lambda count: _pgbench(count, TRIAL_SECONDS),
        "pgbench, clients:",
        say,
    )
    best = {name: _best(tried) for name, tried in trials.items()}
    best_clients = _best(clients)
    figures: dict[str, list[float]] = {name: [] for name in (*applications, "pgbench", "Onsale")}
    used: list[Mapping[str, float]] = []
    for number in range(1, options.rounds + 1):
        for name, application in applications.items():
            figures[name].append(_peer(application, best[name], options.seconds, options).applied_per_second)
        figures["pgbench"].append(_pgbench(best_clients, options.seconds))
        with scratch() as directory, onsale(directory, 1) as target:
            ours = measure(target, seconds=options.seconds, connections=options.connections)
        figures["Onsale"].append(ours.applied_per_second)
        used.append({name: seconds * 1e6 / ours.applied for name, seconds in ours.used_seconds.items()})
        say(
            f"  round {number}: "
            + ", ".join(f"{name} {values[-1]:,.0f}/s" for name, values in figures.items())
        )
    tried = {name: {str(each): values for each, values in found.items()} for name, found in trials.items()}
    tried["pgbench"] = {f"{count} clients": values for count, values in clients.items()}
    chosen = {name: str(setting) for name, setting in best.items()} | {"pgbench": f"{best_clients} clients"}
    return _outcome(figures, tried, chosen, used)


def _outcome(
    figures: dict[str, list[float]],
    trials: Mapping[str, Mapping[str, Sequence[float]]],
    best: Mapping[str, str],
    used: Sequence[Mapping[str, float]],
) -> Outcome:
    medians = {name: statistics.median(values) for name, values in figures.items()}
    to_synchronous, to_pgbench = (
        statistics.median(ours / peer for ours, peer in zip(figures["Onsale"], figures[name], strict=True))
        for name in ("synchronous", "pgbench")
    )
    microseconds = {name: statistics.median(each[name] for each in used) for name in used[0]}
    parts = ", ".join(f"{name} {value:.0f} µs" for name, value in microseconds.items())
    notes = {
        "synchronous": f"FastAPI, SQLAlchemy, `FOR UPDATE`; {best['synchronous']}",
        "atomic update": f"the same with `UPDATE … WHERE available >= n`; {best.get('atomic update')}",
        "pgbench": f"bare SQL, prepared, no HTTP; {best['pgbench']}",
        "Onsale": "1 API process, 1 worker; accepted and applied",
    }
    return Outcome(
        title="One hot event over HTTP",
        explanation=(
            "Bookings in PostgreSQL per second, from the first request until the line is empty; the load"
            " generator shares the processor. Medians of the rounds, in which all take turns, the others at"
            " the setting that was best in trials of each. Processor time of a booking with us: "
            f"{parts}."
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
            "trials_per_second": trials,
            "best": best,
            "processor_microseconds": microseconds,
        },
        plot=[Bar(label=name, value=value, ours=name == "Onsale") for name, value in medians.items()],
        unit="bookings/s",
    )


def _tried(
    settings: Sequence[Setting], measured: Callable[[Setting], float], name: str, say: Callable[[str], None]
) -> dict[Setting, list[float]]:
    """What each setting reached in short trials, in turn; where there is no choice nothing is tried."""
    reached: dict[Setting, list[float]] = {setting: [] for setting in settings}
    for _ in range(TRIALS if len(settings) > 1 else 0):
        for setting, values in reached.items():
            values.append(measured(setting))
            say(f"  trial: {name} {setting}: {values[-1]:,.0f}/s")
    return reached


def _best(tried: Mapping[Setting, Sequence[float]]) -> Setting:
    return max(tried, key=lambda setting: max(tried[setting], default=0.0))


def _peer_trial(application: str, options: Options, setting: PeerSetting) -> float:
    return _peer(application, setting, TRIAL_SECONDS, options).applied_per_second


def _peer(application: str, setting: PeerSetting, seconds: int, options: Options) -> Result:
    with scratch() as directory, synchronous_peer(directory, setting, application) as target:
        return measure(target, seconds=seconds, connections=options.connections)


def _pgbench(clients: int, seconds: int) -> float:
    """Transactions per second that PostgreSQL does on one hot row, its statements prepared."""
    with scratch() as directory, PostgresServer(directory / "postgres") as postgres:
        script = directory / "booking.sql"
        script.write_text(_PGBENCH_SCRIPT)
        with closing(psycopg2.connect(postgres.url)) as connection, connection.cursor() as cursor:
            cursor.execute(_PGBENCH_TABLES)
            connection.commit()
        command = [
            str(pgbench_path()),
            "--no-vacuum",
            "--protocol=prepared",
            f"--client={clients}",
            f"--jobs={min(clients, 2)}",
            f"--time={seconds}",
            f"--file={script}",
            postgres.url,
        ]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
    for line in ended.stdout.splitlines():
        if line.startswith("tps = "):
            return float(line.split()[2])
    raise BenchmarkError(f"pgbench failed:\n{ended.stdout}{ended.stderr}")
