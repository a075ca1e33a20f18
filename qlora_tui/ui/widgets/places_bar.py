"""The bar that names the places, shows where one is and takes one there by a click."""

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.events import Click
from textual.widgets import Static

from qlora_tui.ui.messages import PlaceRequested

PLACES = (
    ("home", "Home", "f2"),
    ("setup", "Setup", "f3"),
    ("run", "Run", "f4"),
    ("runs", "Runs", "f5"),
    ("chat", "Chat", "f6"),
    ("settings", "Settings", "f7"),
)
"""Key in `Workbench.MODES`, title, and the key that leads there."""


class PlacesBar(Horizontal):
    """All places in one line, the present one marked."""

    DEFAULT_CSS = """
    PlacesBar {
        height: 1;
        dock: top;
        background: $panel;
        Static { width: auto; padding: 0 1; color: $text-muted; }
        Static:hover { background: $primary 30%; }
        Static.-here { background: $primary; color: $background; text-style: bold; }
    }
    """

    def __init__(self, here: str) -> None:
        super().__init__()
        self._here = here

    def compose(self) -> ComposeResult:
        for name, title, key in PLACES:
            label = Static(f"{key.upper()} {title}", id=f"place-{name}", classes="-here" if name == self._here else "")
            label.tooltip = f"Go to {title} ({key.upper()})"
            yield label

    def on_click(self, event: Click) -> None:
        widget = event.widget
        if widget is not None and widget.id and widget.id.startswith("place-"):
            self.post_message(PlaceRequested(widget.id.removeprefix("place-")))
