"""The question before something is lost or costs something."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from qlora_tui.terminal import printable


class Confirm(ModalScreen[bool]):
    """Asks, says what will be lost or spent, and focuses the safe answer. True only for a yes.

    Texts are never markup, and what is foreign in them cannot control the terminal.
    """

    DEFAULT_CSS = """
    Confirm {
        align: center middle;
        #confirm-box {
            width: 64; max-width: 94%; height: auto; max-height: 90%;
            padding: 1 2; border: round $warning; background: $surface;
        }
        #confirm-question { text-style: bold; }
        #confirm-loss { margin-top: 1; color: $text-muted; }
        #confirm-answers { height: auto; margin-top: 1; align-horizontal: right; }
        Button { margin-left: 2; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes", id="confirm.yes", tooltip="Do it"),
        Binding("n,escape", "answer(False)", "No", id="confirm.no", tooltip="Change nothing"),
        Binding("left,right", "app.focus_next", "Other answer", show=False, id="confirm.other", tooltip="Other answer"),
    ]

    AUTO_FOCUS = "#no"

    def __init__(self, question: str, loss: str = "", *, yes: str = "Yes", no: str = "No") -> None:
        super().__init__()
        self._question = question
        self._loss = loss
        self._yes = yes
        self._no = no

    def compose(self) -> ComposeResult:
        with Vertical(id="confirm-box"):
            yield Static(printable(self._question), id="confirm-question", markup=False)
            if self._loss:
                yield Static(printable(self._loss), id="confirm-loss", markup=False)
            with Horizontal(id="confirm-answers"):
                yield Button(f"{self._yes} (y)", id="yes", variant="warning")
                yield Button(f"{self._no} (n)", id="no", variant="primary")

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.dismiss(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        """Answer by key."""
        self.dismiss(yes)
