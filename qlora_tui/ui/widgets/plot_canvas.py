"""The plotting library as it is used here: its canvas without its keys, its ticks, and a logarithmic axis."""

from collections.abc import Sequence
from math import ceil, floor, log10

from textual.events import MouseScrollDown, MouseScrollUp
from textual_hires_canvas import Canvas
from textual_plot import PlotWidget
from textual_plot.axis_formatter import AxisFormatter, NumericAxisFormatter


class NumberAxis(NumericAxisFormatter):  # type: ignore[misc]
    """The library's ticks, with very small and very large numbers in scientific notation."""

    def get_labels_for_ticks(self, ticks: Sequence[float]) -> list[str]:
        """One text a tick."""
        largest = max((abs(tick) for tick in ticks), default=0.0)
        if ticks and (0 < largest < 1e-2 or largest >= 1e6):
            return ["0" if tick == 0 else f"{tick:.1e}" for tick in ticks]
        labels: list[str] = super().get_labels_for_ticks(ticks)
        return labels


class LogAxis(AxisFormatter):  # type: ignore[misc]
    """An axis whose values are logarithms to the base of ten and whose labels are the numbers."""

    def get_ticks(self, min_: float, max_: float, max_ticks: int = 8) -> list[float]:
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
        self._cursor: tuple[float, str] | None = None
        self._under: list[tuple[int, int, str, str]] = []

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
            self._put_cursor()

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
