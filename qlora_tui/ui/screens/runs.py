"""Runs."""

from textual.app import ComposeResult
from textual.widgets import Static

from qlora_tui.ui.screens.place import Place


class RunsPlace(Place):
    """Runs."""

    NAME = "runs"
    CSS_PATH = "runs.tcss"

    def compose_place(self) -> ComposeResult:
        yield Static("Runs")
