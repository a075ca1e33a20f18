"""Two or more runs beside each other: their losses in one plot, and the settings in which they differ."""

from collections.abc import Mapping
from typing import Any, ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.screen import Screen
from textual.widgets import DataTable, Static
from textual.worker import get_current_worker

from qlora_tui.config.differences import differences
from qlora_tui.errors import QloraError
from qlora_tui.runs import store
from qlora_tui.runs.extension import current_config
from qlora_tui.runs.follow import Follower
from qlora_tui.runs.jobs import Job
from qlora_tui.terminal import printable
from qlora_tui.ui import messages
from qlora_tui.ui.curves import Curves, Detail, curves, detail, is_coarse
from qlora_tui.ui.widgets.key_line import KeyLine
from qlora_tui.ui.widgets.plot_line import Line, Part, PlotZoomed
from qlora_tui.ui.widgets.run_columns import shortened
from qlora_tui.ui.widgets.vim import VimKeys

_LABEL_CELLS = 42
"""Width of the label column, including padding."""

_LEAST_NAME_CELLS = 14
_LEGEND_CELLS = 20

_VARIABLES = ("loss", "eval", "vram", "error", "accent")
"""Colours of the theme, one for each run."""


_EVERY_S = 1.0
"""Seconds between two updates of active runs."""


class Differences(DataTable[Text], VimKeys):
    """Results, then the settings that are not the same, a column for each run."""

    HELP = """
### Differences
The first rows show results of the whole run; the rows below show only the settings that differ. Compare runs by the
**evaluation loss**, and only if they were evaluated on the same rows. The mean of the **training loss** includes
the high losses of the first steps; the smoothed one is where the run ended.
"""


class Compared(Message):
    """The runs and their configurations were read."""

    def __init__(self, jobs_: list[Job], results: list[list[str]], differing: dict[str, list[object]]) -> None:
        super().__init__()
        self.jobs = jobs_
        self.results = results
        self.differing = differing


class DetailRead(Message):
    """The visible part of the plot was read in detail."""

    def __init__(self, low: int, high: int, details: dict[str, Detail]) -> None:
        super().__init__()
        self.low = low
        self.high = high
        self.details = details
        """Of the long runs, by name."""


class Compare(Screen[None]):
    """Over the Runs place; escape goes back."""

    CSS_PATH = "compare.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-medium"), (160, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-short"), (35, "-tall")]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Back", id="compare.leave", tooltip="Back to the runs"),
        Binding("v", "evals", "Training or evaluation", id="compare.evals", tooltip="Plot the other kind of loss"),
    ]
    AUTO_FOCUS = "Differences"

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self._names = names
        self._jobs: list[Job] = []
        self._followers: dict[str, Follower] = {}
        self._detail: DetailRead | None = None
        self._evals = False

    def compose(self) -> ComposeResult:
        yield Static(printable(f"Comparing {', '.join(self._names)}", one_line=True), id="compared", markup=False)
        yield Vertical(id="overlay")
        yield Differences(cursor_type="row", id="differences")
        yield KeyLine()

    def on_mount(self) -> None:
        self._read()
        self.set_interval(_EVERY_S, self._look_again)

    def _look_again(self) -> None:
        """Follow the runs that are training."""
        if any(job.alive for job in self._jobs) and self.app.screen is self:
            self._read()

    @work(thread=True, exclusive=True, group="compare", exit_on_error=False)
    def _read(self) -> None:
        import qlora_tui.ui.widgets.curve_plot  # noqa: F401  imports numpy, which takes a while
        from qlora_tui.evaluation import comparison

        try:
            looked = [self._look(name) for name in self._names]
            results = comparison.facts_table(comparison.facts(looked))
            differing = differences([current_config(job.run, job.state) for job in looked])
        except QloraError as error:
            self.post_message(messages.Complained(error))
        else:
            self.post_message(Compared(looked, results, differing))

    def _look(self, name: str) -> Job:
        """Return the current state of the run. Reads only new events."""
        follower = self._followers.setdefault(name, Follower(store.find(name)))
        follower.catch_up()
        return Job(follower.run, follower.state, follower.alive)

    @on(Compared)
    async def _show(self, message: Compared) -> None:
        from qlora_tui.ui.widgets.curve_plot import CurvePlot

        self._jobs = message.jobs
        if not self.query(CurvePlot):
            await self.query_one("#overlay").mount(CurvePlot("loss", id="overlaid"))
        self._plot()
        table = self.query_one(Differences)
        cursor = table.cursor_coordinate
        table.clear(columns=True)
        room = (table.size.width - _LABEL_CELLS) // len(self._names)
        for name in ("", *self._names):
            table.add_column(Text(shortened("name", printable(name), max(room, _LEAST_NAME_CELLS))))
        settings = [[key, *map(_text, values)] for key, values in message.differing.items()]
        for label, *cells in (*message.results, *settings):
            table.add_row(Text(label, style="bold"), *(Text(printable(cell, one_line=True)) for cell in cells))
        if not message.differing:
            table.add_row(Text("same settings"))
        table.cursor_coordinate = cursor

    @on(PlotZoomed)
    def _zoomed(self) -> None:
        """Read the visible part of long runs again if their buckets are too coarse for it."""
        window, known = self._window, self._detail
        if window is None or (known is not None and _covers(known, window) and not self._coarse(known, window)):
            return
        if any(is_coarse(job.state.steps.width, window) for job in self._jobs):
            margin = (window[1] - window[0]) / 4
            self._read_detail(int(window[0] - margin), int(window[1] + margin) + 1)

    @property
    def _window(self) -> tuple[float, float] | None:
        """The visible part of the plot; None: all of it."""
        found: Any = self.query("CurvePlot")
        window: tuple[float, float] | None = found.first().window if found else None
        return window

    @staticmethod
    def _coarse(detail: DetailRead, window: tuple[float, float]) -> bool:
        return any(is_coarse(each.width, window) for each in detail.details.values())

    @work(thread=True, exclusive=True, group="detail", exit_on_error=False)
    def _read_detail(self, low: int, high: int) -> None:
        worker = get_current_worker()
        found = {}
        for name, follower in tuple(self._followers.items()):
            state = follower.state
            if state.steps.width > 1:
                try:
                    steps = follower.index.read(follower.run.events, low, high, lambda: worker.is_cancelled)
                except QloraError as error:
                    self.post_message(messages.Complained(error))
                    return
                found[name] = detail(low, high, steps, state.evals)
        if not worker.is_cancelled:
            self.post_message(DetailRead(low, high, found))

    @on(DetailRead)
    def _show_detail(self, message: DetailRead) -> None:
        self._detail = message
        self._plot()
        self._zoomed()  # the part in view may have become smaller meanwhile

    def _plot(self) -> None:
        from qlora_tui.ui.widgets.curve_plot import CurvePlot

        drawn = {job.run.name: curves(job.state) for job in self._jobs}
        part = None
        if self._detail is not None:
            parts = drawn | {name: found.curves for name, found in self._detail.details.items()}
            part = Part(self._detail.low, self._detail.high, tuple(self._lines(parts)))
        title = "evaluation loss" if self._evals else "training loss, smoothed"
        self.query_one(CurvePlot).show(title, self._lines(drawn), part=part)

    def _lines(self, drawn: Mapping[str, Curves]) -> list[Line]:
        """One line for each run, by name."""
        lines = []
        for job, variable in zip(self._jobs, _VARIABLES, strict=False):
            found, name = drawn[job.run.name], shortened("name", printable(job.run.name), _LEGEND_CELLS)
            lines.append(Line(name, found.evals if self._evals else found.smoothed, variable))
        return lines

    def action_evals(self) -> None:
        """Plot evaluations instead of training steps, and back."""
        if self._jobs:
            self._evals = not self._evals
            self._plot()

    def action_leave(self) -> None:
        """Back to the runs."""
        self.dismiss()


def _covers(detail: DetailRead, window: tuple[float, float]) -> bool:
    return detail.low <= window[0] and window[1] <= detail.high


def _text(value: object) -> str:
    if value is None or value == []:
        return "empty"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
