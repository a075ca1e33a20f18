"""The Run place: one run, live or finished, whoever started it, and what can be done to it."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from textual import getters, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.reactive import var
from textual.widgets import Static
from textual.worker import Worker, WorkerState, get_current_worker

from qlora_tui.errors import QloraError
from qlora_tui.runs import control, jobs, store
from qlora_tui.runs.store import RunFolder
from qlora_tui.ui import run_actions
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.curves import Detail
from qlora_tui.ui.key_routing import DIALOG
from qlora_tui.ui.messages import ChatRequested
from qlora_tui.ui.run_reader import RunReader
from qlora_tui.ui.run_view import RunView
from qlora_tui.ui.screens.place import Place
from qlora_tui.ui.widgets.confirm import Confirm
from qlora_tui.ui.widgets.run_panel import PANEL_BINDINGS, RunPanel
from qlora_tui.units import disk

if TYPE_CHECKING:
    from qlora_tui.ui.widgets.resume_options import Length

_NO_RUNS = "There is no run yet. F3 sets one up."


class RunPlace(Place):
    """Shows `Workbench.run_name`; by default the newest run that is training, else the newest run."""

    NAME = "run"
    CSS_PATH = ["../widgets/run_panel.tcss", "run.tcss"]
    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "save", "Save now", id="run.save", tooltip="Write a checkpoint now; the run continues"),
        Binding("t", "stop", "Stop and save", id="run.stop", tooltip="Write a checkpoint and end; it can be resumed"),
        Binding("c", "cancel", "Cancel", id="run.cancel", tooltip="End the run without a checkpoint; asks first"),
        Binding("r", "resume", "Resume", id="run.resume", tooltip="Continue from the newest whole checkpoint"),
        Binding("a", "chat", "Chat", id="run.chat", tooltip="Talk to the adapter of this run"),
        Binding("o", "folder", "Folder", id="run.folder", tooltip="Open the folder of this run"),
        Binding("z", "enlarge", "Enlarge", id="run.enlarge", tooltip="The focused panel alone, and back", show=False),
        *PANEL_BINDINGS,
    ]
    HELP = """## Run

Everything here is read from the run's folder, so it is the same in every window and after a restart. The run
continues when you quit the workbench.

Three training losses are shown. **last** is the loss of the last step, which depends on the rows of that step.
**smoothed** is its exponential average over the last 4 % of the steps: watch this one. **mean** is the mean of all
steps so far. **eval** is the **evaluation loss**.

The time left includes the remaining evaluations, checkpoints and samples, based on their durations in this run.
"""

    app = getters.app(Workbench)
    view: var[RunView | None] = var(None)
    asked: var[str] = var("")
    """What was asked of the worker and not answered yet."""

    class RunAdvanced(Message):
        """There is something new to see of the run. A newer one takes the place of one that waits."""

        def __init__(self, view: RunView, reader: RunReader) -> None:
            super().__init__()
            self.view = view
            self.reader = reader

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, RunPlace.RunAdvanced) and message.reader is self.reader

    class DetailRead(Message):
        """The visible part of a plot was read in detail."""

        def __init__(self, plot: str, detail: Detail, reader: RunReader | None) -> None:
            super().__init__()
            self.plot = plot
            self.detail = detail
            self.reader = reader

    class RunMissing(Message):
        """There is no such run, none at all, or one that cannot be read."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self) -> None:
        super().__init__()
        self._reader: RunReader | None = None

    def compose_place(self) -> ComposeResult:
        yield Static("Reading the runs...", id="run-missing", markup=False)
        yield RunPanel().data_bind(RunPlace.view, RunPlace.asked)

    def on_mount(self) -> None:
        self.watch(self.app, "run_name", self._follow, init=False)
        self.watch(self.app, "starting", self._follow, init=False)

    def on_screen_resume(self) -> None:
        self._follow()

    def on_screen_suspend(self) -> None:
        self._let_go()

    def on_unmount(self) -> None:
        self._let_go()

    def _let_go(self) -> None:
        if self._reader is not None:
            self._reader.stop()
            self._reader = None

    def _follow(self) -> None:
        """Show the wanted run from now on. Nothing is read while another place is on screen."""
        self._let_go()
        if self.is_current and self.app.starting:
            self.post_message(self.RunMissing(self.app.starting))
        elif self.is_current:
            self._read(self.app.run_name)

    @work(thread=True, exclusive=True, group="reader", exit_on_error=False)
    def _read(self, name: str | None) -> None:
        worker = get_current_worker()
        try:
            run = store.find(name) if name else _default_run()
            if run is None:
                self.post_message(self.RunMissing(_NO_RUNS))
                return
            reader = RunReader(run, self.app.settings.refresh_hz, self.app.loads)
            self.app.call_from_thread(self._take, reader)
            if not worker.is_cancelled:
                reader.follow(lambda view: self.post_message(self.RunAdvanced(view, reader)))
        except QloraError as error:
            self.post_message(self.RunMissing(f"{error.message}\n{error.hint}"))

    def _take(self, reader: RunReader) -> None:
        """Be the one who stops the reader, or stop it at once when the place was left in the meantime."""
        self._let_go()
        self._reader = reader
        if not self.is_current or self.app.starting:
            self._let_go()

    @on(RunPanel.DetailRequested)
    @work(thread=True, exclusive=True, group="detail", exit_on_error=False)
    def _read_detail(self, message: RunPanel.DetailRequested) -> None:
        worker, reader = get_current_worker(), self._reader
        found = reader.detail(message.low, message.high, lambda: worker.is_cancelled) if reader else None
        if found is not None:
            self.post_message(self.DetailRead(message.plot, found, reader))

    @on(DetailRead)
    def _show_detail(self, message: DetailRead) -> None:
        if message.reader is self._reader:
            self.query_one(RunPanel).take_detail(message.plot, message.detail)

    @on(RunMissing)
    def _say_missing(self, message: RunMissing) -> None:
        self.view = None
        self.query_one("#run-missing", Static).update(message.text)
        self.remove_class("-attached")

    @on(RunAdvanced)
    def _advance(self, message: RunAdvanced) -> None:
        if message.reader is not self._reader:
            return
        self.add_class("-attached")
        self.view = message.view
        self.call_after_refresh(message.reader.shown)

    def watch_view(self, old: RunView | None, view: RunView | None) -> None:
        if view is None or old is None or (old.name, old.status) != (view.name, view.status):
            self.refresh_bindings()
        if old is None or view is None or old.name != view.name:
            return
        if self.asked:
            self._notice_answer(old, view)
        if view.is_demo and old.is_live and view.status == "finished":
            self.notify(f"{view.name} has finished. F4 shows it again.", markup=False)
            self.action_chat()

    def _notice_answer(self, old: RunView, view: RunView) -> None:
        """Say what came of what was asked."""
        if not view.is_live or view.state.attempt > old.state.attempt:
            self.asked = ""
        elif len(view.state.checkpoints) > len(old.state.checkpoints):
            written = view.state.checkpoints[-1]
            self.notify(f"{written.folder} is written, {disk(written.size_bytes)}.", markup=False)
            self.asked = ""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """What makes no sense for this run now has no key and no place in the footer."""
        view = self.view
        if action in ("save", "stop", "cancel"):
            return view is not None and view.is_live
        if action == "resume":
            return view is not None and (view.can_resume or view.can_be_extended)
        if action == "chat":
            return view is not None and bool(view.state.finished or view.state.checkpoints)
        if action == "folder":
            return view is not None
        return True

    def action_save(self) -> None:
        """Ask for a checkpoint."""
        self._request("save_now", "Asked for a checkpoint.")

    def action_stop(self) -> None:
        """Ask the run to end with a checkpoint."""
        self._request("stop_and_save", "Asked to stop; it writes a checkpoint first.")

    @work(exclusive=True, group=DIALOG)
    async def action_cancel(self) -> None:
        """Ask whether the run is to be thrown away from its last checkpoint on."""
        view = self.view
        if view is None:
            return
        done = f"Steps since its last checkpoint are lost: a resume begins {view.resumes_from}."
        if await self.app.push_screen_wait(
            Confirm(f"Cancel {view.name}?", done, yes="Cancel the run", no="Let it run")
        ):
            self._run_in_thread("Cancelling.", lambda run: jobs.cancel(run, self._say_from_thread))

    @work(exclusive=True, group=DIALOG)
    async def action_resume(self) -> None:
        """Start a worker on this run's folder again; asks first where the way the run ended needs an answer."""
        from qlora_tui.runs.missing import sentence
        from qlora_tui.ui.downloads import missing_downloads
        from qlora_tui.ui.widgets import resume_options

        view = self.view
        if view is None:
            return
        downloads = []
        try:
            if resume_options.may_lack_files(view.state):
                self.asked = "Looking for what would have to be downloaded."
                downloads = await missing_downloads(RunFolder(view.folder).load_config())
            length = await self._length(view) if view.can_be_extended else None
        except QloraError as error:
            self._refused(error)
            return
        self.asked = ""
        given: dict[str, Any] | None = {}  # by the names of `jobs.start`
        options = resume_options.needed(view.state, [sentence(one) for one in downloads])
        if options or length:
            given = await self.app.push_screen_wait(resume_options.ResumeOptions(view.name, options, length))
        if (allowed := given) is not None:
            self._run_in_thread("Starting again.", lambda run: self._start_again(run, allowed))

    async def _length(self, view: RunView) -> "Length":
        """Return the length of the finished run. Raises ConfigError for a damaged run.toml."""
        from qlora_tui.config.fields import value
        from qlora_tui.runs import extension
        from qlora_tui.ui.widgets.resume_options import Length

        run = RunFolder(view.folder)
        config = await asyncio.to_thread(extension.current_config, run, view.state)
        key = "training.epochs" if config.training.max_steps is None else "training.max_steps"
        now = f"{value(config, key):g}"
        return Length(key, now, lambda text: extension.plan(run, view.state, [f"{key}={text}"]))

    def _start_again(self, run: RunFolder, allowed: dict[str, Any]) -> None:
        self.app.release_chat()
        jobs.start(run, **allowed)

    def action_chat(self) -> None:
        """Talk to what was trained."""
        if self.view is not None:
            self.post_message(ChatRequested(self.view.name))

    def action_folder(self) -> None:
        """Show the folder where a desktop is; elsewhere put its path on the clipboard."""
        if self.view is not None and not run_actions.open_folder(self.view.folder):
            self.app.copy_to_clipboard(str(self.view.folder))
            self.notify(f"Path copied: {self.view.folder}", markup=False)

    def action_enlarge(self) -> None:
        """The focused panel alone, and back."""
        self.query_one(RunPanel).enlarge(self.focused)

    def action_panel(self, direction: int) -> None:
        """The panel beside the one that is shown."""
        self.query_one(RunPanel).move(direction)

    def action_samples(self) -> None:
        """Group the samples by prompt, to compare steps, or sort them by step."""
        self.query_one(RunPanel).turn_samples()

    def action_plot(self) -> None:
        """The next curve in the large plot."""
        self.query_one(RunPanel).turn_plot()

    def _request(self, action: control.Action, text: str) -> None:
        def ask(run: RunFolder) -> None:
            worker = get_current_worker()
            run_actions.ask(run, action, self._say_from_thread, lambda: worker.is_cancelled)

        self._run_in_thread(text, ask)

    def _run_in_thread(self, text: str, act: Callable[[RunFolder], object]) -> None:
        if self.view is not None:
            self.asked = text
            self._act(RunFolder(self.view.folder), act)

    @work(thread=True, group="control", exit_on_error=False)
    def _act(self, run: RunFolder, act: Callable[[RunFolder], object]) -> None:
        try:
            act(run)
        except QloraError as error:
            self.app.call_from_thread(self._refused, error)

    def _refused(self, error: QloraError) -> None:
        self.asked = ""
        self.app.complain(error)

    def _say_from_thread(self, text: str) -> None:
        self.app.call_from_thread(setattr, self, "asked", text)

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        error = event.worker.error
        if event.state is WorkerState.ERROR:
            self.app.complain(
                error if isinstance(error, QloraError) else QloraError(f"{type(error).__name__}: {error}")
            )


def _default_run() -> RunFolder | None:
    """Return the newest run that has a worker, else the newest run."""
    runs = store.all_runs()
    return next((run for run in runs if jobs.is_alive(run)), next(iter(runs), None))
