"""What to chat with: the run, one of its checkpoints, and who answers."""

from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.reactive import var
from textual.widgets import Select

from qlora_tui.chat.offers import Offer
from qlora_tui.chat.protocol import Side
from qlora_tui.terminal import printable

SIDES: dict[str, tuple[Side, ...]] = {"adapter": ("adapter",), "base": ("base",), "both": ("base", "adapter")}
_FINISHED = -1
_RUN_HELP = "Runs with an adapter or a checkpoint"
_STEP_HELP = "The finished adapter, or how it was at a checkpoint"


class ChatChoices(Horizontal):
    """Three lists in one line. The first two always show `wanted`; a choice only posts a request."""

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

    offered: var[tuple[Offer, ...]] = var(())
    wanted: var[tuple[str, int | None] | None] = var(None)
    """Run and checkpoint that are loaded, or will be with the first question."""

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

    def __init__(self) -> None:
        super().__init__()
        self._side = "adapter"

    def on_mount(self) -> None:
        self.draw()

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

    def watch_offered(self) -> None:
        self.draw()

    def watch_wanted(self) -> None:
        self.draw()

    def draw(self) -> None:
        """Show `wanted` among what is offered. Call it after a choice that was refused."""
        if not self.is_mounted:
            return
        name, checkpoint = self.wanted or (None, None)
        offer = next((one for one in self.offered if one.run == name), None)
        runs = [(printable(one.run, one_line=True), one.run) for one in self.offered]
        if name is not None and offer is None:
            runs.append((f"{printable(name, one_line=True)} (removed)", name))
        weights = _weights(offer) if offer else []
        step = _FINISHED if checkpoint is None else checkpoint
        if checkpoint is not None and step not in [value for _, value in weights]:
            weights.append((f"checkpoint {checkpoint} (removed)", step))
        self._fill("#chat-run", runs, name)
        self._fill("#chat-checkpoint", weights, step)
        self.query_one("#chat-checkpoint", Select).disabled = len(weights) < 2

    def _fill(self, selector: str, options: list[tuple[str, Any]], value: object) -> None:
        choice = self.query_one(selector, Select)
        with self.prevent(Select.Changed):
            choice.set_options(options)
            choice.value = value if value in [option for _, option in options] else Select.NULL

    def next_side(self) -> None:
        """From the adapter to the base to both."""
        choice = self.query_one("#chat-side", Select)
        names = list(SIDES)
        choice.value = names[(names.index(str(choice.value)) + 1) % len(names)]

    def show_side(self, name: str) -> None:
        """Show which weights answer, if the user did not choose."""
        self._side = name
        with self.prevent(Select.Changed):
            self.query_one("#chat-side", Select).value = name

    @on(Select.Changed, "#chat-run")
    def _run_chosen(self, event: Select.Changed) -> None:
        event.stop()
        if isinstance(event.value, str):
            self.post_message(self.Chosen(event.value, None))

    @on(Select.Changed, "#chat-checkpoint")
    def _checkpoint_chosen(self, event: Select.Changed) -> None:
        event.stop()
        if isinstance(event.value, int) and self.wanted is not None:
            self.post_message(self.Chosen(self.wanted[0], None if event.value == _FINISHED else event.value))

    @on(Select.Changed, "#chat-side")
    def _side_chosen(self, event: Select.Changed) -> None:
        """Post the choice only if the user made it: the list also posts it when it is created."""
        event.stop()
        side = str(self.query_one("#chat-side", Select).value)
        if side != self._side:
            self._side = side
            self.post_message(self.SideChosen(self.sides))


def _weights(offer: Offer) -> list[tuple[str, int]]:
    finished = [("finished adapter", _FINISHED)] if offer.adapter else []
    return [*finished, *((f"checkpoint {step}", step) for step in offer.checkpoints)]
