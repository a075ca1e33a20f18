"""The glossary over the present place: terms on the left, their meaning on the right."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from qlora_tui.ui import glossary
from qlora_tui.ui.widgets.vim import VimKeys


class Terms(OptionList, VimKeys):
    """The terms that match what was typed."""


class Glossary(ModalScreen[None]):
    """All terms, those of the focused field or panel first. Type to filter the list; use the arrow keys to move."""

    CSS_PATH = "glossary.tcss"
    AUTO_FOCUS = "#term-filter"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Back", id="glossary.leave", tooltip="Close the glossary"),
        Binding("slash", "filter", "Filter", id="glossary.filter", tooltip="Find a term by its letters"),
        *(
            Binding(key, f"move('{action}')", description, id=f"glossary.{key}", tooltip=description, show=False)
            for key, action, description in (
                ("up", "cursor_up", "Previous term"),
                ("down", "cursor_down", "Next term"),
                ("pageup", "page_up", "Previous page of terms"),
                ("pagedown", "page_down", "Next page of terms"),
            )
        ),
    ]

    def __init__(self, near: tuple[glossary.Entry, ...] = (), term: str = "") -> None:
        super().__init__()
        self._term = term
        self._entries = tuple(dict.fromkeys((*near, *glossary.entries())))

    def compose(self) -> ComposeResult:
        with Vertical(id="glossary-box") as box:
            box.border_title = "Glossary"
            yield Input(placeholder="Type to find a term; up and down move the cursor", id="term-filter")
            with Horizontal():
                yield Terms(id="terms")
                yield Static(id="meaning", markup=False)

    def on_mount(self) -> None:
        self._list("")
        terms = self.query_one(Terms)
        if self._term in terms._id_to_option:
            terms.highlighted = terms.get_option_index(self._term)

    def _list(self, letters: str) -> None:
        terms = self.query_one(Terms)
        terms.clear_options()
        found = [entry for entry in self._entries if letters.lower() in f"{entry.term} {entry.also}".lower()]
        terms.add_options([Option(Content(entry.term), id=entry.term) for entry in found])
        terms.highlighted = 0 if found else None
        if not found:
            self.query_one("#meaning", Static).update("No such term.")

    @on(Input.Changed, "#term-filter")
    def _filter(self, event: Input.Changed) -> None:
        self._list(event.value)

    @on(Input.Submitted, "#term-filter")
    def _filtered(self) -> None:
        self.query_one(Terms).focus()

    @on(OptionList.OptionHighlighted)
    def _show(self, event: OptionList.OptionHighlighted) -> None:
        entry = next(entry for entry in self._entries if entry.term == event.option_id)
        spellings = f"\n\nAlso: {', '.join(entry.also)}" if entry.also else ""
        settings = f"\n\nSettings: {', '.join(entry.keys)}" if entry.keys else ""
        self.query_one("#meaning", Static).update(f"{entry.term}\n\n{entry.text}{spellings}{settings}")

    def action_leave(self) -> None:
        """Close."""
        self.dismiss()

    def action_filter(self) -> None:
        """Type a filter."""
        self.set_focus(self.query_one("#term-filter"))

    def action_move(self, action: str) -> None:
        """Move in the list."""
        getattr(self.query_one(Terms), f"action_{action}")()
