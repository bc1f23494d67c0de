"""One moment of a stampede as a picture for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from demo.figures import Figures

CURVE = " ▁▂▃▄▅▆▇█"
CURVE_WIDTH = 48
BAR_WIDTH = 48
LABEL_WIDTH = 16


def panel(figures: Figures) -> Panel:
    """The whole picture."""
    rows: list[tuple[str, RenderableType]] = [
        ("buyers", f"{figures.buyers:,} at once, {figures.tickets:,} tickets"),
        ("tickets left", _tickets_left(figures)),
        ("in line", _in_line(figures)),
        ("drained", f"{figures.drained_per_second:,.0f} a second, at best {figures.drained_at_best:,.0f}"),
        ("place in line", _after(figures.placed_after, figures.placed)),
        ("result", _after(figures.answered_after, figures.answered)),
        ("booked", f"{figures.booked:,} bookings, {figures.given_back:,} given back"),
        ("refused", _counts(figures.refused, "nobody yet", "yellow")),
        ("sent again", _counts(figures.put_off, "nothing", "red")),
        ("broken", Text("\n".join(figures.faults), "bold red") if figures.faults else "nothing"),
    ]
    table = Table.grid(padding=(0, 2))
    table.add_column(width=LABEL_WIDTH, style="dim")
    table.add_column(ratio=1)
    for label, value in rows:
        table.add_row(label, value)
    title = f"[bold]{figures.place}[/] · everyone comes at once · {figures.seconds:.1f} s"
    return Panel(Group(table), title=title, title_align="left", box=box.ROUNDED, border_style="cyan")


def _tickets_left(figures: Figures) -> RenderableType:
    if figures.tickets_left is None:
        return "not answered yet"
    line = Table.grid(padding=(0, 2))
    line.add_row(
        ProgressBar(
            total=figures.tickets,
            completed=figures.tickets_left,
            width=BAR_WIDTH,
            complete_style="green",
            finished_style="green",
        ),
        f"{figures.tickets_left:,} of {figures.tickets:,}",
    )
    return line


def _in_line(figures: Figures) -> Text:
    curve = Text(sparkline(figures.depths, CURVE_WIDTH), "cyan")
    return curve.append(f"  {figures.in_line:,}, at most {figures.in_line_at_most:,}", "default")


def _after(percentiles: Sequence[float], count: int) -> str:
    if not percentiles:
        return "nobody yet"
    half, most, nearly_all = (f"{seconds:.2f} s" for seconds in percentiles)
    return f"half after {half}, 90 % after {most}, 99 % after {nearly_all} ({count:,})"


def _counts(counts: Mapping[str, int], nothing: str, style: str) -> RenderableType:
    if not counts:
        return nothing
    return Text(", ".join(f"{reason} {count:,}" for reason, count in counts.items()), style)


def sparkline(values: Sequence[int], width: int) -> str:
    """A curve of small blocks, each for an equal share of the values and as high as their highest."""
    if not values:
        return " " * width
    highest = max(values) or 1
    columns = []
    for column in range(width):
        first = column * len(values) // width
        last = max(first + 1, (column + 1) * len(values) // width)
        share = max(values[first:last]) / highest
        columns.append(CURVE[round(share * (len(CURVE) - 1))])
    return "".join(columns)
