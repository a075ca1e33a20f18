"""Where a question is typed: Enter sends it, Ctrl-J begins a new line."""

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.events import Key
from textual.message import Message
from textual.widgets import TextArea


class Prompt(TextArea):
    """A text of several lines that is sent whole."""

    DEFAULT_CSS = """
    Prompt {
        height: auto; min-height: 3; max-height: 10; border: round $foreground 25%; background: $surface;
        &:focus { border: round $primary; }
    }
    """
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

    class Sent(Message):
        """A question was sent."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    async def _on_key(self, event: Key) -> None:
        """Leave to the bindings what is theirs. They come after every letter that was typed before."""
        if event.key in ("enter", "ctrl+j", "shift+enter"):
            event.prevent_default()

    def action_send(self) -> None:
        """Send what was typed, if anything was."""
        if text := self.text.strip():
            self.post_message(self.Sent(text))

    def action_new_line(self) -> None:
        """Begin a new line."""
        self.insert("\n")
