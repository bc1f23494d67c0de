"""The verdict, and two services side by side, for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    took += f" in {stampede.seconds:.1f} s"
    if not stampede.is_over:
        took += ", when the time was up"
    if trial.is_true:
        return Text(f"Verdict: every answer is true. {took}.", "bold green")
    return Text(f"Verdict: NOT TRUE, see above. {took}.", "bold red")


def side_by_side(trials: Sequence[Trial]) -> Table:
    """The same figures of each."""
    table = Table(box=box.SIMPLE_HEAD, title="The same stampede, side by side", title_justify="left")
    table.add_column("")
    for trial in trials:
        table.add_column(trial.name, justify="right")
    rows: list[tuple[str, Callable[[Trial], str]]] = [
        ("everyone answered after", lambda trial: _seconds(trial)),
        *(
            (f"{share:.0%} of the results after", lambda trial, index=index: _result_after(trial, index))
            for index, share in enumerate(PERCENTILES)
        ),
        ("commands a second", lambda trial: f"{_per_second(trial):,.0f}"),
        ("booked", lambda trial: f"{trial.stampede.last.booked:,}"),
        ("given back", lambda trial: f"{trial.stampede.last.given_back:,}"),
        ("refused", lambda trial: f"{sum(trial.stampede.last.refused.values()):,}"),
        ("place in line told", lambda trial: "yes" if trial.stampede.last.accepted else "no"),
    ]
    rows += [
        (promise, lambda trial, promise=promise: _kept(trial, promise))
        for promise in dict.fromkeys(finding.promise for trial in trials for finding in trial.findings)
    ]
    for label, figure in rows:
        table.add_row(label, *(figure(trial) for trial in trials))
    return table


def _seconds(trial: Trial) -> str:
    seconds = f"{trial.stampede.seconds:.1f} s"
    return seconds if trial.stampede.is_over else f"not in {seconds}"


def _result_after(trial: Trial, index: int) -> str:
    after = trial.stampede.last.answered_after
    return f"{after[index]:.2f} s" if after else "–"


def _per_second(trial: Trial) -> float:
    return trial.stampede.last.answered / trial.stampede.seconds


def _kept(trial: Trial, promise: str) -> str:
    for finding in trial.findings:
        if finding.promise == promise:
            return "true" if finding.is_kept else "NOT TRUE"
    return "not promised" if promise == ORDER_KEPT else "nothing to check it against"
