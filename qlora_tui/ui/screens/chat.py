"""Chat."""

from textual.app import ComposeResult
from textual.widgets import Static

from qlora_tui.ui.screens.place import Place


class ChatPlace(Place):
    """Chat."""

    NAME = "chat"
    CSS_PATH = "chat.tcss"

    def compose_place(self) -> ComposeResult:
        yield Static("Chat")
