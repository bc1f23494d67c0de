"""Reads while a stampede is on: never slower than submits, never asking PostgreSQL."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import httpx
import psutil

from bench.load import book_for
from bench.options import Options, scratch
from bench.outcome import Goal, Outcome
from bench.processes import BenchmarkError
from bench.stack import Stack, stack

READERS = 16


def run(options: Options, say: Callable[[str], None]) -> Outcome:
    """Book and read at the same time; then book alone, and compare what PostgreSQL was asked."""
    with scratch() as directory, stack(directory) as onsale:
        onsale.start_api()
        onsale.start_worker()
        event = onsale.make_event()
        job = httpx.post(
            f"{onsale.base_url}/events/{event.id}/bookings", json={"user_id": "ann", "ticket_count": 1}
        ).json()
        paths = {"GET /events/{id}": f"/events/{event.id}", "GET /jobs/{id}": f"/jobs/{job['id']}"}
        rows, figures = [], {}
        for name, path in paths.items():
            reads, submits = _together(onsale, event.id, path, options)
            asked = _connections_to_postgresql(onsale)
            # Each connection of either kind has as many requests on its way as the other.
            read_ms, submit_ms = READERS / reads * 1000, options.connections / submits * 1000
            figures[name] = {
                "reads_per_second": reads,
                "submits_per_second": submits,
                "read_ms": read_ms,
                "submit_ms": submit_ms,
                "connections_to_postgresql": asked,
            }
            read = (f"{reads:,.0f}/s", f"{read_ms:.1f} ms")
            submitted = (f"{submits:,.0f}/s", f"{submit_ms:.1f} ms")
            rows.append((name, *read, *submitted, str(asked)))
            say(f"  {name} {' at '.join(read)} beside submits {' at '.join(submitted)}")
    slower = any(each["read_ms"] > each["submit_ms"] for each in figures.values())
    asked_at_all = sum(each["connections_to_postgresql"] for each in figures.values())
    return Outcome(
        title="Reads during a stampede",
        explanation=(
            f"{READERS} connections read while {options.connections} book. The times are means. The API"
            " opens no"
            " connection to PostgreSQL before it has something to ask; the last column counts them."
        ),
        columns=("", "reads", "a read takes", "submits", "a submit takes", "connections to PostgreSQL"),
        rows=rows,
        goals=[
            Goal(
                asked="never slower than submits, never touching PostgreSQL while hot",
                reached=f"{'slower' if slower else 'not slower'}, {asked_at_all:.0f} connections to it",
                met=not slower and asked_at_all == 0,
            )
        ],
        figures=dict(figures),
    )


def _together(onsale: Stack, event_id: str, path: str, options: Options) -> tuple[float, float]:
    """Reads and submits per second, at the same time."""
    command = ["wrk", "--threads=1", f"--connections={READERS}", f"--duration={options.seconds}s"]
    command.append(onsale.base_url + path)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reading:
        load = book_for(
            options.seconds, connections=options.connections, base_url=onsale.base_url, event_id=event_id
        )
        output, _ = reading.communicate(timeout=options.seconds + 20)
    for line in output.splitlines():
        if line.startswith("Requests/sec:"):
            return float(line.split()[1]), load.accepted / load.seconds
    raise BenchmarkError(f"wrk failed:\n{output}")


def _connections_to_postgresql(onsale: Stack) -> int:
    """Connections of the API process to PostgreSQL; it opens none before it has something to ask."""
    process = psutil.Process(onsale.processes["api"].pid)
    return sum(
        1
        for connection in process.net_connections("tcp")
        if connection.raddr and connection.raddr.port == onsale.postgres.port
    )
