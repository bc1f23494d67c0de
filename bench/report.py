"""The figures as JSON, for machines, and as tables and plots in docs/benchmarks.md, for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

from bench.machine import Machine
from bench.outcome import Outcome
from bench.plot import bar_plot
from bench.processes import REPOSITORY, BenchmarkError

FOLDER = REPOSITORY / "docs"
JSON_FILE = FOLDER / "benchmarks.json"
PAGE = FOLDER / "benchmarks.md"
PLOTS = FOLDER / "benchmarks"
BEGIN = "<!-- measured:begin -->"
END = "<!-- measured:end -->"


def write(outcomes: Mapping[str, Outcome], machine: Machine, measured_at: str) -> None:
    """Write docs/benchmarks.json, the plots, and the page between its two marks.

    Raises:
        BenchmarkError: the page does not have the two marks, in that order.
    """
    document = {
        "measured_at": measured_at,
        "machine": asdict(machine),
        "measures": {
            name: {"goals": [asdict(goal) for goal in outcome.goals], "figures": outcome.figures}
            for name, outcome in outcomes.items()
        },
    }
    JSON_FILE.write_text(json.dumps(document, indent=2, default=str) + "\n")
    PLOTS.mkdir(exist_ok=True)
    for name, outcome in outcomes.items():
        if outcome.plot:
            (PLOTS / f"{name}.svg").write_text(bar_plot(outcome.title, outcome.plot, outcome.unit))
    page = PAGE.read_text()
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchmarkError(f"{PAGE} needs the lines {BEGIN} and {END}")
    PAGE.write_text(f"{before}{BEGIN}\n{render(outcomes, machine, measured_at)}\n{END}{after}")


def render(outcomes: Mapping[str, Outcome], machine: Machine, measured_at: str) -> str:
    """The measured part of the page."""
    parts = [goals_table(outcomes), _conditions(machine, measured_at)]
    for name, outcome in outcomes.items():
        parts += [f"### {outcome.title}", outcome.explanation]
        if outcome.plot:
            parts.append(f"![{outcome.title}](benchmarks/{name}.svg)")
        parts.append(_table(outcome.columns, outcome.rows))
    return "\n\n".join(parts)


def goals_table(outcomes: Mapping[str, Outcome]) -> str:
    """Every goal, what was reached, and whether that is enough."""
    rows = [
        (outcome.title, goal.asked, goal.reached, "reached" if goal.met else "**missed**")
        for outcome in outcomes.values()
        for goal in outcome.goals
    ]
    return _table(("measure", "goal", "measured", ""), rows)


def _table(columns: object, rows: object) -> str:
    assert isinstance(columns, tuple)
    assert isinstance(rows, list)
    lines = [f"| {' | '.join(columns)} |", f"| {' | '.join('---' for _ in columns)} |"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)


def _conditions(machine: Machine, measured_at: str) -> str:
    return (
        f"Measured {measured_at} on {machine.cores} cores of {machine.processor}, {machine.memory_gib} GiB,"
        f" {machine.kernel}; load average before the run {machine.load_average_before}. Disk: write and"
        " fdatasync"
        f" of 8 KiB in {machine.fsync_us_p50:,.0f} µs (median), {machine.fsync_us_p99:,.0f} µs (99th"
        " percentile)."
        f" Python {machine.python}, PostgreSQL {machine.postgresql}, Valkey {machine.valkey}, {machine.wrk}."
    )
