"""Everything there is to see of one run, laid out for the room there is. It is given views and asks for nothing."""

from __future__ import annotations

import gc
from importlib import import_module
from typing import TYPE_CHECKING, Any

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.events import Resize
from textual.message import Message
from textual.reactive import var
from textual.widget import Widget
from textual.widgets import Tab, Tabs

from qlora_tui.ui.curves import Curves, Detail, is_coarse
from qlora_tui.ui.run_view import RunView
from qlora_tui.ui.widgets.curve_lines import CurveLines
from qlora_tui.ui.widgets.host_panel import HostPanel
from qlora_tui.ui.widgets.memory_panel import MemoryPanel
from qlora_tui.ui.widgets.plot_line import Line, Mark, Part, PlotZoomed
from qlora_tui.ui.widgets.run_log import RunLog
from qlora_tui.ui.widgets.run_outcome import RunOutcome
from qlora_tui.ui.widgets.run_progress import RunProgress
from qlora_tui.ui.widgets.run_texts import SamplesPanel, WarningsPanel

if TYPE_CHECKING:
    from qlora_tui.ui.widgets.curve_plot import CurvePlot

WIDE_COLUMNS, WIDE_ROWS = 160, 32
MEDIUM_COLUMNS, MEDIUM_ROWS = 100, 14
_PLOTS = ("loss", "rate", "norm")
_BETWEEN_PLOTS_S = 0.12
"""A plot takes some 20 ms to draw, so plots are drawn one by one with room for a key in between."""

_TINY_COLUMNS, _TINY_ROWS = 50, 16
_TABS = (
    ("plots", "Curves"),
    ("memory", "Memory"),
    ("samples", "Samples"),
    ("warnings", "Warnings"),
    ("log", "Log"),
)

PANEL_BINDINGS: list[BindingType] = [
    Binding("left_square_bracket", "panel(-1)", "Previous panel", id="run.previous-panel", show=False,
            tooltip="Show the panel to the left"),
    Binding("right_square_bracket", "panel(1)", "Next panel", id="run.next-panel", show=False,
            tooltip="Show the panel to the right"),
    Binding("p", "plot", "Plot", id="run.plot", show=False,
            tooltip="Loss, learning rate or gradient norm in the large plot"),
    Binding("v", "samples", "Samples by prompt", id="run.samples", show=False,
            tooltip="Samples by prompt, to compare them between steps, or by step"),
]  # fmt: skip
"""Keys of whatever holds the panel, which works without the focus: `panel` and `plot` are the panel's own methods."""


class RunPanel(Vertical):
    """Carries `-narrow`, `-medium` or `-wide`: one column with tabs; a plot beside tabs; everything at once.

    Also `-tiny` if there is no room for a plot: a sparkline replaces it.
    """

    view: var[RunView | None] = var(None)
    asked: var[str] = var("")
    """What was asked of the worker and not answered yet."""

    details: var[dict[str, Detail]] = var(dict)
    """Detailed parts of a long run, by plot."""

    main_plot: var[int] = var(0)
    """Which of the curves the large plot shows."""

    class DetailRequested(Message):
        """Request to read the visible part of a plot in detail."""

        def __init__(self, plot: str, low: int, high: int) -> None:
            super().__init__()
            self.plot = plot
            self.low = low
            self.high = high

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._stale: list[str] = []
        self._drawing = False

    def compose(self) -> ComposeResult:
        yield RunProgress().data_bind(RunPanel.view)
        yield RunOutcome().data_bind(RunPanel.view, RunPanel.asked)
        with Vertical(id="run-body"):
            with Vertical(id="plots"):
                yield CurveLines(id="curve-lines").data_bind(RunPanel.view)
            yield Tabs(*(Tab(title, id=f"tab-{name}") for name, title in _TABS))
            with Vertical(id="side"):
                with Vertical(id="memory", classes="panel"):
                    yield MemoryPanel(classes="box").data_bind(RunPanel.view)
                    yield HostPanel(classes="box").data_bind(RunPanel.view)
                yield SamplesPanel(id="samples", classes="panel box").data_bind(RunPanel.view)
                yield WarningsPanel(id="warnings", classes="panel box").data_bind(RunPanel.view)
                yield RunLog(id="log", classes="panel box").data_bind(RunPanel.view)

    def on_mount(self) -> None:
        self._load_plots()

    @work(thread=True, group="plots")
    def _load_plots(self) -> None:
        """Importing the plotting library takes longer than a frame."""
        module = import_module("qlora_tui.ui.widgets.curve_plot")
        self.app.call_from_thread(self._mount_plots, module.CurvePlot)

    def _mount_plots(self, plot: type[CurvePlot]) -> None:
        self.query_one("#plots").mount(*(plot("", id=f"plot-{name}", classes="box curve-plot") for name in _PLOTS))
        self.call_after_refresh(self._draw_plots)
        self.call_after_refresh(gc.freeze)  # as a place does: the plotting library is large

    def on_resize(self, event: Resize) -> None:
        columns, rows = event.size
        was_narrow = self.has_class("-narrow")
        wide = columns >= WIDE_COLUMNS and rows >= WIDE_ROWS
        medium = not wide and columns >= MEDIUM_COLUMNS and rows >= MEDIUM_ROWS
        self.set_class(wide, "-wide")
        self.set_class(medium, "-medium")
        self.set_class(not (wide or medium), "-narrow")
        self.set_class(columns < _TINY_COLUMNS or rows < _TINY_ROWS, "-tiny")
        tabs = self.query_one(Tabs)
        if wide or medium:
            if tabs.active == "tab-plots":
                tabs.active = "tab-memory"
            tabs.hide("tab-plots")
        else:
            tabs.show("tab-plots")
            if not was_narrow:
                tabs.active = "tab-plots"
        self._draw_plots()

    @on(Tabs.TabActivated)
    def _show_panel(self, event: Tabs.TabActivated) -> None:
        event.stop()
        for panel in self.query("#plots, .panel"):
            panel.set_class(f"tab-{panel.id}" == event.tab.id, "-here")
        self.query_one("#side").set_class(event.tab.id != "tab-plots", "-here")
        self._draw_plots()

    def move(self, direction: int) -> None:
        """The panel beside the one that is shown."""
        tabs = self.query_one(Tabs)
        if direction > 0:
            tabs.action_next_tab()
        else:
            tabs.action_previous_tab()

    def turn_samples(self) -> None:
        """Samples by prompt, or by step."""
        panel = self.query_one(SamplesPanel)
        panel.by_prompt = not panel.by_prompt

    def enlarge(self, focused: Widget | None) -> None:
        """Show one panel alone below the progress, or everything again: the focused one, else the large plot."""
        was_enlarged = self.has_class("-enlarged")
        self.query(".-large, .-holds").remove_class("-large", "-holds")
        self.set_class(not was_enlarged, "-enlarged")
        if was_enlarged:
            return
        around = focused.ancestors_with_self if focused is not None else []
        chosen = next((node for node in around if isinstance(node, Widget) and node.has_class("box")), None)
        panel = chosen or self.query(".panel.-here, #plot-loss").last(Widget)
        panel.add_class("-large")
        self.query_one("#plots" if panel.has_class("curve-plot") else "#side").add_class("-holds")

    def turn_plot(self) -> None:
        """The next curve in the large plot."""
        self.main_plot = (self.main_plot + 1) % len(_PLOTS)

    def watch_main_plot(self) -> None:
        self._draw_plots()

    def watch_view(self, old: RunView | None, view: RunView | None) -> None:
        if view is None:
            return
        if old is not None and (old.name, old.state.attempt) != (view.name, view.state.attempt):
            self.details = {}
        if old is None or old.curves is not view.curves:
            self._draw_plots()

    def take_detail(self, plot: str, detail: Detail) -> None:
        """Show the detailed data of a plot."""
        self.details = {**self.details, plot: detail}

    def watch_details(self) -> None:
        self._draw_plots()
        self._ask_for_detail()

    @on(PlotZoomed)
    def _ask_for_detail(self) -> None:
        """Request detailed data for the visible part of a plot if the current data is too coarse."""
        view = self.view
        for plot in self.query(".curve-plot"):
            window = self._window(plot)
            if view is None or window is None or plot.id is None:
                continue
            width = detail.width if (detail := self._detail(plot.id, window)) else view.state.steps.width
            if is_coarse(width, window):
                margin = (window[1] - window[0]) / 4
                self.post_message(self.DetailRequested(plot.id, int(window[0] - margin), int(window[1] + margin) + 1))
                return

    @staticmethod
    def _window(plot: Any) -> tuple[float, float] | None:
        """Part in view of a `CurvePlot`, which is imported late."""
        window: tuple[float, float] | None = plot.window
        return window

    def _detail(self, plot: str, window: tuple[float, float]) -> Detail | None:
        """Return the detailed data of a plot if it covers the visible part."""
        detail = self.details.get(plot)
        return detail if detail and detail.low <= window[0] and window[1] <= detail.high else None

    def _draw_plots(self) -> None:
        """Draw every plot in view once, one after the other; one that is due already stays where it is in the row."""
        self._stale += [name for name in _PLOTS if name not in self._stale]
        if not self._drawing:
            self._draw_next()

    def _draw_next(self) -> None:
        self._drawing = False
        while self._stale:
            name = self._stale.pop(0)
            plots: Any = self.query(f"#plot-{name}")
            if plots and plots.first().display and self.view is not None:
                self._draw(plots.first(), name, self.view)
                self._drawing = True
                self.set_timer(_BETWEEN_PLOTS_S, self._draw_next)
                return

    def _draw(self, plot: CurvePlot, name: str, view: RunView) -> None:
        detail = self.details.get(f"plot-{name}")
        which = (_PLOTS.index(name) + self.main_plot) % len(_PLOTS)
        title, lines = _content(which, view.curves)
        part = Part(detail.low, detail.high, tuple(_content(which, detail.curves)[1])) if detail else None
        plot.show(title, lines, _marks(view), part)


def _content(which: int, found: Curves) -> tuple[str, list[Line]]:
    """Title and lines of one of the plots."""
    if which == 1:
        return "learning rate", [Line("", found.learning_rate, "secondary")]
    if which == 2:
        return "gradient norm", [
            Line("per step", found.grad_norm, "secondary", "faint"),
            Line("smoothed", found.smoothed_norm, "secondary"),
        ]
    return "loss", [
        Line("per step", found.loss, "loss", "faint"),
        Line("smoothed", found.smoothed, "loss"),
        Line("eval", found.evals, "eval", "dots"),
    ]


def _marks(view: RunView) -> list[Mark]:
    checkpoints = tuple(item.step for item in view.state.checkpoints)
    return [
        Mark("resumed", view.state.resumes, "warning", "┊", tall=True),
        Mark("checkpoint", checkpoints, "success", "▲"),
    ]
