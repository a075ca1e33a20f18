"""Setup."""

from textual.app import ComposeResult
from textual.widgets import Static

from qlora_tui.ui.screens.place import Place


class SetupPlace(Place):
    """Setup."""

    NAME = "setup"
    CSS_PATH = "setup.tcss"

    def compose_place(self) -> ComposeResult:
        yield Static("Setup")
