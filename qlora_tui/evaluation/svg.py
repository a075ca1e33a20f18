"""Curves and intervals as inline SVG: no script, no font, no address, in the colours of the page around it."""

import math
from collections.abc import Mapping, Sequence
from html import escape

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf")
_WIDTH, _HEIGHT = 720, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 12, 36
_MOST_POINTS = 1000

Points = Sequence[tuple[float, float]]


def chart(curves: Mapping[str, Points], x_label: str, y_label: str) -> str:
    """Lines over one another with axes and a legend; an empty text when there is no point."""
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return ""
    (left, right), (low, high) = (_bounds([point[axis] for point in points]) for axis in (0, 1))

    def at(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + (x - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)
        down = _TOP + (high - y) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)
        return round(across, 1), round(down, 1)

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 20 * len(curves)}" role="img" '
        f'aria-label="{escape(y_label)} over {escape(x_label)}">'
    ]
    for y in _ticks(low, high):
        _, down = at(left, y)
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{down}" x2="{_WIDTH - _RIGHT}" y2="{down}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{down + 4}" text-anchor="end">{y:.6g}</text>')
    for x in _ticks(left, right):
        parts.append(f'<text x="{at(x, low)[0]}" y="{_HEIGHT - 18}" text-anchor="middle">{x:.7g}</text>')
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 4}" text-anchor="end">{escape(x_label)}</text>')
    for number, (label, curve) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        line = " ".join("{},{}".format(*at(*point)) for point in _thinned(curve))
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.6" points="{line}"/>')
        down = _HEIGHT + 20 * number + 10
        parts.append(f'<rect x="{_LEFT}" y="{down - 8}" width="18" height="4" fill="{colour}"/>')
        parts.append(f'<text x="{_LEFT + 26}" y="{down}">{escape(label)}</text>')
    return "".join([*parts, "</svg>"])


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high`, about five."""
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda one: abs(one - rough))
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _thinned(curve: Points) -> Points:
    """At most about a thousand points, the last one among them."""
    stride = len(curve) // _MOST_POINTS + 1
    return curve if stride == 1 else [*curve[::stride], curve[-1]]
