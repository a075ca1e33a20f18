"""The one thing that is obvious to do next."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import Button, Static

from qlora_tui.terminal import printable

if TYPE_CHECKING:
    from qlora_tui.runs.shelf import Glimpse

Kind = Literal["demo", "watch", "chat", "resume", "setup"]


@dataclass(frozen=True, slots=True)
class Step:
    """What to do, in the words of a button and a sentence of reason."""

    kind: Kind
    verb: str
    reason: str
    run: str | None = None


def next_step(glimpses: "tuple[Glimpse, ...]") -> Step:
    """Return the suggested next step for these runs, newest first."""
    for glimpse in glimpses:
        if glimpse.live:
            return Step("watch", "Watch it train", f"{glimpse.name} is {glimpse.status}.", glimpse.name)
    if not glimpses:
        reason = (
            "Welcome. Fine-tune the bundled starter model in 4-bit and talk to it: about two minutes, on any computer,"
            " without a download or an account."
        )
        return Step("demo", "Start the starter demo", reason)
    newest = glimpses[0]
    if newest.status == "finished":
        return Step("chat", "Talk to it", f"{newest.name} has finished.", newest.name)
    if newest.status in ("stopped", "crashed"):
        return Step("resume", "Look at it", f"{newest.name} has {newest.status} and can go on.", newest.name)
    return Step("setup", "Set up a run", "Pick a model and data, and see whether it fits before you start.")


class NextStep(Vertical):
    """A sentence and a button."""

    HELP = """
### What to do next
Follows from your runs: the first time the starter demo, then watching what trains, talking to what has finished.
"""
    DEFAULT_CSS = """
    NextStep {
        height: auto; padding: 0 1; border: round $primary;
        Static { height: auto; }
        Button { width: auto; min-width: 24; margin-top: 1; }
    }
    """

    class Chosen(Message):
        """Somebody takes the step."""

        def __init__(self, step: Step) -> None:
            super().__init__()
            self.step = step

    step: reactive[Step | None] = reactive(None)
    starting: reactive[bool] = reactive(False)

    def __init__(self) -> None:
        super().__init__()
        self.border_title = "Next"

    def compose(self) -> ComposeResult:
        yield Static("reading your runs...", markup=False)
        yield Button("", id="next", variant="primary", compact=True)

    def on_mount(self) -> None:
        self._show()

    def watch_step(self) -> None:
        """Another step."""
        self._show()

    def watch_starting(self) -> None:
        """A run is being started, or no longer."""
        self._show()

    def _show(self) -> None:
        if not self.children:
            return
        button = self.query_one(Button)
        button.display = self.step is not None
        button.disabled = self.starting
        if self.step is not None:
            self.query_one(Static).update("Starting..." if self.starting else printable(self.step.reason))
            button.label = f" {self.step.verb} (enter) "

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.take()

    def take(self) -> None:
        """Take the step, as the button does."""
        if self.step is not None and not self.starting:
            self.post_message(self.Chosen(self.step))
