"""Run."""

from textual.app import ComposeResult
from textual.widgets import Static

from qlora_tui.ui.screens.place import Place


class RunPlace(Place):
    """Run."""

    NAME = "run"
    CSS_PATH = "run.tcss"

    def compose_place(self) -> ComposeResult:
        yield Static("Run")
