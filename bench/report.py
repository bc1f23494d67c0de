"""The record in docs/: as JSON for machines, and as tables and plots in benchmarks.md for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.machine import Machine
from bench.outcome import Outcome
from bench.plot import bar_plot
from bench.processes import REPOSITORY, BenchmarkError
from bench.record import Occasion, Record, as_json, from_json

FOLDER = REPOSITORY / "docs"
JSON_FILE = FOLDER / "benchmarks.json"
PAGE = FOLDER / "benchmarks.md"
PLOTS = FOLDER / "benchmarks"
BEGIN = "<!-- measured:begin -->"
END = "<!-- measured:end -->"


def read() -> Record | None:
    """What earlier runs have left; None before the first."""
    return from_json(JSON_FILE.read_text()) if JSON_FILE.exists() else None


def write(record: Record) -> None:
    """Write docs/benchmarks.json, the plots, and the page between its two marks.

    Raises:
        BenchmarkError: the page does not have the two marks, in that order.
    """
    # First, so that a page that was spoilt by hand costs nobody the figures.
    JSON_FILE.write_text(as_json(record))
    PLOTS.mkdir(exist_ok=True)
    for name, entry in record.entries.items():
        if entry.outcome.plot:
            (PLOTS / f"{name}.svg").write_text(
                bar_plot(entry.outcome.title, entry.outcome.plot, entry.outcome.unit)
            )
        for picture, svg in entry.outcome.pictures.items():
            if svg:
                (PLOTS / f"{picture}.svg").write_text(svg)
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchmarkError(f"{PAGE} needs the lines {BEGIN} and {END}")
    PAGE.write_text(f"{before}{BEGIN}\n{render(record)}\n{END}{after}")


def render(record: Record) -> str:
    """The measured part of the page."""
    parts = [goals_table(entry.outcome for entry in record.entries.values()), _conditions(record.heading)]
    parts += [
        _section(name, entry.outcome, remark(entry.occasion, record.heading))
        for name, entry in record.entries.items()
    ]
    return "\n\n".join(parts)


def goals_table(outcomes: Iterable[Outcome]) -> str:
    """Every goal, what was reached, and whether that is enough."""
    rows = [
        (outcome.title, goal.asked, goal.reached, "reached" if goal.met else "**missed**")
        for outcome in outcomes
        for goal in outcome.goals
    ]
    return _table(("measure", "goal", "measured", ""), rows)


def remark(occasion: Occasion, heading: Occasion) -> str:
    """How the occasion of an entry differs from the page's heading; empty if it is the same."""
    if occasion == heading:
        return ""
    return f"Measured {_moment(occasion)}, not in the run above, {_where(occasion, heading)}. "


def _moment(occasion: Occasion) -> str:
    return occasion.measured_at + (f" at commit {occasion.commit}" if occasion.commit else "")


def _where(occasion: Occasion, heading: Occasion) -> str:
    if occasion.machine is None:
        return "on a machine that was not written down"
    if occasion.machine == heading.machine:
        return "on the same machine"
    if heading.machine is None or occasion.machine.lasting() != heading.machine.lasting():
        return f"on another machine: {_facts(occasion.machine)}"
    # Two machines that are hired may have the same facts, and differ in what they do.
    return f"on a machine with the same facts. {_state(occasion.machine)}"


def _conditions(occasion: Occasion) -> str:
    if occasion.machine is None:
        return f"Measured {_moment(occasion)} on a machine that was not written down."
    return f"Measured {_moment(occasion)} on {_facts(occasion.machine)}."


def _facts(machine: Machine) -> str:
    return (
        f"{machine.cores} cores of {machine.processor}, {machine.memory_gib} GiB, {machine.kernel}."
        f" {_state(machine)}. Python {machine.python}, PostgreSQL {machine.postgresql},"
        f" Valkey {machine.valkey}, {machine.wrk}"
    )


def _state(machine: Machine) -> str:
    """What may differ from one run to the next on the same machine."""
    state = (
        f"Load average before the run {machine.load_average_before}. Disk: write and fdatasync of 8 KiB in"
        f" {machine.fsync_us_p50:,.0f} µs (median), {machine.fsync_us_p99:,.0f} µs (99th percentile)"
    )
    if machine.work_p99 is None or machine.work_worst is None:
        return state
    return state + (
        f". Processor, before the run: the same work takes {machine.work_p99:.1f} times its median at the"
        f" 99th percentile, {machine.work_worst:.1f} times at worst"
    )


def _section(name: str, outcome: Outcome, said_first: str) -> str:
    parts = [f"### {outcome.title}", said_first + outcome.explanation]
    if outcome.plot:
        parts.append(f"![{outcome.title}](benchmarks/{name}.svg)")
    parts += [f"![{outcome.title}: {picture}](benchmarks/{picture}.svg)" for picture in outcome.pictures]
    parts.append(_table(outcome.columns, outcome.rows))
    return "\n\n".join(parts)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(columns)} |", f"| {' | '.join('---' for _ in columns)} |"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)
