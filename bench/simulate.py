"""`python -m bench.simulate`: the simulation next to what was measured, and on larger machines.

`--write` puts its tables into docs/scaling.md.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from bench import simulation
from bench.clients import percentile
from bench.cost_model import DOCS, Costs, Measured, costs_of, read_measured
from bench.processes import BenchmarkError

PAGE = DOCS / "scaling.md"
BEGIN, END = "<!-- simulated:begin -->", "<!-- simulated:end -->"

CORES_MEASURED = 2
CORES_OF_A_CELL = 32
EVENTS_OF_A_CELL = 16
EVENTS_WITH_WORKERS = 4
"""Many events cost what they did with so many workers, the most that were measured."""

RATES = (10_000, 100_000, 1_000_000)
BUSY = 0.6
"""How busy a part should be at most, so that a burst and the loss of a neighbour find room."""

FINISHED_BYTES = 1_600
"""Of Redis's memory for a finished job, as the design measured it."""

RESULT_SECONDS = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A figure of docs/benchmarks.json, what the simulation says, and how far apart they may be."""

    name: str
    unit: str
    measured: float
    simulated: float
    apart_max: float

    @property
    def apart(self) -> float:
        """The share of the measured figure by which the simulation is above (or below) it."""
        return self.simulated / self.measured - 1


def compare(measured: Measured) -> list[Comparison]:
    """Everything that was measured and that the simulation can say something about, on two cores."""
    figures = {name: each["figures"] for name, each in measured.benchmarks.items()}
    accepts, cores = costs_of(measured), CORES_MEASURED
    steady = simulation.steady_seconds(costs_of(measured, "steady"), cores=cores)
    return [
        Comparison(
            name="accepts of one API process (sets the scale)",
            unit="/s",
            measured=measured.accepts_per_second(),
            simulated=simulation.accepted_per_second(accepts, cores=cores),
            apart_max=0.05,
        ),
        Comparison(
            name="one hot event over HTTP",
            unit="/s",
            measured=statistics.median(figures["hot-event"]["per_second"]["Onsale"]),
            simulated=simulation.booked_per_second(accepts, cores=cores),
            apart_max=0.2,
        ),
        Comparison(
            name="one worker drains one line",
            unit="/s",
            measured=statistics.median(figures["drain"]["drained_per_second"]),
            simulated=simulation.drained_per_second(accepts, cores=cores),
            apart_max=0.25,
        ),
        *(_compare_scaling(measured, workers) for workers in (1, 2, 4)),
        Comparison(
            name="a stampede of 10,000: all answered",
            unit=" s",
            measured=statistics.median(figures["stampede"]["all_answered_seconds"]),
            simulated=simulation.stampede_seconds(costs_of(measured, "stampede"), cores=cores),
            apart_max=0.4,
        ),
        Comparison(
            name="steady 1,000/s: p50",
            unit=" ms",
            measured=figures["steady"]["p50_ms"],
            simulated=percentile(steady, 0.5) * 1000,
            # Waiting grows faster than a processor slows down, and that changes from one measure to the next.
            apart_max=0.6,
        ),
    ]


def _compare_scaling(measured: Measured, workers: int) -> Comparison:
    figures = measured.benchmarks["scaling"]["figures"]
    return Comparison(
        name=f"{workers} worker{'s drain' if workers > 1 else ' drains'} eight lines",
        unit="/s",
        measured=statistics.median(figures["per_second"][str(workers)]),
        simulated=simulation.drained_per_second(
            costs_of(measured, workers=workers), cores=CORES_MEASURED, workers=workers, lines=8
        ),
        apart_max=0.25,
    )


def cell_per_second(costs: Costs, *, workers: int, lines: int) -> float:
    """Bookings per second that a machine with plenty of cores accepts and applies, one Redis for all."""
    both = replace(costs, valkey_complete=costs.valkey_complete + costs.valkey_accept)
    return simulation.drained_per_second(both, cores=CORES_OF_A_CELL, workers=workers, lines=lines)


def render(measured: Measured, comparisons: Sequence[Comparison]) -> str:
    """The simulated part of the page, with what `compare` gives."""
    costs, waiting = costs_of(measured), costs_of(measured, "stampede")
    hot = cell_per_second(costs, workers=1, lines=1)
    by_workers = _by_workers(costs_of(measured, workers=EVENTS_WITH_WORKERS))
    cell = max(by_workers.values())
    return "\n\n".join(
        [
            "### What a command costs",
            _costs_table(measured, costs, waiting),
            "### The simulation next to the measurements",
            _comparison_table(comparisons),
            "### One cell on a larger machine",
            _cell_table(hot, by_workers),
            "### What it takes",
            _rates_table(measured, costs, waiting, cell, hot),
        ]
    )


def _by_workers(costs: Costs) -> dict[int, float]:
    return {
        workers: cell_per_second(costs, workers=workers, lines=EVENTS_OF_A_CELL) for workers in (1, 2, 4, 8)
    }


def _costs_table(measured: Measured, costs: Costs, waiting: Costs) -> str:
    stored = measured.stored
    rows = [
        ("API, 202 at once", _us(costs.api), "measured: one process at its limit"),
        ("API, client waits for the result", _us(waiting.api), "measured, scaled; a connection each"),
        ("Redis, accept", _us(costs.valkey_accept), "measured, scaled"),
        ("Redis, claim to completion", _us(costs.valkey_complete), "measured (drain)"),
        ("worker, in full batches", _us(costs.worker), "measured (drain)"),
        ("worker, for each batch", _us(costs.worker_batch), "measured, scaled"),
        ("PostgreSQL, in full batches", _us(costs.postgres), "measured (drain)"),
        ("PostgreSQL, for each batch", _us(costs.postgres_batch), "measured, scaled"),
        ("fsync, for each call of Redis and each commit", _us(costs.fsync), "measured (median)"),
        ("PostgreSQL's WAL", f"{stored['wal']:,} B", "measured"),
        ("PostgreSQL's tables and indexes, for ever", f"{stored['database']:,} B", "measured"),
        ("Redis's append-only file", f"{stored['append_only_file']:,} B", "measured, before it is rewritten"),
    ]
    return _table(("", "a command", ""), rows)


def _comparison_table(comparisons: Sequence[Comparison]) -> str:
    rows = [
        (
            each.name,
            _figure(each.measured) + each.unit,
            _figure(each.simulated) + each.unit,
            f"{each.apart:+.0%}",
            f"{each.apart_max:.0%}",
        )
        for each in comparisons
    ]
    return _table(("", "measured", "simulated", "apart", "allowed"), rows)


def _cell_table(hot: float, by_workers: Mapping[int, float]) -> str:
    rows = [("1", "1", f"{hot:,.0f}")]
    rows += [(str(EVENTS_OF_A_CELL), str(workers), f"{rate:,.0f}") for workers, rate in by_workers.items()]
    return _table(("busy events", "workers", "bookings/s, accepted and applied"), rows)


def _rates_table(measured: Measured, costs: Costs, waiting: Costs, cell: float, hot: float) -> str:
    parts: dict[str, Callable[[int], str]] = {
        "cells (Redis + PostgreSQL + workers)": lambda rate: f"{math.ceil(rate / (cell * BUSY)):,}",
        "API processes, 202 at once": lambda rate: f"{math.ceil(rate * costs.api / BUSY):,}",
        "API processes, all clients wait": lambda rate: f"{math.ceil(rate * waiting.api / BUSY):,}",
        "busy workers": lambda rate: f"{math.ceil(rate / (hot * BUSY)):,}",
        "cores of PostgreSQL": lambda rate: f"{math.ceil(rate * costs.postgres / BUSY):,}",
        "WAL": lambda rate: f"{rate * measured.stored['wal'] / 1e6:,.0f} MB/s",
        "append-only files": lambda rate: f"{rate * measured.stored['append_only_file'] / 1e6:,.0f} MB/s",
        "tables after an hour": lambda rate: f"{rate * measured.stored['database'] * 3600 / 1e9:,.0f} GB",
        "Redis's memory for results": lambda rate: f"{rate * FINISHED_BYTES * RESULT_SECONDS / 1e9:,.1f} GB",
    }
    rows = [(name, *(amount(rate) for rate in RATES)) for name, amount in parts.items()]
    return _table(("bookings per second, over many events", *(f"{rate:,}" for rate in RATES)), rows)


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f} µs"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value < 5 else f"{value:.1f}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(columns)} |", f"| {' | '.join('---' for _ in columns)} |"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def write() -> None:
    """Put the tables between the page's marks.

    Raises:
        BenchmarkError: the page does not have the two marks, in that order.
    """
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchmarkError(f"{PAGE} needs the lines {BEGIN} and {END}")
    PAGE.write_text(f"{before}{BEGIN}\n{_simulated()}\n{END}{after}")


def _simulated() -> str:
    measured = read_measured()
    return render(measured, compare(measured))


def main() -> int:
    """Print the tables, or write them into the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.simulate", description=__doc__)
    parser.add_argument("--write", action="store_true", help="into docs/scaling.md")
    if parser.parse_args().write:
        write()
    else:
        print(_simulated())
    return 0


if __name__ == "__main__":
    sys.exit(main())
