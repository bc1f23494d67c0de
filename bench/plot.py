"""Bar plots as SVG, readable on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from bench.outcome import Bar

WIDTH, LABEL, BAR_HEIGHT, GAP, MARGIN = 720, 190, 22, 12, 16
OURS, OTHERS = "#0b7a75", "#8a94a6"


def bar_plot(title: str, bars: Sequence[Bar], unit: str) -> str:
    """A plot of horizontal bars, each with its label and value."""
    most = max(bar.value for bar in bars)
    scale = (WIDTH - LABEL - 130) / most
    height = MARGIN * 2 + 24 + len(bars) * (BAR_HEIGHT + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
        f' aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
        f'<text x="{MARGIN}" y="{MARGIN + 10}" font-weight="600" fill="#1f2937">'
        f"{escape(title)}, {escape(unit)}</text>",
    ]
    for number, bar in enumerate(bars):
        top = MARGIN + 24 + number * (BAR_HEIGHT + GAP)
        length = max(2.0, bar.value * scale)
        middle = top + BAR_HEIGHT / 2 + 5
        parts += [
            f'<text x="{LABEL - 8}" y="{middle}" text-anchor="end" fill="#1f2937">{escape(bar.label)}</text>',
            f'<rect x="{LABEL}" y="{top}" width="{length:.1f}" height="{BAR_HEIGHT}" rx="3"'
            f' fill="{OURS if bar.ours else OTHERS}"/>',
            f'<text x="{LABEL + length + 8:.1f}" y="{middle}" fill="#1f2937">{bar.value:,.0f}</text>',
        ]
    parts.append("</svg>")
    return "\n".join(parts) + "\n"
