"""Content of a plot: curves and marks with labels, style and theme colour."""

from collections.abc import Mapping
from math import log10
from typing import NamedTuple

from textual.color import Color
from textual.message import Message

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

    @property
    def sign(self) -> str:
        """Its sign in the legend."""
        return {"dots": "◆", "faint": "·"}.get(self.style, "━")


class Part(NamedTuple):
    """Lines with more detail for some steps than those of the whole run."""

    low: float
    high: float
    """First and last step."""

    lines: tuple[Line, ...]


class PlotZoomed(Message):
    """The visible part of this plot has changed."""


class Mark(NamedTuple):
    """Steps at which something happened, marked on the axis."""

    name: str
    steps: tuple[int, ...]
    variable: str
    """Variable of the theme that colours it."""

    sign: str
    tall: bool = False
    """Whether it spans the whole height of the plot."""


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
