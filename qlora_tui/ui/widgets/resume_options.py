"""Dialog before resuming a run that needs confirmation: permissions and the new length."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Checkbox, Input, Static

from qlora_tui.errors import ExitCode, QloraError
from qlora_tui.runs.extension import Extension
from qlora_tui.runs.state import RunState
from qlora_tui.terminal import printable


class Option(NamedTuple):
    """A permission of `jobs.start`, its name there, and what it means here."""

    name: str
    label: str
    about: str
    """Foreign text: what the worker or the download says of itself."""
    ticked: bool


class Length(NamedTuple):
    """Current length of a finished run that can be extended."""

    key: str
    """The setting that sets the length: training.epochs or training.max_steps."""
    now: str
    plan: Callable[[str], Extension]
    """Returns the effect of another value. Blocking; raises QloraError for an invalid value."""


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


class ResumeOptions(ModalScreen[dict[str, Any] | None]):
    """Options of `jobs.start` by name: permissions, and the settings of a longer run; None for not now."""

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
        #resume-length { height: 1; margin-top: 1; }
        #resume-length Static { width: auto; margin-right: 1; }
        #resume-length Input { width: 16; }
        #resume-consequence { margin-top: 1; color: $text-muted; }
        &.-refused #resume-consequence { color: $text-error; }
        #resume-answers { height: auto; margin-top: 1; align-horizontal: right; }
        Button { margin-left: 2; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Resume", id="resume.yes", tooltip="Resume with what is ticked"),
        Binding("n,escape", "answer(False)", "Not now", id="resume.no", tooltip="Leave the run as it is"),
    ]
    AUTO_FOCUS = "Input, Checkbox"

    def __init__(self, name: str, options: list[Option], length: Length | None = None) -> None:
        super().__init__()
        self._run = name
        self._options = options
        self._length = length

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="resume-box", can_focus=False):
            question = f"Resume {self._run}?" if self._length is None else f"Train {self._run} further?"
            yield Static(question, id="resume-question", markup=False)
            if self._length is not None:
                with Horizontal(id="resume-length"):
                    yield Static(f"{self._length.key}, now {self._length.now}:")
                    yield Input(placeholder="new total", id="new-length", compact=True, type="number")
                yield Static(_enter_total(self._length), id="resume-consequence", markup=False)
            for option in self._options:
                yield Checkbox(option.label, option.ticked, id=option.name, compact=True)
                yield Static(printable(option.about), classes="resume-about", markup=False)
            with Horizontal(id="resume-answers"):
                # A letter typed into the field is no answer.
                yes, no = ("y", "n") if self._length is None else ("enter", "escape")
                yield Button(f"Resume ({yes})", id="yes", variant="primary")
                yield Button(f"Not now ({no})", id="no")

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.action_answer(event.button.id == "yes")

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self._weigh(event.value, answers=False)

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._weigh(event.value, answers=True)

    @work(thread=True, exclusive=True, group="length", exit_on_error=False)
    def _weigh(self, text: str, *, answers: bool) -> None:
        """Show the effect of the typed length, and accept it if it is valid."""
        assert self._length is not None
        if not text.strip():
            self.app.call_from_thread(self._say, _enter_total(self._length), refused=answers)
            return
        try:
            extension = self._length.plan(text)
        except QloraError as error:
            self.app.call_from_thread(self._say, f"{error.message}\n{error.hint}", refused=True)
        else:
            self.app.call_from_thread(self._say, extension.consequence, refused=False)
            if answers:
                self.app.call_from_thread(self._resume, extension.settings)

    def _say(self, text: str, *, refused: bool) -> None:
        self.set_class(refused, "-refused")
        self.query_one("#resume-consequence", Static).update(printable(text))

    def _resume(self, settings: tuple[str, ...] = ()) -> None:
        given: dict[str, Any] = {str(box.id): box.value for box in self.query(Checkbox)}
        self.dismiss(given | {"settings": settings} if settings else given)

    def action_answer(self, yes: bool) -> None:
        """Answer by key."""
        if not yes:
            self.dismiss(None)
        elif self._length is None:
            self._resume()
        else:
            self._weigh(self.query_one(Input).value, answers=True)


def _enter_total(length: Length) -> str:
    return f"Enter the new total, more than {length.now}. What is trained already counts towards it."
