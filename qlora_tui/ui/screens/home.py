"""Home."""

from textual.app import ComposeResult
from textual.widgets import Static

from qlora_tui.ui.screens.place import Place


class HomePlace(Place):
    """Home."""

    NAME = "home"
    CSS_PATH = "home.tcss"

    def compose_place(self) -> ComposeResult:
        yield Static("Home")
