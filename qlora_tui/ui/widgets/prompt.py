"""Where a question is typed: Enter sends it, Ctrl-J begins a new line."""

from textual.events import Key
from textual.message import Message
from textual.widgets import TextArea


class Prompt(TextArea):
    """A text of several lines that is sent whole."""

    DEFAULT_CSS = """
    Prompt {
        height: auto; min-height: 3; max-height: 10; border: round $panel-lighten-2; background: $surface;
        &:focus { border: round $primary; }
    }
    """
    HELP = """
## Question

Type and press **Enter** to send; **Ctrl+J** begins a new line.
"""

    class Sent(Message):
        """A question was sent."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    async def _on_key(self, event: Key) -> None:
        if event.key == "enter":
            event.stop()
            event.prevent_default()
            if text := self.text.strip():
                self.post_message(self.Sent(text))
        elif event.key in ("ctrl+j", "shift+enter"):
            event.stop()
            event.prevent_default()
            self.insert("\n")
        else:
            await super()._on_key(event)
