"""Asks for a key by having it pressed."""

from textual.app import ComposeResult
from textual.events import Click, Key
from textual.screen import ModalScreen
from textual.widgets import Static


class AskKey(ModalScreen[str | None]):
    """The next key, in Textual's name for it. Escape or a click: None."""

    DEFAULT_CSS = """
    AskKey {
        align: center middle;
        Static { width: 60; max-width: 94%; padding: 1 2; border: round $primary; background: $surface; }
    }
    """

    TAKES_EVERY_KEY = True

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what

    def compose(self) -> ComposeResult:
        yield Static(f"Press the new key for {self._what}.\nEscape changes nothing.", markup=False)

    def on_key(self, event: Key) -> None:
        event.stop()
        event.prevent_default()
        self.dismiss(None if event.key == "escape" else event.key)

    def on_click(self, event: Click) -> None:
        event.stop()
        self.dismiss(None)
