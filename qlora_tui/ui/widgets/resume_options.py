"""The question before a run is resumed that cannot go on as it was: one tick for each thing to agree to."""

from typing import ClassVar, NamedTuple

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Checkbox, Static

from qlora_tui.errors import ExitCode
from qlora_tui.runs.state import RunState
from qlora_tui.terminal import printable


class Option(NamedTuple):
    """A permission of `jobs.start`, its name there, and what it means here."""

    name: str
    label: str
    about: str
    """Foreign text: what the worker or the download says of itself."""
    ticked: bool


def needed(state: RunState, downloads: list[str]) -> list[Option]:
    """What the way this run ended asks for. `downloads` are sentences about what is missing."""
    found = []
    if downloads:
        found.append(Option("allow_download", "Download this", "\n".join(downloads), ticked=False))
    failed = state.failed
    if failed is not None and failed.exit_code == ExitCode.DATA and "--accept-changed-data" in failed.hint:
        found.append(Option("accept_changed_data", "Go on with the changed rows", failed.message, ticked=False))
    if failed is not None and failed.exit_code == ExitCode.OUT_OF_MEMORY:
        label = "Train in smaller pieces when memory runs out again"
        about = f"{failed.message}. Half the micro batch with twice the accumulation keeps the effective batch."
        found.append(Option("replan_on_oom", label, about, ticked=True))
    return found


def may_lack_files(state: RunState) -> bool:
    """Whether something may have to be downloaded: it has never trained, or it failed over its model or data."""
    if state.failed is not None:
        return state.failed.exit_code in (ExitCode.MODEL, ExitCode.DATA, ExitCode.NOT_FOUND)
    return state.steps.last is None


class ResumeOptions(ModalScreen[dict[str, bool] | None]):
    """The permissions that were given, by name; None for not now."""

    DEFAULT_CSS = """
    ResumeOptions {
        align: center middle;
        #resume-box {
            width: 72; max-width: 94%; height: auto; max-height: 90%;
            padding: 1 2; border: round $primary; background: $surface;
        }
        #resume-question { text-style: bold; }
        Checkbox { margin-top: 1; width: 1fr; }
        .resume-about { margin-left: 4; color: $text-muted; }
        #resume-answers { height: auto; margin-top: 1; align-horizontal: right; }
        Button { margin-left: 2; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Resume", id="resume.yes", tooltip="Resume with what is ticked"),
        Binding("n,escape", "answer(False)", "Not now", id="resume.no", tooltip="Leave the run as it is"),
    ]
    AUTO_FOCUS = "Checkbox"

    def __init__(self, name: str, options: list[Option]) -> None:
        super().__init__()
        self._run = name
        self._options = options

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="resume-box", can_focus=False):
            yield Static(f"Resume {self._run}?", id="resume-question", markup=False)
            for option in self._options:
                yield Checkbox(option.label, option.ticked, id=option.name, compact=True)
                yield Static(printable(option.about), classes="resume-about", markup=False)
            with Horizontal(id="resume-answers"):
                yield Button("Resume (y)", id="yes", variant="primary")
                yield Button("Not now (n)", id="no")

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.action_answer(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        """Answer by key."""
        self.dismiss({str(box.id): box.value for box in self.query(Checkbox)} if yes else None)
