"""The ways in which rows can be read, where several fit: one is chosen."""

import json
from collections.abc import Sequence

from textual import on
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from qlora_tui.terminal import printable
from qlora_tui.ui.messages import ConfigEdited
from qlora_tui.ui.widgets.vim import VimKeys


class ReadingList(OptionList, VimKeys):
    """Out of sight until there is something to choose. Posts ConfigEdited."""

    DEFAULT_CSS = """
    ReadingList { height: auto; display: none; border: none; padding: 0 1; background: $surface; }
    ReadingList.-asked { display: block; }
    """

    def __init__(self) -> None:
        super().__init__(id="data-readings", compact=True, markup=False)
        self._readings: Sequence[dict[str, str]] = ()

    def offer(self, readings: Sequence[dict[str, str]]) -> None:
        """Show these, settings by dotted key each; none: nothing is to be chosen."""
        self._readings = readings
        self.set_options(
            Option(Content(printable("read as: " + ", ".join(f"{key} = {value}" for key, value in one.items()))))
            for one in readings
        )
        self.set_class(bool(readings), "-asked")
        if readings:
            self.highlighted = 0

    @on(OptionList.OptionSelected)
    def _read_as(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        chosen = self._readings[event.option_index]
        self.post_message(ConfigEdited({key: json.dumps(value) for key, value in chosen.items()}))
