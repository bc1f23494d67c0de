"""The verdict, and two services side by side, for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from demo.figures import PERCENTILES
from demo.stampede import Stampede
from demo.verdict import ORDER_KEPT, Finding

COMPLAINTS_SHOWN_MAX = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One service in one stampede, and what was found."""

    name: str
    stampede: Stampede
    findings: Sequence[Finding]

    @property
    def is_true(self) -> bool:
        """Whether every promise was kept."""
        return all(finding.is_kept for finding in self.findings)


def verdict(trial: Trial) -> RenderableType:
    """Each promise with what speaks for or against it, and one line for all."""
    table = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    for finding in trial.findings:
        mark = Text("true", "bold green") if finding.is_kept else Text("NOT TRUE", "bold red")
        table.add_row(mark, finding.promise, Text("\n".join(_lines(finding))))
    return Group(table, _sentence(trial))


def _lines(finding: Finding) -> list[str]:
    if finding.is_kept:
        return [finding.facts]
    shown = list(finding.complaints[:COMPLAINTS_SHOWN_MAX])
    rest = len(finding.complaints) - len(shown)
    return [*shown, f"… and {rest:,} more"] if rest else shown


def _sentence(trial: Trial) -> Text:
    stampede = trial.stampede
    took = f"{len(stampede.journal.commands):,} commands of {stampede.last.buyers:,} buyers"
    took += f" in {stampede.last.seconds:.1f} s"
    if not stampede.is_over:
        took += ", when the time was up"
    if trial.is_true:
        return Text(f"Verdict: every answer is true. {took}.", "bold green")
    return Text(f"Verdict: NOT TRUE, see above. {took}.", "bold red")


def side_by_side(trials: Sequence[Trial]) -> Table:
    """The same figures of each."""
    table = Table(box=box.SIMPLE_HEAD, title="\nThe same stampede, side by side", title_justify="left")
    table.add_column("")
    for trial in trials:
        table.add_column(trial.name, justify="right")
    promises = dict.fromkeys(finding.promise for trial in trials for finding in trial.findings)
    for label, *figures in zip(_LABELS, *(_column(trial) for trial in trials), strict=True):
        table.add_row(label, *figures)
    for promise in promises:
        table.add_row(promise, *(_kept(trial, promise) for trial in trials))
    return table


_LABELS = (
    "everyone answered after",
    *(f"{share:.0%} of the results after" for share in PERCENTILES),
    "commands a second",
    "booked",
    "given back",
    "refused",
    "place in line told",
    "killed in the middle",
)


def _column(trial: Trial) -> list[str]:
    """The figures of one service, in the order of the labels."""
    last = trial.stampede.last
    after = [f"{seconds:.2f} s" for seconds in last.answered_after]
    return [
        _seconds(trial),
        *(after or ["never"] * len(PERCENTILES)),
        f"{last.answered / last.seconds:,.0f}",
        f"{last.booked:,}",
        f"{last.given_back:,}",
        f"{sum(last.refused.values()):,}",
        "yes" if last.placed else "no",
        "a worker" if last.faults else "nothing",
    ]


def _seconds(trial: Trial) -> str:
    seconds = f"{trial.stampede.last.seconds:.1f} s"
    return seconds if trial.stampede.is_over else f"not in {seconds}"


def _kept(trial: Trial, promise: str) -> str:
    for finding in trial.findings:
        if finding.promise == promise:
            return "true" if finding.is_kept else "NOT TRUE"
    return "not promised" if promise == ORDER_KEPT else "no ledger"
