"""The question before a download, in its place in a form: how much of what would go where."""

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Button, Static

from qlora_tui.terminal import printable


class DownloadQuestion(Vertical):
    """Out of sight until it asks; the safe answer has the focus then."""

    DEFAULT_CSS = """
    DownloadQuestion {
        height: auto; padding: 0 1; display: none; border-left: thick $warning;
        &.-asked { display: block; }
        Horizontal { height: 1; }
        Button { margin: 0 2 0 0; }
    }
    """

    class Answered(Message):
        """Somebody said yes or no."""

        def __init__(self, *, agreed: bool) -> None:
            super().__init__()
            self.agreed = agreed

    def __init__(self) -> None:
        super().__init__(id="data-question")

    def compose(self) -> ComposeResult:
        yield Static("", markup=False)
        with Horizontal():
            yield Button("No", id="data-no", compact=True, variant="primary")
            yield Button("Download", id="data-yes", compact=True, variant="warning")

    def ask(self, question: str) -> None:
        """Show the question."""
        self.query_one(Static).update(Content(printable(question)))
        self.add_class("-asked")
        self.query_one("#data-no", Button).focus()

    def withdraw(self) -> None:
        """Nobody waits for an answer."""
        self.remove_class("-asked")

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.withdraw()
        self.post_message(self.Answered(agreed=event.button.id == "data-yes"))
