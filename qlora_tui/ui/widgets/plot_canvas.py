"""The plotting library as it is used here: its canvas without its keys, its ticks, and a logarithmic axis."""

from collections.abc import Sequence
from math import ceil, floor, log10

from textual.events import MouseScrollDown, MouseScrollUp
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
    """The library's plot without its own ways to zoom and pan: the plot around it has them."""

    def __init__(self) -> None:
        super().__init__(allow_pan_and_zoom=False)
        self.can_focus = False

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        event.prevent_default()

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        event.prevent_default()
