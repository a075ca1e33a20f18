"""The plotting library as it is used here: its canvas without its keys, its ticks, and a logarithmic axis."""

from collections.abc import Sequence
from math import ceil, floor, log10

from textual.events import MouseScrollDown, MouseScrollUp
from textual_hires_canvas import Canvas, TextAlign
from textual_plot import PlotWidget
from textual_plot.axis_formatter import AxisFormatter, NumericAxisFormatter

_MOST_DIGITS = 4
_MOST_TICKS = 8


def _round_ticks(low: float, high: float, most: int) -> list[float]:
    """Round tick values: at most this many multiples of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** floor(log10((high - low) / most))
    interval = next(power * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (power * factor) <= most)
    return [number * interval for number in range(ceil(low / interval), floor(high / interval) + 1)]


class NumberAxis(NumericAxisFormatter):  # type: ignore[misc]
    """Round numbers, with very small and very large ones in scientific notation."""

    def get_ticks(self, min_: float, max_: float, max_ticks: int = _MOST_TICKS) -> list[float]:
        """Return round numbers between two values."""
        return _round_ticks(min_, max_, max_ticks)

    def get_labels_for_ticks(self, ticks: Sequence[float]) -> list[str]:
        """Return one label per tick, with enough digits to distinguish them."""
        largest = max((abs(tick) for tick in ticks), default=0.0)
        if not ticks or not (0 < largest < 1e-2 or largest >= 1e6):
            labels: list[str] = super().get_labels_for_ticks(ticks)
            return labels
        found = [""]
        for digits in range(_MOST_DIGITS):
            found = [_scientific(tick, digits) for tick in ticks]
            if len(set(found)) == len(ticks):
                break
        return found


def _scientific(number: float, digits: int) -> str:
    """Return `number` as "2e-4", without leading zeros in the exponent."""
    if number == 0:
        return "0"
    mantissa, _, exponent = f"{number:.{digits}e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


class StepAxis(AxisFormatter):  # type: ignore[misc]
    """Whole numbers."""

    def get_ticks(self, min_: float, max_: float, max_ticks: int = _MOST_TICKS) -> list[float]:
        """Return round numbers, never closer than one step."""
        if max_ - min_ <= max_ticks:
            return [float(step) for step in range(ceil(min_), floor(max_) + 1)]
        return _round_ticks(min_, max_, max_ticks)

    def get_labels_for_ticks(self, ticks: Sequence[float]) -> list[str]:
        """Return one label per tick."""
        return [f"{tick:,.0f}" for tick in ticks]


class LogAxis(AxisFormatter):  # type: ignore[misc]
    """An axis whose values are logarithms to the base of ten and whose labels are the numbers."""

    def get_ticks(self, min_: float, max_: float, max_ticks: int = _MOST_TICKS) -> list[float]:
        """Powers of ten, with twice and five times them where those are few."""
        powers = range(floor(min_), ceil(max_) + 1)
        for factors in ((1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 5), (1,)):
            ticks = [power + log10(factor) for power in powers for factor in factors]
            ticks = [tick for tick in ticks if min_ <= tick <= max_]
            if len(ticks) <= max_ticks:
                return ticks
        return ticks[:: ceil(len(ticks) / max_ticks)]

    def get_labels_for_ticks(self, ticks: Sequence[float]) -> list[str]:
        """The numbers that the logarithms stand for."""
        return [f"{10**tick:.3g}" for tick in ticks]


class PlotCanvas(PlotWidget):  # type: ignore[misc]
    """The library's plot without its own ways to zoom and pan, painted once for each drawing.

    The library draws while it is painted, and what it has drawn is painted after that. Here the owner says `draw` when
    everything is set. The cursor is put over what is drawn, and taken off again, without another drawing.
    """

    def __init__(self) -> None:
        super().__init__(allow_pan_and_zoom=False)
        self.can_focus = False
        self._x_formatter, self._y_formatter = StepAxis(), NumberAxis()
        self._cursor: tuple[float, str] | None = None
        self._under: list[tuple[int, int, str, str]] = []
        self._marks: list[tuple[list[float], str, str, bool]] = []

    def mark(self, xs: Sequence[float], sign: str, style: str, *, tall: bool) -> None:
        """Draw a symbol on the lower axis at each of these steps until `clear`; a tall one fills the cells above."""
        self._marks.append((list(xs), sign, style, tall))

    def clear(self) -> None:
        """Forget lines and marks."""
        self._marks = []
        super().clear()

    def draw(self, cursor: float | None, cursor_style: str) -> None:
        """Draw what was set since the last time, with a cursor at this step.

        The first drawing, and one of a new size, waits for the painting.
        """
        self._cursor = None if cursor is None else (cursor, cursor_style)
        if self._needs_canvas_resize:
            self.refresh()
        else:
            self._render_plot()
            self._needs_rerender = False

    def point_at(self, x: float | None, style: str) -> None:
        """Put the cursor at `x`, or take it away."""
        self._cursor = None if x is None else (x, style)
        with self._area.batch_refresh():
            for column, row, character, below in self._under:
                self._area.set_pixel(column, row, character, below)
            self._put_cursor()

    def _rerender(self) -> None:
        self._needs_rerender = True

    def _render_plot(self) -> None:
        with self._area.batch_refresh():
            super()._render_plot()
            self._put_marks()
            self._put_cursor()

    def _put_marks(self) -> None:
        area, bottom = self._area, self._scale_rectangle.bottom
        for xs, sign, style, tall in self._marks:
            for column in {self._column(x) for x in xs if self._x_min <= x <= self._x_max}:
                area.set_pixel(column, bottom, sign, style)
                for row in range(1, bottom if tall else 1):
                    if area.get_pixel(column, row)[0] == " ":
                        area.set_pixel(column, row, sign, style)

    def _column(self, x: float) -> int:
        """The column of a step, inside the frame."""
        column = int(self.get_pixel_from_coordinate(x, 0)[0])
        return min(max(column, 1), int(self._scale_rectangle.right) - 1)

    def _render_x_ticks(self) -> None:
        """Draw the ticks, and the labels that fit. The last one is never cut."""
        margin = self.query_one("#margin-bottom", Canvas)
        margin.reset()
        style = str(self.get_component_rich_style("plot--tick"))
        free = margin.size.width
        ticks, labels = self._x_formatter.get_ticks_and_labels(self._x_min, self._x_max)
        for tick, label in reversed(list(zip(ticks, labels, strict=True))):
            if not self._x_min <= tick <= self._x_max:
                continue
            column = self._column(tick)
            self._notch(column, 0, (2, 0, 0, 0))
            self._notch(column, self._scale_rectangle.bottom, (0, 0, 2, 0))
            start = min(column + self.margin_left - len(label) // 2, margin.size.width - len(label))
            if start >= 0 and start + len(label) <= free:
                margin.write_text(start, 0, f"[{style}]{label}")
                free = start - 1

    def _render_y_ticks(self) -> None:
        """Draw the ticks, and a label for each that differs from the previous one."""
        margin = self.query_one("#margin-left", Canvas)
        margin.reset()
        style = str(self.get_component_rich_style("plot--tick"))
        rows, said = set[int](), set[str]()
        for tick, label in zip(*self._y_formatter.get_ticks_and_labels(self._y_min, self._y_max), strict=True):
            row = self.get_pixel_from_coordinate(0.0, tick)[1]
            text = label[: self.margin_left - 1]
            if not self._y_min <= tick <= self._y_max or row in rows or text in said:
                continue
            rows.add(row)
            said.add(text)
            self._notch(0, row, (0, 0, 0, 2))
            self._notch(self._scale_rectangle.right, row, (0, 2, 0, 0))
            margin.write_text(self.margin_left - 2, row, f"[{style}]{text}", TextAlign.RIGHT)

    def _notch(self, column: int, row: int, quad: tuple[int, int, int, int]) -> None:
        """A tick on the frame."""
        style = str(self.get_component_rich_style("plot--axis"))
        self._area.set_pixel(column, row, self.combine_quad_with_pixel(quad, self._area, column, row), style)

    @property
    def _area(self) -> Canvas:
        return self.query_one("#plot", Canvas)

    def _put_cursor(self) -> None:
        self._under = []
        if self._cursor is None or not self._scale_rectangle:
            return
        x, style = self._cursor
        column, _ = self.get_pixel_from_coordinate(x, 0)
        for row in range(1, self._scale_rectangle.bottom):
            self._under.append((column, row, *self._area.get_pixel(column, row)))
            self._area.set_pixel(column, row, "│", style)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        event.prevent_default()

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        event.prevent_default()
