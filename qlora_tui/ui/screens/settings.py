"""Settings."""

from textual.app import ComposeResult
from textual.widgets import Static

from qlora_tui.ui.screens.place import Place


class SettingsPlace(Place):
    """Settings."""

    NAME = "settings"
    CSS_PATH = "settings.tcss"

    def compose_place(self) -> ComposeResult:
        yield Static("Settings")
