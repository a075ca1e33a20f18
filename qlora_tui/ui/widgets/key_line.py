"""The last line of a place: the keys that matter now, as many as fit, and always the way to all the others."""

from textual.app import ComposeResult
from textual.events import Resize
from textual.screen import Screen
from textual.widgets import Footer, Static
from textual.widgets._footer import FooterKey

_PINNED = ("command_palette", "help")
"""Actions that are always there, on the right: by them everything else is found, by key and by mouse."""

_PADDING = 3
"""Columns of a key besides its name and its description."""


class KeyLine(Footer):
    """A footer that cuts no key in two."""

    DEFAULT_CSS = "KeyLine .rest { width: 1fr; }"

    def __init__(self) -> None:
        super().__init__(show_command_palette=False)
        self._columns = 0
        self._shown: list[tuple[str, str, bool]] = []

    def compose(self) -> ComposeResult:
        keys = [widget for widget in super().compose() if isinstance(widget, FooterKey)]
        pinned = [key for action in _PINNED for key in keys if key.action == action]
        room = (self.size.width or self.app.size.width) - sum(map(_columns, pinned))
        for key in keys:
            if key not in pinned:
                room -= _columns(key)
                if room < 0:
                    break
                yield key
        yield Static(classes="rest")
        yield from pinned

    def bindings_changed(self, screen: Screen[object]) -> None:
        """Draw the keys anew where they are others; a move of the focus rarely makes them so."""
        if not (screen.app.app_focus and self.is_attached and screen is self.screen):
            return
        shown = [(one.key, one.description, on) for _, one, on, _ in screen.active_bindings.values() if one.show]
        if shown != self._shown:
            self._shown = shown
            super().bindings_changed(screen)

    async def on_resize(self, event: Resize) -> None:
        before, self._columns = self._columns, event.size.width
        if before not in (0, self._columns):
            await self.recompose()


def _columns(key: FooterKey) -> int:
    return len(key.key_display) + len(key.description) + _PADDING
