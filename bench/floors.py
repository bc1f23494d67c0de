"""The floors of `make bench-quick`: a share of what docs/benchmarks.json says was reached."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from bench.outcome import Outcome
from bench.processes import BenchmarkError
from bench.record import Record

SHARE = 0.7
FLOORED = (
    ("hot-event", "ratio_to_synchronous"),
    ("hot-event", "ratio_to_pgbench"),
    ("accepts", "ratio_to_hello"),
    ("drain", "share_of_copy"),
)
"""Ratios within one run, which move less from machine to machine than figures per second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """A figure of a measure, what it was in the last run that was written down, and on which processor."""

    measure: str
    figure: str
    written: float
    processor: str | None

    @property
    def least(self) -> float:
        """What it must reach."""
        return SHARE * self.written

    def is_held(self, outcomes: Mapping[str, Outcome]) -> bool:
        """Whether it was reached; what was not measured was not."""
        return self.measure in outcomes and self._reached(outcomes) >= self.least

    def verdict(self, outcomes: Mapping[str, Outcome]) -> str:
        """For the person who ran it."""
        floor = f"floor {self.least:.2f}, {SHARE:.0%} of {self.written:.2f}"
        if self.measure not in outcomes:
            return f"{self.measure}, {self.figure}: not measured ({floor})"
        held = "held" if self.is_held(outcomes) else "UNDER ITS FLOOR"
        return f"{self.measure}, {self.figure}: {self._reached(outcomes):.2f} ({floor}): {held}"

    def _reached(self, outcomes: Mapping[str, Outcome]) -> float:
        return _number(outcomes[self.measure].figures[self.figure])


def floors_of(record: Record | None, names: Collection[str]) -> list[Floor]:
    """The floors of these measures.

    Raises:
        BenchmarkError: there is a figure to be held to a floor, and none was written down.
    """
    floors = []
    for measure, figure in FLOORED:
        if measure not in names:
            continue
        entry = None if record is None else record.entries.get(measure)
        if entry is None or figure not in entry.outcome.figures:
            raise BenchmarkError(f"docs/benchmarks.json has no {figure} of {measure}; run `make bench` first")
        machine = entry.occasion.machine
        floors.append(
            Floor(
                measure=measure,
                figure=figure,
                written=_number(entry.outcome.figures[figure]),
                processor=None if machine is None else machine.processor,
            )
        )
    return floors


def caution(floors: Collection[Floor], processor: str) -> str | None:
    """What to know of floors that were reached on another processor than this; None if they were not.

    A quicker disk or a slower processor changes ratios too: pgbench mostly waits, and we mostly compute.
    """
    others = sorted({floor.processor or "an unknown processor" for floor in floors} - {processor})
    if not others:
        return None
    return (
        f"The floors were reached on {', '.join(others)}; this is {processor}, where ratios differ."
        " `make bench` writes down what is reached here."
    )


def _number(figure: object) -> float:
    assert isinstance(figure, int | float)
    return float(figure)
