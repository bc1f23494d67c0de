"""The result of a storm as a person reads it: printed, and in docs/reliability.md."""

from __future__ import annotations

import statistics
from pathlib import Path

from tests.storm.director import NOT_RECOVERED, STUCK, StormResult
from tests.storm.verdict import DUPLICATED, LOST, OUT_OF_ORDER, UNANSWERED, UNTRUE

BEGIN = "<!-- storm -->"
END = "<!-- /storm -->"
VIOLATIONS_SHOWN_MAX = 20


def render(result: StormResult) -> str:
    """The measured part of the page."""
    return "\n\n".join([_conditions(result), _counts(result), _recoveries(result), _left_out(result)])


def render_violations(result: StormResult) -> str:
    """Everything that is wrong, with ids; of very many only the first."""
    lines = []
    for what, found in result.verdict.violations.items():
        lines.append(f"{what}: {len(found)}")
        lines += [f"  {line}" for line in found[:VIOLATIONS_SHOWN_MAX]]
    return "\n".join(lines)


def write_page(result: StormResult, page: Path) -> None:
    """Put the result between the two marks of this page and leave the rest of it alone.

    Raises:
        ValueError: the page does not have the two marks, in that order.
    """
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} needs the lines {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{render(result)}\n\n{END}{after}")


def _conditions(result: StormResult) -> str:
    options = result.options
    faults = sum(len(seconds) for seconds in result.recovery_seconds.values())
    return (
        f"**{options.seconds:.0f} seconds, {faults} faults, {options.clients} clients, "
        f"{options.events} events, {result.cores} cores; seed {options.seed}.**"
    )


def _counts(result: StormResult) -> str:
    verdict = result.verdict
    rows = [
        ("commands sent", verdict.sent),
        ("accepted, as their clients were told", verdict.accepted),
        *((f"applied: {outcome}", count) for outcome, count in sorted(verdict.applied.items())),
        ("answers 503 and 429 (the client tries again)", result.refused_for_now),
        ("requests without an answer (cut off, or the client hung up)", result.cut_off),
        ("**lost**", verdict.count(LOST)),
        ("**duplicated**", verdict.count(DUPLICATED)),
        ("**out of order**", verdict.count(OUT_OF_ORDER)),
        ("**answered wrongly**", verdict.count(UNTRUE)),
        ("**never answered**", verdict.count(UNANSWERED)),
        ("**events stuck, faults not recovered from**", verdict.count(STUCK) + verdict.count(NOT_RECOVERED)),
    ]
    return "\n".join(["| what | times |", "| --- | ---: |", *(f"| {what} | {n:,} |" for what, n in rows)])


def _recoveries(result: StormResult) -> str:
    rows = ["| fault | times | median recovery s | longest recovery s |", "| --- | ---: | ---: | ---: |"]
    for name, seconds in sorted(result.recovery_seconds.items()):
        rows.append(f"| {name} | {len(seconds)} | {statistics.median(seconds):.2f} | {max(seconds):.2f} |")
    return "\n".join(rows)


def _left_out(result: StormResult) -> str:
    if not result.left_out:
        return "Nothing was left out."
    return "\n".join(["Left out:", "", *(f"- {reason}" for reason in result.left_out)])
