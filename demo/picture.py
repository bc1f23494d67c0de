"""What was seen as an SVG file: how it was at the end, and the verdict."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, RenderableType

from demo.figures import Figures
from demo.panel import panel

WIDTH = 104
_FONT_FROM_ELSEWHERE = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)


def draw(command: str, last: Figures, results: Sequence[RenderableType]) -> str:
    """The SVG. It asks no other host for anything; Rich's own would ask for a font."""
    console = Console(
        record=True,
        file=io.StringIO(),
        width=WIDTH,
        force_terminal=True,
        highlight=False,
        legacy_windows=False,
    )
    console.print(f"[bold green]$[/] {command}\n")
    console.print(panel(last))
    for result in results:
        console.print(result)
    return _FONT_FROM_ELSEWHERE.sub("", console.export_svg(title="Onsale", unique_id="onsale-demo"))


def write(path: Path, picture: str) -> None:
    """Write it, making its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(picture)
