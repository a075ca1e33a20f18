"""What to chat with: the run, one of its checkpoints, and who answers."""

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Select

from qlora_tui.chat.protocol import Side
from qlora_tui.runs import checkpoints, store
from qlora_tui.runs.checkpoints import CheckpointFolder
from qlora_tui.runs.store import RunFolder
from qlora_tui.terminal import printable

SIDES: dict[str, tuple[Side, ...]] = {"adapter": ("adapter",), "base": ("base",), "both": ("base", "adapter")}
_FINISHED = -1
_RUN_HELP = "Runs with an adapter or a checkpoint"
_STEP_HELP = "The finished adapter, or how it was at a checkpoint"


class ChatChoices(Horizontal):
    """Three lists in one line."""

    HELP = """
## What to chat with

A run that has an adapter, or one of its checkpoints. **both** asks the base and the trained model, one after the other.
"""
    DEFAULT_CSS = """
    ChatChoices {
        height: 1; Select { width: 1fr; margin: 0 1; } #chat-side { width: 16; }
        Select:focus-within { background: $primary 25%; }
    }
    """

    class Chosen(Message):
        """Chat with this run; with this checkpoint of it, or with what it has."""

        def __init__(self, run: str, checkpoint: int | None) -> None:
            super().__init__()
            self.run = run
            self.checkpoint = checkpoint

    class SideChosen(Message):
        """These answer from now on."""

        def __init__(self, sides: tuple[Side, ...]) -> None:
            super().__init__()
            self.sides = sides

    def compose(self) -> ComposeResult:
        yield Select[str]([], prompt="choose a run", id="chat-run", tooltip=_RUN_HELP, compact=True)
        yield Select[int]([], prompt="adapter", id="chat-checkpoint", tooltip=_STEP_HELP, disabled=True, compact=True)
        sides = [(name, name) for name in SIDES]
        yield Select[str](
            sides, value="adapter", allow_blank=False, id="chat-side", tooltip="Who answers (Ctrl-B)", compact=True
        )

    @property
    def sides(self) -> tuple[Side, ...]:
        """Who is chosen to answer."""
        return SIDES[str(self.query_one("#chat-side", Select).value)]

    def offer(self, present: str | None) -> str | None:
        """List the runs there are, `present` or else the newest one chosen; the name of the chosen one."""
        names = [run.name for run in store.all_runs() if run.adapter.is_dir() or written_checkpoints(run)]
        choice = self.query_one("#chat-run", Select)
        with self.prevent(Select.Changed):
            choice.set_options([(printable(name), name) for name in names])
            chosen = present if present in names else next(iter(names), None)
            if chosen is not None:
                choice.value = chosen
        return chosen

    def show(self, name: str, checkpoint: int | None) -> None:
        """Show this run and checkpoint as chosen. Raises NotFoundError when the run is gone."""
        run = store.find(name)
        found = [(f"checkpoint {item.step}", item.step) for item in written_checkpoints(run)]
        first = [("finished adapter", _FINISHED)] if run.adapter.is_dir() else []
        steps = self.query_one("#chat-checkpoint", Select)
        with self.prevent(Select.Changed):
            steps.set_options([*first, *found])
            steps.disabled = not found
            if offered := [step for _, step in (*first, *found)]:
                steps.value = checkpoint if checkpoint in offered else offered[0]

    def next_side(self) -> None:
        """From the adapter to the base to both."""
        choice = self.query_one("#chat-side", Select)
        names = list(SIDES)
        choice.value = names[(names.index(str(choice.value)) + 1) % len(names)]

    def only_adapter(self) -> None:
        """Back to the trained model, because there is no base."""
        with self.prevent(Select.Changed):
            self.query_one("#chat-side", Select).value = "adapter"

    @on(Select.Changed, "#chat-run")
    def _run_chosen(self, event: Select.Changed) -> None:
        event.stop()
        if isinstance(event.value, str):
            self.post_message(self.Chosen(event.value, None))

    @on(Select.Changed, "#chat-checkpoint")
    def _checkpoint_chosen(self, event: Select.Changed) -> None:
        event.stop()
        name = self.query_one("#chat-run", Select).value
        if isinstance(event.value, int) and isinstance(name, str):
            self.post_message(self.Chosen(name, None if event.value == _FINISHED else event.value))

    @on(Select.Changed, "#chat-side")
    def _side_chosen(self, event: Select.Changed) -> None:
        event.stop()
        self.post_message(self.SideChosen(self.sides))


def only_checkpoint(name: str) -> int | None:
    """Step of the newest checkpoint of a run that has no finished adapter. Raises NotFoundError."""
    run = store.find(name)
    found = written_checkpoints(run)
    return found[0].step if found and not run.adapter.is_dir() else None


def written_checkpoints(run: RunFolder) -> list[CheckpointFolder]:
    """The run's checkpoints that were written to the end, the newest first."""
    return [one for one in checkpoints.all_checkpoints(run.checkpoints) if (one.path / checkpoints.MARKER).is_file()]
