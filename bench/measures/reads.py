"""Reads while a stampede is on: never slower than submits, never asking PostgreSQL."""

from __future__ import annotations

import re
import statistics
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import psutil

from bench.load import Load, book_for
from bench.measure import await_drained, check_tally, tally_of
from bench.options import Options, scratch
from bench.outcome import Goal, Outcome
from bench.processes import BenchmarkError
from bench.stack import Stack, stack

READERS = 16
PATHS = {"GET /events/{id}": "/events/{event_id}", "GET /jobs/{id}": "/jobs/{job_id}"}
_PER_SECOND = re.compile(r"^Requests/sec:\s+([0-9.]+)", re.MULTILINE)
_P99 = re.compile(r"^\s+99%\s+([0-9.]+)(us|ms|s)$", re.MULTILINE)
_MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1_000.0}


def run(options: Options, say: Callable[[str], None]) -> Outcome:
    """Book and read at the same time, in turn, and look whether the API has asked PostgreSQL."""
    figures: dict[str, dict[str, list[float]]] = {}
    with scratch() as directory, stack(directory) as onsale:
        onsale.start_api()
        onsale.start_worker()
        for _ in range(options.rounds):
            for name in PATHS:
                read, load = _together(onsale, name, options)
                # Each connection of either kind has as many requests on its way as the other.
                found = {
                    "reads_per_second": read.per_second,
                    "read_ms": READERS / read.per_second * 1000,
                    "read_p99_ms": read.p99_ms,
                    "submits_per_second": load.accepted / load.seconds,
                    "submit_ms": options.connections / (load.accepted / load.seconds) * 1000,
                    "connections_to_postgresql": _connections_to_postgresql(onsale),
                }
                for figure, value in found.items():
                    figures.setdefault(name, {}).setdefault(figure, []).append(value)
                say(
                    f"  {name} {found['reads_per_second']:,.0f}/s at {found['read_ms']:.1f} ms beside submits"
                    f" {found['submits_per_second']:,.0f}/s at {found['submit_ms']:.1f} ms"
                )
    medians = {
        name: {figure: statistics.median(values) for figure, values in found.items()}
        for name, found in figures.items()
    }
    slower = any(each["read_ms"] > each["submit_ms"] for each in medians.values())
    asked = sum(sum(each["connections_to_postgresql"]) for each in figures.values())
    return Outcome(
        title="Reads during a stampede",
        explanation=(
            f"{READERS} connections read while {options.connections} book, each as fast as it is answered;"
            " medians of the rounds, of the mean of each. The API opens no connection to PostgreSQL before"
            " it has something to ask; the last column counts them."
        ),
        columns=(
            "",
            "reads",
            "a read takes",
            "p99",
            "submits",
            "a submit takes",
            "connections to PostgreSQL",
        ),
        rows=[
            (
                name,
                f"{each['reads_per_second']:,.0f}/s",
                f"{each['read_ms']:.1f} ms",
                f"{each['read_p99_ms']:.1f} ms",
                f"{each['submits_per_second']:,.0f}/s",
                f"{each['submit_ms']:.1f} ms",
                f"{sum(figures[name]['connections_to_postgresql']):.0f}",
            )
            for name, each in medians.items()
        ],
        goals=[
            Goal(
                asked="never slower than submits, never touching PostgreSQL while hot",
                reached=f"{'slower' if slower else 'not slower'}, {asked:.0f} connections to it",
                met=not slower and asked == 0,
            )
        ],
        figures=dict(figures),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    per_second: float
    p99_ms: float


def _together(onsale: Stack, name: str, options: Options) -> tuple[_Read, Load]:
    """Reads and submits at the same time, at an event of their own."""
    event = onsale.make_event()
    path = f"/events/{event.id}"
    submitted = {"user_id": "ann", "ticket_count": 1}
    with httpx.Client(base_url=onsale.base_url) as client:
        job = client.post(f"{path}/bookings", json=submitted).raise_for_status().json()
        command = ["wrk", "--threads=1", f"--connections={READERS}", f"--duration={options.seconds}s"]
        command += ["--latency", onsale.base_url + PATHS[name].format(event_id=event.id, job_id=job["id"])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reading:
            load = book_for(
                options.seconds, connections=options.connections, base_url=onsale.base_url, event_id=event.id
            )
            output, _ = reading.communicate(timeout=options.seconds + 20)
        accepted = load.accepted + 1
        await_drained(client, onsale.target(), event.id, accepted)
    check_tally(tally_of(onsale.target(), event.id), accepted, unread=options.connections)
    return _read_of(output), load


def _read_of(output: str) -> _Read:
    """What wrk has printed.

    Raises:
        BenchmarkError: it failed, or not every answer was one of success.
    """
    per_second, p99 = _PER_SECOND.search(output), _P99.search(output)
    if per_second is None or p99 is None or "Non-2xx" in output or "Socket errors" in output:
        raise BenchmarkError(f"wrk failed, or was refused:\n{output}")
    return _Read(per_second=float(per_second[1]), p99_ms=float(p99[1]) * _MILLISECONDS[p99[2]])


def _connections_to_postgresql(onsale: Stack) -> int:
    """Connections of the API process to PostgreSQL; it opens none before it has something to ask."""
    process = psutil.Process(onsale.processes["api"].pid)
    return sum(
        1
        for connection in process.net_connections("tcp")
        if connection.raddr and connection.raddr.port == onsale.postgres.port
    )
