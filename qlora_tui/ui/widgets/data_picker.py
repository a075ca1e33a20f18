"""Choosing data: a line for a name, a path or a hub id, and what it could be: known sets, files, folders."""

from collections.abc import Sequence

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from qlora_tui.data.choices import DataChoice
from qlora_tui.terminal import printable


class DataPicker(Vertical):
    """Shows choices and posts the one that is taken."""

    DEFAULT_CSS = """
    DataPicker {
        height: auto;
        #data-source { width: 1fr; }
        #data-choices { height: auto; max-height: 7; border: none; background: $surface; padding: 0;
            text-wrap: nowrap; text-overflow: ellipsis; }
        #data-choices:focus { border: none; background: $surface; }
    }
    """

    class Typed(Message):
        """Other choices are to be shown."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Taken(Message):
        """This source is to be trained on."""

        def __init__(self, source: str) -> None:
            super().__init__()
            self.source = source

    def __init__(self) -> None:
        super().__init__()
        self._choices: list[DataChoice] = []
        self._source = ""

    def compose(self) -> ComposeResult:
        field = Input(placeholder="a known set, a file or folder, or a hub id", id="data-source", compact=True)
        field.tooltip = "Enter takes what is typed"
        yield field
        yield OptionList(id="data-choices", compact=True, markup=False)

    def show(self, choices: Sequence[DataChoice], chosen: str) -> None:
        """Show these choices, the chosen one marked."""
        self._choices = list(choices)
        options = self.query_one(OptionList)
        at = options.highlighted
        options.set_options(Option(_line(choice, choice.source == chosen)) for choice in self._choices)
        sources = [choice.source for choice in self._choices]
        options.highlighted = sources.index(chosen) if chosen in sources and not options.has_focus else at

    def show_source(self, source: str) -> None:
        """Show the draft's source in the input, unless the user is typing."""
        self._source = source
        field = self.query_one(Input)
        if not field.has_focus and field.value != source:
            with field.prevent(Input.Changed):
                field.value = printable(source, one_line=True)

    @property
    def unfinished(self) -> str:
        """Typed text that was not applied; empty if there is none."""
        field = self.query_one(Input)
        return (
            field.value.strip()
            if field.has_focus and field.value.strip() != printable(self._source, one_line=True)
            else ""
        )

    @on(Input.Blurred)
    def _left(self, event: Input.Blurred) -> None:
        """Discard text that was not applied: the input shows the source that will be used."""
        event.stop()
        self.show_source(self._source)

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(self.Typed(event.value))

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if event.value.strip():
            self.post_message(self.Taken(event.value.strip()))

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        choice = self._choices[event.option_index]
        field = self.query_one(Input)
        if choice.is_folder:
            field.value = choice.source
            return
        with field.prevent(Input.Changed):
            field.value = choice.source
        self.post_message(self.Taken(choice.source))


def _line(choice: DataChoice, chosen: bool) -> Content:
    name = printable(choice.source, one_line=True)
    return Content.assemble(
        "● " if chosen else "  ",
        (f"{name:<24} ", "bold"),
        printable(choice.title, one_line=True),
        f"  {choice.rows}  {choice.license}",
    )
