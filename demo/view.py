"""How a demo is shown: as a live picture in a terminal, as plain lines elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, RenderableType
from rich.live import Live

from demo.figures import Figures
from demo.panel import panel

PLAIN_WIDTH = 110
PLAIN_SECONDS = 1.0


class View(Protocol):
    """Who is told what happens."""

    def say(self, line: str) -> None:
        """Say what is done now."""
        ...

    def print(self, what: RenderableType) -> None:
        """Show a result."""
        ...

    def show(self, figures: Figures) -> None:
        """Show how far the stampede has come; asked often."""
        ...

    def conclude(self, figures: Figures) -> None:
        """Show how it was in the end."""
        ...


class LiveView:
    """A picture that is drawn anew several times a second."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None

    def say(self, line: str) -> None:
        """A line of its own; it ends the picture, which stays."""
        self.end()
        self._console.print(line, style="dim")

    def print(self, what: RenderableType) -> None:
        """Below the picture."""
        self.end()
        self._console.print(what)

    def show(self, figures: Figures) -> None:
        """Draw."""
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(panel(figures), refresh=True)

    def conclude(self, figures: Figures) -> None:
        """Draw for the last time."""
        self.show(figures)
        self.end()

    def end(self) -> None:
        """Leave the picture as it is, and give the terminal back."""
        if self._live is not None:
            self._live.stop()
            self._live = None


class PlainView:
    """One line a second, and the results as text."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown_at = -PLAIN_SECONDS
        self._faults_told = 0

    def say(self, line: str) -> None:
        """A line."""
        self._console.print(line, soft_wrap=True)

    def print(self, what: RenderableType) -> None:
        """Text."""
        self._console.print(what)

    def show(self, figures: Figures) -> None:
        """A line, if a second has passed since the last one."""
        for fault in figures.faults[self._faults_told :]:
            self.say(f"  {fault}")
        self._faults_told = len(figures.faults)
        if figures.seconds - self._shown_at >= PLAIN_SECONDS:
            self._shown_at = figures.seconds
            self.say(plain_line(figures))

    def conclude(self, figures: Figures) -> None:
        """The last line."""
        self._shown_at, self._faults_told = -PLAIN_SECONDS, 0
        self.say(plain_line(figures))


def plain_line(figures: Figures) -> str:
    """One moment in one line."""
    left = "?" if figures.tickets_left is None else f"{figures.tickets_left:,}"
    parts = [
        f"{figures.seconds:5.1f} s",
        f"in line {figures.in_line:,}",
        f"drained {figures.drained_per_second:,.0f}/s",
        f"tickets left {left}",
        f"booked {figures.booked:,}",
        f"given back {figures.given_back:,}",
    ]
    if figures.answered_after:
        half, _, most = figures.answered_after
        parts.append(f"answered after {half:.2f} s (half) {most:.2f} s (99 %)")
    parts += [f"{reason} {count:,}" for reason, count in figures.refused.items()]
    parts += [f"asked again after {reason} {count:,}" for reason, count in figures.put_off.items()]
    return " · ".join(parts)


@contextmanager
def open_view() -> Iterator[View]:
    """The view that suits where the output goes."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal or os.environ.get("TERM") == "dumb":
        yield PlainView(Console(highlight=False, markup=False, width=PLAIN_WIDTH, force_terminal=False))
        return
    view = LiveView(console)
    try:
        yield view
    finally:
        view.end()
