"""The figures as JSON, for machines, and as tables and plots in docs/benchmarks.md, for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
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
        "measures": {name: _figures(outcome) for name, outcome in outcomes.items()},
    }
    JSON_FILE.write_text(json.dumps(document, indent=2, default=str) + "\n")
    for name, outcome in outcomes.items():
        _draw(name, outcome)
    page = PAGE.read_text()
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchmarkError(f"{PAGE} needs the lines {BEGIN} and {END}")
    PAGE.write_text(f"{before}{BEGIN}\n{render(outcomes, machine, measured_at)}\n{END}{after}")


def is_written(names: Iterable[str]) -> bool:
    """Whether the page has these measures from an earlier run."""
    return JSON_FILE.exists() and set(names) <= set(json.loads(JSON_FILE.read_text()).get("measures", {}))


def update(outcomes: Mapping[str, Outcome], measured_at: str) -> None:
    """Put these measures in the place of their older ones, and leave the rest of the last run alone.

    Raises:
        BenchmarkError: there is no older run of a measure.
    """
    document = json.loads(JSON_FILE.read_text())
    page = PAGE.read_text()
    for name, outcome in outcomes.items():
        heading = f"### {outcome.title}\n"
        if name not in document["measures"] or heading not in page:
            raise BenchmarkError(f"{PAGE} has no {name} yet; run all measures first")
        document["measures"][name] = _figures(outcome) | {"measured_at": measured_at}
        before, _, rest = page.partition(heading)
        following = rest.find("\n### ") if "\n### " in rest else rest.index(END) - 1
        section = _section(name, outcome, f"Measured {measured_at}. ")
        page = _with_goals(before, outcome) + section + "\n" + rest[following:]
        _draw(name, outcome)
    JSON_FILE.write_text(json.dumps(document, indent=2, default=str) + "\n")
    PAGE.write_text(page)


def _with_goals(text: str, outcome: Outcome) -> str:
    """The goals of this outcome in the place of its older ones."""
    lines, written = [], False
    for line in text.split("\n"):
        if not line.startswith(f"| {outcome.title} |"):
            lines.append(line)
        elif not written:
            lines += goals_table({"": outcome}).split("\n")[2:]
            written = True
    return "\n".join(lines)


def render(outcomes: Mapping[str, Outcome], machine: Machine, measured_at: str) -> str:
    """The measured part of the page."""
    parts = [goals_table(outcomes), _conditions(machine, measured_at)]
    parts += [_section(name, outcome) for name, outcome in outcomes.items()]
    return "\n\n".join(parts)


def _section(name: str, outcome: Outcome, remark: str = "") -> str:
    parts = [f"### {outcome.title}", remark + outcome.explanation]
    if outcome.plot:
        parts.append(f"![{outcome.title}](benchmarks/{name}.svg)")
    parts.append(_table(outcome.columns, outcome.rows))
    return "\n\n".join(parts)


def _draw(name: str, outcome: Outcome) -> None:
    PLOTS.mkdir(exist_ok=True)
    if outcome.plot:
        (PLOTS / f"{name}.svg").write_text(bar_plot(outcome.title, outcome.plot, outcome.unit))


def _figures(outcome: Outcome) -> dict[str, object]:
    return {"goals": [asdict(goal) for goal in outcome.goals], "figures": outcome.figures}


def goals_table(outcomes: Mapping[str, Outcome]) -> str:
    """Every goal, what was reached, and whether that is enough."""
    rows = [
        (outcome.title, goal.asked, goal.reached, "reached" if goal.met else "**missed**")
        for outcome in outcomes.values()
        for goal in outcome.goals
    ]
    return _table(("measure", "goal", "measured", ""), rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(columns)} |", f"| {' | '.join('---' for _ in columns)} |"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)


def _conditions(machine: Machine, measured_at: str) -> str:
    return (
        f"Measured {measured_at} on {machine.cores} cores of {machine.processor}, {machine.memory_gib} GiB,"
        f" {machine.kernel}; load average before the run {machine.load_average_before}. Disk: write and"
        " fdatasync"
        f" of 8 KiB in {machine.fsync_us_p50:,.0f} µs (median), {machine.fsync_us_p99:,.0f} µs (99th"
        " percentile). Processor, before the run: the same work takes"
        f" {machine.work_p99:.1f} times its median at the 99th percentile, {machine.work_worst:.1f} times at"
        " worst."
        f" Python {machine.python}, PostgreSQL {machine.postgresql}, Valkey {machine.valkey}, {machine.wrk}."
    )
