"""Small plots in a terminal: rating bars with intervals, and curves over each other in braille dots."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.text import Text

COLOURS = ("cyan", "magenta", "yellow", "green", "red", "blue")
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


@dataclass(frozen=True)
class Interval:
    label: str
    low: float
    value: float
    high: float


@dataclass(frozen=True)
class Curve:
    label: str
    points: Sequence[tuple[float, float]]


def interval_plot(rows: Sequence[Interval], width_columns: int) -> list[Text]:
    """One line a row: the label, a dash from low to high and a mark at the value, all on one scale."""
    label_columns = min(max(len(row.label) for row in rows), max(8, width_columns // 3))
    space = max(10, width_columns - label_columns - 12)
    low, high = min(row.low for row in rows), max(row.high for row in rows)
    span = (high - low) or 1.0

    def column(value: float) -> int:
        return round((value - low) / span * (space - 1))

    lines = []
    for row in rows:
        bar = [" "] * space
        for position in range(column(row.low), column(row.high) + 1):
            bar[position] = "─"
        bar[column(row.value)] = "●"
        label = row.label if len(row.label) <= label_columns else row.label[: label_columns - 1] + "…"
        lines.append(Text(f"{label:<{label_columns}}  {''.join(bar)}  {row.value:7.1f}", no_wrap=True))
    lines.append(Text(f"{'':<{label_columns}}  {low:<{space // 2}.0f}{high:>{space - space // 2}.0f}", no_wrap=True))
    return lines


def curve_plot(curves: Sequence[Curve], width_columns: int, height_rows: int = 14) -> list[Text]:
    """Curves in one frame with a legend. Points are (x, y); curves without points are named all the same."""
    points = [point for curve in curves for point in curve.points]
    if not points:
        return [Text("no points to plot")]
    (left, right), (bottom, top) = (_bounds([point[axis] for point in points]) for axis in (0, 1))
    columns = max(20, width_columns - 12)
    dots: dict[tuple[int, int], int] = {}
    owner: dict[tuple[int, int], int] = {}
    for number, curve in enumerate(curves):
        for x, y in _filled(curve.points, columns * 8):
            dot_x = round((x - left) / (right - left) * (columns * 2 - 1))
            dot_y = round((top - y) / (top - bottom) * (height_rows * 4 - 1))
            cell = (dot_y // 4, dot_x // 2)
            dots[cell] = dots.get(cell, 0) | _DOTS[dot_y % 4][dot_x % 2]
            owner[cell] = number
    lines = []
    for row in range(height_rows):
        value = f"{top:10.4g}" if row == 0 else f"{bottom:10.4g}" if row == height_rows - 1 else " " * 10
        line = Text(f"{value} ", no_wrap=True)
        for column in range(columns):
            cell = (row, column)
            style = COLOURS[owner[cell] % len(COLOURS)] if cell in owner else ""
            line.append(chr(0x2800 + dots[cell]) if cell in dots else " ", style=style)
        lines.append(line)
    lines.append(Text(f"{'':10} {left:<{columns // 2}.4g}{right:>{columns - columns // 2}.4g}", no_wrap=True))
    legend = Text(" " * 11)
    for number, curve in enumerate(curves):
        legend.append(f"● {curve.label}  ", style=COLOURS[number % len(COLOURS)])
    return [*lines, legend]


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _filled(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """`points` with straight lines between them, a few points a dot."""
    if len(points) < 2 or len(points) >= most:
        return list(points)
    between = max(1, most // (len(points) - 1))
    filled = [points[-1]]
    for (x_1, y_1), (x_2, y_2) in pairwise(points):
        filled += [(x_1 + (x_2 - x_1) * part / between, y_1 + (y_2 - y_1) * part / between) for part in range(between)]
    return filled
