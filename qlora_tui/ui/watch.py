"""One run in a few lines of the terminal, below the prompt: the panel of the Run place and nothing else."""

from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.reactive import var
from textual.widgets import Footer
from textual.worker import get_current_worker

from qlora_tui import settings as preferences
from qlora_tui.errors import QloraError
from qlora_tui.runs.store import RunFolder
from qlora_tui.ui import themes
from qlora_tui.ui.run_reader import RunReader
from qlora_tui.ui.run_view import RunView
from qlora_tui.ui.terminal_app import TerminalApp
from qlora_tui.ui.widgets.run_panel import PANEL_BINDINGS, RunPanel


class WatchApp(TerminalApp[bool]):
    """Ends by itself when the run has ended. Returns whether it saw that end."""

    CSS_PATH = ["app.tcss", "widgets/run_panel.tcss"]
    CSS = """
    Screen:inline { height: 20; max-height: 100vh; border: none; }
    """
    ENABLE_COMMAND_PALETTE = False
    INLINE_PADDING = 0
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c,q,escape", "leave", "Leave; the run continues", id="watch.leave", priority=True,
                tooltip="Back to the shell; the run continues"),
        *PANEL_BINDINGS,
    ]  # fmt: skip

    view: var[RunView | None] = var(None)

    class RunAdvanced(Message):
        """There is something new to see of the run."""

        def __init__(self, view: RunView) -> None:
            super().__init__()
            self.view = view

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, WatchApp.RunAdvanced)

    def __init__(self, run: RunFolder) -> None:
        super().__init__()
        try:
            self._settings = preferences.load()
        except QloraError:  # a quick look does not fail for a setting; the workbench says what is wrong
            self._settings = preferences.Settings()
        self._reader = RunReader(run, self._settings.refresh_hz)

    def compose(self) -> ComposeResult:
        yield RunPanel().data_bind(WatchApp.view)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.set_keymap(self._settings.keymap)
        for theme in themes.load_all()[0]:
            self.register_theme(theme)
        if self._settings.theme in self.available_themes:
            self.theme = self._settings.theme
        self._read()

    def on_unmount(self) -> None:
        self._reader.stop()

    @work(thread=True, group="reader")
    def _read(self) -> None:
        self._reader.follow(lambda view: self.post_message(self.RunAdvanced(view)))

    @on(RunAdvanced)
    def _advance(self, message: RunAdvanced) -> None:
        self.view = message.view
        self.call_after_refresh(self._shown)

    @on(RunPanel.DetailRequested)
    @work(thread=True, exclusive=True, group="detail", exit_on_error=False)
    def _read_detail(self, message: RunPanel.DetailRequested) -> None:
        worker = get_current_worker()
        found = self._reader.detail(message.low, message.high, lambda: worker.is_cancelled)
        if found is not None:
            self.call_from_thread(self.query_one(RunPanel).take_detail, message.plot, found)

    def _shown(self) -> None:
        self._reader.shown()
        if self.view is not None and self.view.status != "reading" and not self.view.is_live:
            self.exit(True)

    def action_leave(self) -> None:
        """Back to the shell; the run continues."""
        self._reader.stop()
        self.exit(False)

    def action_panel(self, direction: int) -> None:
        """The panel beside the one that is shown."""
        self.query_one(RunPanel).move(direction)

    def action_samples(self) -> None:
        """Group the samples by prompt, to compare steps, or sort them by step."""
        self.query_one(RunPanel).turn_samples()

    def action_plot(self) -> None:
        """The next curve in the large plot."""
        self.query_one(RunPanel).turn_plot()
