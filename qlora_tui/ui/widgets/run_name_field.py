"""What the run will be called: a line for a name, with the one it gets otherwise."""

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from qlora_tui.terminal import printable

_NOTE = "Name of the run's folder, for you and for every command. Empty: the suggested one."


class RunNameField(Horizontal):
    """Posts Named for what is typed; whether that can be a name is for others to say."""

    HELP = f"""\
### Run name

{_NOTE} Letters, digits, points, dashes and underscores.
"""
    DEFAULT_CSS = """
    RunNameField {
        height: 1;
        .name { width: 24; padding: 0 1; color: $text-muted; }
        Input { width: 28; }
        .note { width: 1fr; padding: 0 1; color: $text-muted; text-wrap: nowrap; text-overflow: ellipsis; }
        &:focus-within { background: $primary 12%; }
        &:focus-within .name { color: $primary; text-style: bold; }
        &.-invalid .name, &.-invalid .note { color: $text-error; }
    }
    """

    class Named(Message):
        """The run is to be called so; empty: as suggested."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    def __init__(self) -> None:
        super().__init__(id="run-name")
        self.tooltip = _NOTE

    def compose(self) -> ComposeResult:
        yield Static("run name", classes="name")
        yield Input(compact=True, max_length=80)
        yield Static(_NOTE, classes="note", markup=False)

    def suggest(self, name: str) -> None:
        """Show the default name of the run."""
        self.query_one(Input).placeholder = name

    def show(self, name: str, problem: str) -> None:
        """Show the name, and why it cannot be used; empty when it can."""
        field = self.query_one(Input)
        if field.value.strip() != name:
            with field.prevent(Input.Changed):
                field.value = name
        self.set_class(bool(problem), "-invalid")
        self.query_one(".note", Static).update(Content(printable(problem or _NOTE, one_line=True)), layout=False)

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(self.Named(event.value.strip()))
