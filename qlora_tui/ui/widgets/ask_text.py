"""A question that is answered by one line of text."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static


class AskText(ModalScreen[str | None]):
    """Enter answers with the text, escape with None."""

    DEFAULT_CSS = """
    AskText {
        align: center middle;
        #ask-box {
            width: 64; max-width: 94%; height: auto; padding: 1 2; border: round $primary; background: $surface;
        }
        #ask-hint { color: $text-muted; margin-top: 1; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Back", id="ask.leave", tooltip="Change nothing"),
    ]

    def __init__(self, question: str, text: str = "", hint: str = "") -> None:
        super().__init__()
        self._question = question
        self._text = text
        self._hint = hint

    def compose(self) -> ComposeResult:
        with Vertical(id="ask-box"):
            yield Static(self._question, markup=False)
            yield Input(self._text, id="ask-text", compact=True)
            yield Static(f"{self._hint}  enter: done, escape: back".strip(), id="ask-hint", markup=False)

    @on(Input.Submitted)
    def _answered(self, event: Input.Submitted) -> None:
        event.stop()
        self.dismiss(event.value)

    def action_leave(self) -> None:
        """Answer nothing."""
        self.dismiss(None)
