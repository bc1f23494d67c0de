"""What a measure gives: figures, a table for people, and whether its goal was reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What was asked for, what was reached, and whether that is enough."""

    asked: str
    reached: str
    met: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar of a plot, in the plot's unit."""

    label: str
    value: float
    ours: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of one measure. `plot` is drawn if it has bars; `unit` is theirs.

    `pictures` are further ones by name, as SVG, or empty where they were written by an earlier run.
    """

    title: str
    explanation: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    goals: Sequence[Goal]
    figures: dict[str, object]
    plot: Sequence[Bar] = field(default_factory=tuple)
    unit: str = ""
    pictures: Mapping[str, str] = field(default_factory=dict)
