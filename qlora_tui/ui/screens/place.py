"""What every place has: the bar of places above, the keys below, and breakpoints for narrow and short terminals."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.screen import Screen
from textual.widgets import Footer

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

    def compose(self) -> ComposeResult:
        yield PlacesBar(self.NAME)
        yield from self.compose_place()
        yield Footer(show_command_palette=False)

    def compose_place(self) -> ComposeResult:
        """The content between the bar and the footer."""
        yield from ()
