"""Two or more runs beside each other: their losses in one plot, and the settings in which they differ."""

from typing import ClassVar

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.screen import Screen
from textual.widgets import DataTable, Static

from qlora_tui.config.differences import differences
from qlora_tui.errors import QloraError
from qlora_tui.runs import store
from qlora_tui.runs.extension import current_config
from qlora_tui.runs.follow import Follower
from qlora_tui.runs.jobs import Job
from qlora_tui.terminal import printable
from qlora_tui.ui import messages
from qlora_tui.ui.curves import curves
from qlora_tui.ui.widgets.key_line import KeyLine
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

    def _plot(self) -> None:
        from qlora_tui.ui.widgets.curve_plot import CurvePlot
        from qlora_tui.ui.widgets.plot_line import Line

        lines = []
        for job, variable in zip(self._jobs, _VARIABLES, strict=False):
            drawn = curves(job.state)
            name = shortened("name", printable(job.run.name), _LEGEND_CELLS)
            lines.append(Line(name, drawn.evals if self._evals else drawn.smoothed, variable))
        self.query_one(CurvePlot).show("evaluation loss" if self._evals else "training loss, smoothed", lines)

    def action_evals(self) -> None:
        """Plot evaluations instead of training steps, and back."""
        if self._jobs:
            self._evals = not self._evals
            self._plot()

    def action_leave(self) -> None:
        """Back to the runs."""
        self.dismiss()


def _text(value: object) -> str:
    if value is None or value == []:
        return "empty"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
