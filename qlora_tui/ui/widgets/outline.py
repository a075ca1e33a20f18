"""The sections of Setup as lines that can be chosen: a title and what is set there. In a narrow terminal, tabs."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.events import Click
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import Static

from qlora_tui.terminal import printable

SECTIONS = (
    ("model", "Model", "m"),
    ("adapter", "Adapter", "a"),
    ("data", "Data", "d"),
    ("training", "Training", "t"),
)
"""Id, title and key of each section, in the order in which they are read."""


class OutlineEntry(Static, can_focus=True):
    """One section: chosen by enter or a click."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "enter,space",
            "choose",
            "Open",
            id="setup.open-section",
            tooltip="Show this section of the setup",
            show=False,
        ),
    ]

    summary: reactive[str] = reactive("")

    def __init__(self, name: str, title: str, key: str) -> None:
        super().__init__(id=f"outline-{name}")
        self.section = name
        self.title = title
        self._key = key
        self.tooltip = f"{title} ({key})"

    def render(self) -> Content:
        title = Content.assemble((self._key, "underline"), " ", (self.title, "bold"))
        if "-narrow" in self.screen.classes:
            return title
        summary = Content(f"  {printable(self.summary, one_line=True)}")
        return Content.assemble(
            "▾ " if self.has_class("-open") else "▸ ", title.pad_right(9 - len(self.title)), summary
        )

    def action_choose(self) -> None:
        self.post_message(Outline.Chosen(self.section))

    def on_click(self, event: Click) -> None:
        event.stop()
        self.action_choose()


class Outline(Vertical):
    """All sections, the open one marked."""

    DEFAULT_CSS = """
    Outline {
        height: auto;
        OutlineEntry { height: 1; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
        OutlineEntry:hover { background: $primary 15%; }
        OutlineEntry.-open { color: $primary; background: $surface; }
        OutlineEntry:focus { background: $primary; color: $background; }
        OutlineEntry.-trouble { color: $text-error; }
    }
    """

    class Chosen(Message):
        """A section is to be shown."""

        def __init__(self, section: str) -> None:
            super().__init__()
            self.section = section

    def compose(self) -> ComposeResult:
        for name, title, key in SECTIONS:
            yield OutlineEntry(name, title, key)

    def show(self, section: str, summaries: dict[str, str], trouble: set[str]) -> None:
        """Mark the open section and those with a mistake, and say what is set in each."""
        for entry in self.query(OutlineEntry):
            entry.set_class(entry.section == section, "-open")
            entry.set_class(entry.section in trouble, "-trouble")
            entry.summary = summaries.get(entry.section, "")
            entry.refresh()
