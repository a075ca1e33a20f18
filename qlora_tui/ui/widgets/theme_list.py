"""The themes: the one under the cursor is shown at once, enter keeps it."""

from collections.abc import Mapping

from textual import on
from textual.content import Content
from textual.events import Blur
from textual.message import Message
from textual.theme import Theme
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from qlora_tui.ui.widgets.vim import VimKeys


class ThemeList(OptionList, VimKeys):
    """Names of themes. Leaving the list without enter goes back to the kept one."""

    HELP = """
### Themes
Move the cursor to preview a theme. **Enter** selects it, **Escape** restores the previous one. Shipped themes and your
own come first, then Textual's. To add a theme, put a TOML file into the themes folder (see Folders); it is reloaded
whenever it is saved.

*okabe* has curve colours for any colour vision, *contrast* has no dimmed text, *terminal* uses the 16 colours of your
terminal.
"""
    DEFAULT_CSS = """
    ThemeList { height: 1fr; min-height: 6; border: round $foreground 25%; border-title-color: $foreground; }
    ThemeList:focus { border: round $border; }
    """

    class Previewed(Message):
        """Posted to show a theme, and to keep it if `keep`."""

        def __init__(self, themes: "ThemeList", theme: str, *, keep: bool) -> None:
            super().__init__()
            self.themes = themes
            self.theme = theme
            self.keep = keep

        @property
        def control(self) -> "ThemeList":
            return self.themes

    def __init__(self, kept: str, **kwargs: str) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self._kept = kept
        self.border_title = "Theme"

    def offer(self, themes: Mapping[str, Theme], kept: str) -> None:
        """Fill the list, ours first, with the cursor on the kept theme."""
        self._kept = kept
        names = sorted(themes, key=lambda name: ("loss" not in themes[name].variables, name))
        self.clear_options()
        self.add_options([Option(self._line(name), id=name) for name in names])
        self.highlighted = names.index(kept) if kept in names else None

    def _line(self, name: str) -> Content:
        return Content(f"{'●' if name == self._kept else ' '} {name}")

    @on(OptionList.OptionHighlighted)
    def _preview(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        if self.has_focus and event.option_id is not None:
            self.post_message(self.Previewed(self, event.option_id, keep=False))

    @on(OptionList.OptionSelected)
    def _keep(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        if event.option_id is not None:
            before, self._kept = self._kept, event.option_id
            for name in (before, self._kept):
                if name in self._id_to_option:
                    self.replace_option_prompt(name, self._line(name))
            self.post_message(self.Previewed(self, self._kept, keep=True))

    def on_blur(self, event: Blur) -> None:
        self.post_message(self.Previewed(self, self._kept, keep=False))
