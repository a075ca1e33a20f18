"""The questions that Setup asks over itself: which preset or run to begin from, a preset's name, the command."""

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, OptionList, Static
from textual.widgets.option_list import Option

from qlora_tui.terminal import printable
from qlora_tui.ui.widgets.vim import VimKeys

_BOX = """
    align: center middle;
    .box {
        width: 90; max-width: 96%; height: auto; max-height: 94%;
        padding: 0 1; border: round $primary; border-title-color: $primary; background: $surface;
    }
    .answers { height: 1; margin: 1 0 0 0; }
    .answers Button { margin: 0 2 0 0; }
    .problem { color: $text-error; height: auto; }
"""


class Beginning(NamedTuple):
    """What a draft can begin from."""

    kind: str
    """preset or run"""

    name: str
    title: str


class _List(OptionList, VimKeys):
    """Presets and runs, filtered by the line above."""


class LoadDraft(ModalScreen[Beginning | None]):
    """Asks for a preset or a run; None: for neither."""

    DEFAULT_CSS = f"LoadDraft {{{_BOX} OptionList {{ height: auto; max-height: 16; border: none; }} }}"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Back", id="load.back", tooltip="Leave the draft as it is"),
        Binding("down", "app.focus_next", "List", id="load.list", tooltip="To the list", show=False),
    ]

    def __init__(self, beginnings: Sequence[Beginning]) -> None:
        super().__init__()
        self._all = list(beginnings)
        self._shown = self._all

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = "Begin from a preset or a run"
            yield Input(placeholder="filter", compact=True)
            yield _List(markup=False, compact=True)

    def on_mount(self) -> None:
        self._filter("")

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        self._filter(event.value)

    @on(Input.Submitted)
    def _submitted(self) -> None:
        if self._shown:
            self.dismiss(self._shown[0])

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._shown[event.option_index])

    def _filter(self, text: str) -> None:
        words = text.lower().split()
        self._shown = [
            one for one in self._all if all(word in f"{one.kind} {one.name} {one.title}".lower() for word in words)
        ]
        options = self.query_one(_List)
        options.set_options(Option(_line(one)) for one in self._shown)
        options.highlighted = 0 if self._shown else None


def _line(one: Beginning) -> Content:
    name = printable(one.name, one_line=True)
    return Content.assemble(f"{one.kind:<7}", (f"{name:<24} ", "bold"), printable(one.title))


class SavePreset(ModalScreen[tuple[str, bool] | None]):
    """Asks for a preset's name; (name, whether one of that name is replaced), or None."""

    DEFAULT_CSS = f"SavePreset {{{_BOX}}}"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Back", id="save.back", tooltip="Save nothing"),
    ]

    def __init__(self, name: str, problem_of: Callable[[str], str], exists: Callable[[str], bool]) -> None:
        """`problem_of`: why a name cannot be used, else empty. `exists`: whether one is there that is replaced."""
        super().__init__()
        self._proposed = name
        self._problem_of = problem_of
        self._exists = exists

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = "Save as a preset"
            yield Input(self._proposed, placeholder="name", compact=True)
            yield Static("", classes="problem", markup=False)
            with Horizontal(classes="answers"):
                yield Button("Save", id="save", compact=True, variant="primary")
                yield Button("Back", id="back", compact=True)

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        said = self._problem_of(event.value) if event.value else ""
        replaces = not said and bool(event.value) and self._exists(event.value)
        self.query_one(".problem", Static).update(Content("A preset of that name is replaced." if replaces else said))
        self.query_one("#save", Button).label = "Replace" if replaces else "Save"

    @on(Input.Submitted)
    def _submitted(self) -> None:
        name = self.query_one(Input).value.strip()
        if self._exists(name) and not self._problem_of(name):
            self.query_one("#back", Button).focus()
        else:
            self._save()

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "save":
            self._save()
        else:
            self.dismiss(None)

    def _save(self) -> None:
        name = self.query_one(Input).value.strip()
        if name and not self._problem_of(name):
            self.dismiss((name, self._exists(name)))


class ShowCommand(ModalScreen[None]):
    """The command and the TOML of what is on the screen, to be copied."""

    DEFAULT_CSS = f"""ShowCommand {{{_BOX}
        .box {{ width: 110; }}
        .text {{ height: auto; max-height: 12; background: $background; padding: 0 1; }}
        .heading {{ text-style: bold; margin: 1 0 0 0; }}
    }}"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss(None)", "Back", id="command.back", tooltip="Back to the form"),
        Binding("c", "copy('command')", "Copy command", id="command.copy", tooltip="The command to the clipboard"),
        Binding("t", "copy('toml')", "Copy TOML", id="command.copy-toml", tooltip="The TOML to the clipboard"),
    ]

    def __init__(self, lines: Sequence[str], toml: str) -> None:
        super().__init__()
        self._texts = {"command": " ".join(lines), "toml": toml}
        self._shown = " \\\n  ".join(lines)

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = "The same run from a shell"
            yield Static("Command", classes="heading")
            with VerticalScroll(classes="text"):
                yield Static(Content(printable(self._shown)), id="command-text", markup=False)
            yield Static("TOML", classes="heading")
            with VerticalScroll(classes="text"):
                yield Static(Content(printable(self._texts["toml"])), id="toml-text", markup=False)
            with Horizontal(classes="answers"):
                yield Button("Copy command (c)", id="copy-command", compact=True, variant="primary")
                yield Button("Copy TOML (t)", id="copy-toml", compact=True)
                yield Button("Back", id="back", compact=True)

    def action_copy(self, what: str) -> None:
        """Put one of the texts on the clipboard of the terminal."""
        self.app.copy_to_clipboard(self._texts[what])
        self.notify(f"The {what} is on the clipboard, if the terminal allows it.")

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        match event.button.id:
            case "copy-command":
                self.action_copy("command")
            case "copy-toml":
                self.action_copy("toml")
            case _:
                self.dismiss(None)
