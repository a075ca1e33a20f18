"""The manual over the current place: pages on the left, the chosen page on the right."""

from pathlib import PurePath
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Markdown, OptionList
from textual.widgets.option_list import Option

from qlora_tui import manual
from qlora_tui.ui.widgets.vim import VimKeys


class Pages(OptionList, VimKeys):
    """Names of the pages."""

    HELP = "## Manual\n\nChoose a page with the arrow keys. Press Tab to scroll its text, and Escape to close it."


class PageText(VerticalScroll, VimKeys):
    """The text of the chosen page."""

    HELP = Pages.HELP


class Manual(ModalScreen[None]):
    """All pages of the manual. A link to another page opens it here."""

    CSS_PATH = "manual.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Back", id="manual.leave", tooltip="Close the manual"),
    ]

    def __init__(self, page: str = manual.ORDER[0]) -> None:
        super().__init__()
        self._first = page

    def compose(self) -> ComposeResult:
        with Horizontal(id="manual-box") as box:
            box.border_title = "Manual"
            box.border_subtitle = "Enter scrolls the page, Escape closes"
            yield Pages(*(Option(name, id=name) for name in manual.ORDER), id="pages")
            with PageText(id="page-text"):
                yield Markdown(open_links=False)

    def on_mount(self) -> None:
        self.query_one(Pages).highlighted = manual.ORDER.index(self._first)

    @on(OptionList.OptionHighlighted)
    async def _show(self, event: OptionList.OptionHighlighted) -> None:
        if event.option is not self.query_one(Pages).highlighted_option:
            return  # The cursor has moved on while another page was drawn.
        page = next(page for page in manual.pages() if page.name == event.option_id)
        await self.query_one(Markdown).update(page.text)
        self.query_one(PageText).scroll_home(animate=False)

    @on(OptionList.OptionSelected)
    def _read(self) -> None:
        self.query_one(PageText).focus()

    @on(Markdown.LinkClicked)
    def _follow(self, event: Markdown.LinkClicked) -> None:
        """Open a page of the manual. Addresses on the web are not opened: the browser may be on another machine."""
        name = PurePath(event.href.partition("#")[0]).stem
        if name in manual.ORDER:
            self.query_one(Pages).highlighted = manual.ORDER.index(name)
