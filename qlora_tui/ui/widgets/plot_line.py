"""One curve of a plot: what it is called, how it is drawn, and in which colour of the theme."""

from collections.abc import Mapping
from math import log10
from typing import NamedTuple

from textual.color import Color

from qlora_tui.ui.curves import Curve

_FAINT_SHARE = 0.45


class Line(NamedTuple):
    """One curve of a plot."""

    name: str
    curve: Curve
    variable: str
    """Variable of the theme that colours it."""

    style: str = "line"
    """"line", "faint" for the many points behind a line, "dots" for a few single ones."""


def drawn_style(line: Line, variables: Mapping[str, str]) -> str:
    """The style of a line for the plotting library, from the variables of the theme."""
    color = Color.parse(variables[line.variable])
    if line.style != "faint":
        return rich_name(variables[line.variable])
    background = Color.parse(variables["background"])
    if color.ansi is not None or background.ansi is not None:
        return f"dim {rich_name(variables[line.variable])}"
    return background.blend(color, _FAINT_SHARE).rich_color.name


def rich_name(color: str) -> str:
    """A colour of the theme as the plotting library names it."""
    return Color.parse(color).rich_color.name


def height(value: float, log_scale: bool) -> float | None:
    """Where a value is drawn; None where the scale has no place for it."""
    if not log_scale:
        return value
    return log10(value) if value > 0 else None
