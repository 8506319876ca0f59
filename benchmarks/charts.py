"""Charts as SVG, which follow the reader's light or dark scheme: bars by side, and lines over the turns of a chat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

WIDTH, LEFT, ROW, HEAD = 720, 170, 22, 56
STYLE: Final = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 } .title { font-weight: 600; font-size: 15px }
.group { font-weight: 600 } .minor { fill: #59636e } .bar { fill: #afb8c1 } .ours { fill: #0969da }
.axis { stroke: #d1d9e0; stroke-width: 1 } .line { fill: none; stroke-width: 2 }
.c0 { stroke: #0969da } .c1 { stroke: #bc4c00 } .c2 { stroke: #1a7f37 } .c3 { stroke: #8250df } .c4 { stroke: #bf3989 }
.c5 { stroke: #9a6700 } .c6 { stroke: #59636e }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc } .minor { fill: #9198a1 } .bar { fill: #656c76 } .ours { fill: #4493f8 } .axis { stroke: #3d444d }
.c0 { stroke: #4493f8 } .c1 { stroke: #f0883e } .c2 { stroke: #3fb950 } .c3 { stroke: #ab7df8 } .c4 { stroke: #db61a2 }
.c5 { stroke: #d29922 } .c6 { stroke: #9198a1 }
}"""

Bars = Sequence[tuple[str, Mapping[str, float]]]
Lines = Mapping[str, Sequence[tuple[float, float]]]


def bars(title: str, groups: Bars, ours: str) -> str:
    """Draw a bar for each side of each group. A group has a scale of its own, as its unit is its own."""
    parts, y = [], HEAD
    for label, values in groups:
        parts.append(_text(0, y, label, "group"))
        y += 8
        most = max(values.values(), default=0) or 1
        for side, value in values.items():
            length = (WIDTH - LEFT - 90) * value / most
            kind = "ours" if side == ours else "bar"
            parts.append(_text(LEFT - 8, y + 15, side, "minor", anchor="end"))
            parts.append(
                f'<rect class="{kind}" x="{LEFT}" y="{y + 3}" width="{max(length, 1):.1f}" height="{ROW - 6}"/>'
            )
            parts.append(_text(LEFT + length + 6, y + 15, number(value)))
            y += ROW
        y += 24
    return _document(title, y, parts)


def lines(title: str, x_label: str, series: Lines) -> str:
    """Draw a line for each side, all on one scale that begins at nothing."""
    height, top, right = 260, HEAD, 150
    points = [point for line in series.values() for point in line]
    most_x, most_y = (max((point[axis] for point in points), default=1) or 1 for axis in (0, 1))
    parts = []
    for step in range(5):
        y = top + height - height * step / 4
        parts.append(f'<line class="axis" x1="60" x2="{WIDTH - right}" y1="{y:.0f}" y2="{y:.0f}"/>')
        parts.append(_text(52, y + 4, number(most_y * step / 4), "minor", anchor="end"))
    ends: list[tuple[float, str, int]] = []
    for index, (side, line) in enumerate(series.items()):
        places = [(60 + (WIDTH - right - 60) * x / most_x, top + height - height * y / most_y) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="line c{index % 7}" points="{path}"/>')
        ends.append((places[-1][1], side, index))
    lowest = float("-inf")
    for end, side, index in sorted(ends):
        lowest = max(end, lowest + 17)  # labels do not cover each other
        parts.append(
            f'<line class="line c{index % 7}" x1="{WIDTH - right + 6}" x2="{WIDTH - right + 22}" '
            f'y1="{lowest:.0f}" y2="{lowest:.0f}"/>'
        )
        parts.append(_text(WIDTH - right + 28, lowest + 4, side))
    parts.extend(
        _text(60 + (WIDTH - right - 60) * x / most_x, top + height + 20, number(x), "minor", anchor="middle")
        for x in sorted({point[0] for point in points})
        if x == 1 or x >= most_x / 10  # the others would cover each other
    )
    parts.append(_text(WIDTH - right + 28, top + height + 20, x_label, "minor"))
    return _document(title, int(max(top + height + 36, lowest + 20)), parts)


def number(value: float) -> str:
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{escape(text)}</text>'


def _document(title: str, height: int, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-8 0 {WIDTH + 16} {height}" role="img">'
    name = f"<title>{escape(title)}</title>"
    return "\n".join([head, name, f"<style>{STYLE}</style>", _text(0, 24, title, "title"), *parts, "</svg>", ""])
