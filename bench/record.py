"""What was measured, and on which occasion: docs/benchmarks.json, from which the page is made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.machine import Machine, describe_commit, describe_machine
from bench.outcome import Bar, Goal, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """When something was measured, at which commit and on what machine.

    Commit and machine are None where nobody wrote them down, or the code is no clone of the repository.
    """

    measured_at: str
    commit: str | None
    machine: Machine | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The outcome of a measure, and the occasion on which it was measured."""

    outcome: Outcome
    occasion: Occasion


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The latest outcome of each measure. `heading` is the last run of all of them."""

    heading: Occasion
    entries: Mapping[str, Entry]


def this_occasion(directory: Path, wrk: str) -> Occasion:
    """Now, and here.

    Raises:
        BenchmarkError: figures that are taken here would mean nothing.
    """
    return Occasion(
        measured_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=describe_commit(),
        machine=describe_machine(directory, wrk),
    )


def merge(
    older: Record | None,
    outcomes: Mapping[str, Outcome],
    occasion: Occasion,
    *,
    order: Sequence[str],
    is_full: bool,
) -> Record:
    """Put these outcomes in the place of their older ones; the others stay, with their own occasion.

    A run of all measures becomes the heading, also if some of them broke. What is not in `order` is no
    longer measured, and goes.
    """
    entries = dict(older.entries) if older is not None else {}
    entries |= {name: Entry(outcome=outcome, occasion=occasion) for name, outcome in outcomes.items()}
    return Record(
        heading=occasion if is_full or older is None else older.heading,
        entries={name: entries[name] for name in order if name in entries},
    )


def as_json(record: Record) -> str:
    """The text of docs/benchmarks.json."""
    document = {
        **asdict(record.heading),
        "measures": {
            name: {
                **asdict(entry.outcome),
                # They have files of their own.
                "pictures": list(entry.outcome.pictures),
                **asdict(entry.occasion),
            }
            for name, entry in record.entries.items()
        },
    }
    # A measure that gives what JSON doesn't have must not cost the figures of all the others.
    return json.dumps(document, indent=2, default=str) + "\n"


def from_json(text: str) -> Record:
    """The record that `as_json` has written."""
    document = json.loads(text)
    return Record(
        heading=_occasion(document),
        entries={
            name: Entry(outcome=_outcome(measure), occasion=_occasion(measure))
            for name, measure in document["measures"].items()
        },
    )


def _occasion(document: Mapping[str, Any]) -> Occasion:
    machine = document["machine"]
    return Occasion(
        measured_at=document["measured_at"],
        commit=document["commit"],
        machine=None if machine is None else Machine(**machine),
    )


def _outcome(measure: Mapping[str, Any]) -> Outcome:
    return Outcome(
        title=measure["title"],
        explanation=measure["explanation"],
        columns=measure["columns"],
        rows=measure["rows"],
        goals=[Goal(**goal) for goal in measure["goals"]],
        figures=measure["figures"],
        plot=[Bar(**bar) for bar in measure["plot"]],
        unit=measure["unit"],
        pictures=dict.fromkeys(measure.get("pictures", ()), ""),
    )
