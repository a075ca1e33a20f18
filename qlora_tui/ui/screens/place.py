"""What every place has: the bar of places above, the keys below, and breakpoints for narrow and short terminals."""

import gc
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.events import DescendantFocus
from textual.screen import Screen

from qlora_tui.ui.widgets.key_line import KeyLine
from qlora_tui.ui.widgets.places_bar import PlacesBar


class Place(Screen[None]):
    """One of the few screens people live in. Subclasses compose their content in `compose_place`.

    The screen carries `-narrow` below 120 columns, `-medium` from 120, `-wide` from 160; `-short` below 35 rows.
    """

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-medium"), (160, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-short"), (35, "-tall")]
    BINDINGS: ClassVar[list[BindingType]] = []
    NAME: ClassVar[str] = ""
    """Key of the place in `Workbench.MODES`."""

    def on_mount(self) -> None:
        # What is there now lives as long as the app does. To go through all of it, again and again, as the garbage
        # collector would, holds up a key for ten times as long as a drawing does.
        self.call_after_refresh(gc.freeze)

    @on(DescendantFocus)
    def _look_at_focus(self) -> None:
        self.call_after_refresh(self._leave_hidden_focus)

    def _leave_hidden_focus(self) -> None:
        """Hidden editors do not receive text."""
        focused = self.focused
        if focused is None or not focused.check_consume_key("a", "a"):
            return
        if not all(node.display for node in focused.ancestors_with_self):
            self.set_focus(None)
            self.focus_next()

    def compose(self) -> ComposeResult:
        yield PlacesBar(self.NAME)
        yield from self.compose_place()
        yield KeyLine()

    def compose_place(self) -> ComposeResult:
        """The content between the bar and the footer."""
        yield from ()
