"""The theme list over the current place: previews the theme under the cursor; Enter keeps it, Escape restores."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from qlora_tui.ui.widgets.theme_list import ThemeList


class ChooseTheme(ModalScreen[None]):
    """The app applies the theme, and closes this screen when a theme is kept."""

    DEFAULT_CSS = """
    ChooseTheme {
        align: right middle;
        ThemeList { width: 30; height: 20; max-height: 90%; margin: 0 2; background: $surface; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Back", id="theme.leave", tooltip="Restore the previous theme"),
    ]

    def __init__(self, kept: str) -> None:
        super().__init__(classes="-see-through")
        self._kept = kept

    def compose(self) -> ComposeResult:
        themes = ThemeList(self._kept)
        themes.border_subtitle = "Enter selects, Escape restores"
        yield themes

    def on_mount(self) -> None:
        self.query_one(ThemeList).offer(self.app.available_themes, self._kept)
