"""Choosing one of a run's saved conversations."""

from datetime import datetime
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from qlora_tui.terminal import printable


class TranscriptList(ModalScreen[Path | None]):
    """A list, newest first; None when nothing was chosen."""

    DEFAULT_CSS = """
    TranscriptList {
        align: center middle;
        OptionList { width: 64; max-width: 94%; height: auto; max-height: 80%; border: round $primary; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Back", id="transcripts.back", tooltip="Open none"),
    ]

    def __init__(self, paths: list[Path]) -> None:
        super().__init__()
        self._paths = paths

    def compose(self) -> ComposeResult:
        options = OptionList(*(Option(Content(self._line(path))) for path in self._paths))
        options.border_title = "Saved conversations" if self._paths else "No saved conversations"
        yield options

    @staticmethod
    def _line(path: Path) -> str:
        saved = datetime.fromtimestamp(path.stat().st_mtime)
        return f"{saved:%Y-%m-%d %H:%M}  {printable(path.stem, one_line=True)}"

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._paths[event.option_index])
