"""A question that is answered by one line of text."""

import asyncio
from collections.abc import Callable
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from qlora_tui.errors import QloraError
from qlora_tui.terminal import printable


class AskText(ModalScreen[str | None]):
    """Dismissed with the text once `accept` has taken it, with None on escape.

    `accept` runs in a thread. A QloraError that it raises is shown below the text, which stays to be corrected.
    """

    DEFAULT_CSS = """
    AskText {
        align: center middle;
        #ask-box {
            width: 64; max-width: 94%; height: auto; padding: 1 2; border: round $primary; background: $surface;
        }
        #ask-problem { color: $text-error; margin-top: 1; display: none; }
        #ask-hint { color: $text-muted; margin-top: 1; }
        &.-refused #ask-problem { display: block; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Back", id="ask.leave", tooltip="Change nothing"),
    ]

    def __init__(self, question: str, text: str, accept: Callable[[str], object], hint: str = "") -> None:
        super().__init__()
        self._question = question
        self._text = text
        self._accept = accept
        self._hint = hint

    def compose(self) -> ComposeResult:
        with Vertical(id="ask-box"):
            yield Static(printable(self._question, one_line=True), markup=False)
            yield Input(self._text, id="ask-text", compact=True)
            yield Static(id="ask-problem", markup=False)
            yield Static(f"{self._hint}  enter: done, escape: back".strip(), id="ask-hint", markup=False)

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self.remove_class("-refused")

    @on(Input.Submitted)
    def _answered(self, event: Input.Submitted) -> None:
        event.stop()
        self._submit(event.value)

    @work(exclusive=True, group="change")
    async def _submit(self, text: str) -> None:
        try:
            await asyncio.to_thread(self._accept, text)
        except QloraError as error:
            self.query_one("#ask-problem", Static).update(printable(f"{error.message}\n{error.hint}".strip()))
            self.add_class("-refused")
        else:
            self.dismiss(text)

    def action_leave(self) -> None:
        """Answer nothing."""
        self.dismiss(None)
