"""The figures as JSON, for machines, and as tables in docs/benchmarks.md, for people."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from bench.machine import Machine
from bench.measure import Result
from bench.processes import REPOSITORY, BenchmarkError
from bench.targets import PeerSetting

JSON_FILE = REPOSITORY / "docs" / "benchmarks.json"
PAGE = REPOSITORY / "docs" / "benchmarks.md"
BEGIN = "<!-- measured:begin -->"
END = "<!-- measured:end -->"


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The peer and Onsale, one after the other."""

    peer: Result
    onsale: Result

    @property
    def ratio(self) -> float:
        """How many times the peer's bookings per second Onsale accepted and applied."""
        return self.onsale.applied_per_second / self.peer.applied_per_second


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What the peer reached at one setting in a short trial."""

    setting: PeerSetting
    applied_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that one run measured, and under what conditions."""

    measured_at: str
    machine: Machine
    seconds: int
    connections: int
    workers: int
    trials: Sequence[Trial]
    peer_setting: PeerSetting
    rounds: Sequence[Round]

    @property
    def peer_per_second(self) -> float:
        """Median of the peer's bookings per second."""
        return statistics.median(one.peer.applied_per_second for one in self.rounds)

    @property
    def onsale_accepted_per_second(self) -> float:
        """Median of Onsale's accepted commands per second."""
        return statistics.median(one.onsale.accepted_per_second for one in self.rounds)

    @property
    def onsale_applied_per_second(self) -> float:
        """Median of Onsale's accepted and applied bookings per second."""
        return statistics.median(one.onsale.applied_per_second for one in self.rounds)

    @property
    def ratio(self) -> float:
        """Median of the ratios of the rounds."""
        return statistics.median(one.ratio for one in self.rounds)


def summary(report: Report) -> str:
    """The result in one line."""
    return (
        f"Median of {len(report.rounds)}: synchronous {report.peer_per_second:,.0f}/s, "
        f"Onsale {report.onsale_accepted_per_second:,.0f}/s accepted, "
        f"{report.onsale_applied_per_second:,.0f}/s accepted and applied: {report.ratio:.1f} times."
    )


def write_json(report: Report) -> None:
    """Write all the figures to docs/benchmarks.json."""
    document = asdict(report) | {
        "rounds": [_round_figures(one) for one in report.rounds],
        "medians": {
            "peer_applied_per_second": round(report.peer_per_second, 1),
            "onsale_accepted_per_second": round(report.onsale_accepted_per_second, 1),
            "onsale_applied_per_second": round(report.onsale_applied_per_second, 1),
            "ratio": round(report.ratio, 2),
        },
    }
    JSON_FILE.write_text(json.dumps(document, indent=2) + "\n")


def write_page(report: Report) -> None:
    """Put the tables between the two marks in docs/benchmarks.md and leave the rest of the page alone.

    Raises:
        BenchmarkError: the page does not have the two marks, in that order.
    """
    page = PAGE.read_text()
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchmarkError(f"{PAGE} needs the lines {BEGIN} and {END}")
    PAGE.write_text(f"{before}{BEGIN}\n{render(report)}\n{END}{after}")


def render(report: Report) -> str:
    """The measured part of the page."""
    return "\n\n".join([_headline(report), _rounds_table(report), _trials_table(report), _conditions(report)])


def _headline(report: Report) -> str:
    return (
        f"**Onsale accepted and applied {report.onsale_applied_per_second:,.0f} bookings per second on one "
        f"event, {report.ratio:.1f} times the {report.peer_per_second:,.0f} of the synchronous design** "
        f"(median of {len(report.rounds)}, measured {report.measured_at})."
    )


def _rounds_table(report: Report) -> str:
    rows = [
        "| round | synchronous, booked/s | Onsale, accepted/s | Onsale, accepted and applied/s | ratio |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for number, one in enumerate(report.rounds, start=1):
        rows.append(
            f"| {number} | {one.peer.applied_per_second:,.0f} | {one.onsale.accepted_per_second:,.0f} "
            f"| {one.onsale.applied_per_second:,.0f} | {one.ratio:.1f} |"
        )
    rows.append(
        f"| **median** | **{report.peer_per_second:,.0f}** | **{report.onsale_accepted_per_second:,.0f}** "
        f"| **{report.onsale_applied_per_second:,.0f}** | **{report.ratio:.1f}** |"
    )
    return "\n".join(rows)


def _trials_table(report: Report) -> str:
    rows = ["| synchronous design at | booked/s, short trial |", "| --- | ---: |"]
    rows += [f"| {trial.setting} | {trial.applied_per_second:,.0f} |" for trial in report.trials]
    return "\n".join(rows)


def _conditions(report: Report) -> str:
    machine = report.machine
    lines = [
        f"- Load: wrk, {report.connections} connections, {report.seconds} s a measurement.",
        f"- Onsale: 1 API process, {report.workers} worker{'s' if report.workers > 1 else ''}. "
        f"Synchronous design: {report.peer_setting}.",
        f"- Machine: {machine.cores} cores of {machine.processor}, {machine.memory_gib} GiB of memory, "
        f"{machine.kernel}; load average before the run {machine.load_average_before}.",
        f"- Disk: write and fdatasync of 8 KiB in {machine.fsync_us_p50:,.0f} µs (median), "
        f"{machine.fsync_us_p99:,.0f} µs (99th percentile).",
        f"- Versions: Python {machine.python}, PostgreSQL {machine.postgresql}, Valkey {machine.valkey}, "
        f"{machine.wrk}.",
    ]
    return "\n".join(lines)


def _round_figures(one: Round) -> dict[str, object]:
    return {"peer": _figures(one.peer), "onsale": _figures(one.onsale), "ratio": round(one.ratio, 2)}


def _figures(result: Result) -> dict[str, float]:
    return asdict(result) | {
        "accepted_per_second": round(result.accepted_per_second, 1),
        "applied_per_second": round(result.applied_per_second, 1),
    }
