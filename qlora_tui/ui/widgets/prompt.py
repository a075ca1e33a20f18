"""Where a question is typed: Enter sends it, Ctrl-J begins a new line."""

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.events import Key
from textual.message import Message
from textual.widgets import TextArea

from qlora_tui.terminal import printable


class Prompt(TextArea):
    """A text of several lines that is sent whole."""

    DEFAULT_CSS = """
    Prompt {
        height: auto; min-height: 3; max-height: 10; border: round $foreground 25%; background: $surface;
        &:focus { border: round $primary; }
    }
    """
    PLACEHOLDER: ClassVar[str] = "Ask something. Enter sends, Ctrl-J begins a new line."
    HELP = """
## Question

Type and press **Enter** to send; **Ctrl+J** begins a new line.
"""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "Send", id="prompt.send", tooltip="Ask this"),
        Binding(
            "ctrl+j,shift+enter", "new_line", "New line", id="prompt.new-line", tooltip="Begin a new line",
            show=False,
        ),
    ]  # fmt: skip

    suggestion: str = ""
    """Question that Enter sends if nothing is typed."""

    class Sent(Message):
        """A question was sent."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def suggest(self, question: str) -> None:
        """Suggest a question, or none."""
        self.suggestion = question
        offered = f"Press Enter to ask: {printable(question, one_line=True)}"
        self.placeholder = offered if question else self.PLACEHOLDER

    async def _on_key(self, event: Key) -> None:
        """Leave to the bindings what is theirs. They come after every letter that was typed before."""
        if event.key in ("enter", "ctrl+j", "shift+enter"):
            event.prevent_default()

    def action_send(self) -> None:
        """Send the typed text, or else the suggested question."""
        if text := self.text.strip() or self.suggestion:
            self.post_message(self.Sent(text))

    def action_new_line(self) -> None:
        """Begin a new line."""
        self.insert("\n")
