"""One setting as a line: its name, an editor that suits its type, and a note. It shows the draft and holds nothing."""

from collections.abc import Callable
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Checkbox, Input, Select, Static

from qlora_tui.config.command_line import text_of
from qlora_tui.config.fields import fields
from qlora_tui.config.overrides import parse
from qlora_tui.terminal import printable
from qlora_tui.ui.glossary import help_of
from qlora_tui.ui.messages import ConfigEdited


class Tick(Checkbox):
    """A box that is empty when it is not ticked, for eyes and terminals without colour."""

    BUTTON_INNER = " "

    def watch_value(self) -> None:
        """Draw the box anew."""
        self.BUTTON_INNER = "X" if self.value else " "
        super().watch_value()


class SettingField(Horizontal):
    """Posts ConfigEdited for each change; what does not validate stays in the editor with the reason beside it."""

    DEFAULT_CSS = """
    SettingField {
        height: 1;
        .name { width: 24; padding: 0 1; color: $text-muted; text-wrap: nowrap; text-overflow: ellipsis; }
        Input, Select { width: 28; }
        Checkbox { width: 28; background: $surface; padding: 0; }
        .note { width: 1fr; padding: 0 1; color: $text-muted; text-wrap: nowrap; text-overflow: ellipsis; }
        &:focus-within .name { color: $primary; text-style: bold; }
        &:focus-within { background: $primary 12%; }
        &.-changed .name { color: $foreground; }
        &.-idle .name { text-style: italic; }
        &.-idle .note { color: $text-warning; }
        &.-invalid .note { color: $text-error; }
        &.-invalid .name { color: $text-error; }
    }
    """

    def __init__(self, key: str) -> None:
        super().__init__(id=f"field-{key.replace('.', '-')}")
        self.key = key
        self.setting = fields()[key]
        self.tooltip = Content(self.setting.help)
        self._shown: Any = self.setting.default
        self._typed: list[str] = []
        self._effect = ""
        self._idle = ""
        self._reason = ""
        self._noted = self.setting.help

    @property
    def HELP(self) -> str:  # type: ignore[override]  # noqa: N802  # Textual reads it where the focus is.
        """The setting's help and the terms in it, as Markdown."""
        return help_of(self.key)

    @property
    def label(self) -> str:
        """What people call the setting."""
        table, _, name = self.key.partition(".")
        return table if name == "kind" else name.replace("columns.", "column ").replace("_", " ")

    def compose(self) -> ComposeResult:
        yield Static(self.label, classes="name", markup=False)
        yield self._editor()
        yield Static(self.setting.help, classes="note", markup=False)

    def _editor(self) -> Input | Select[str] | Checkbox:
        if self.setting.choices:
            options = [(word, word) for word in self.setting.choices]
            return Select(options, allow_blank=False, compact=True, value=self.setting.default)
        if self.setting.kinds == (bool,):
            return Tick(value=bool(self.setting.default), compact=True)
        return Input(compact=True, placeholder="empty" if self.setting.optional else "")

    @property
    def text(self) -> str:
        """Return the current value of the editor in `--set` syntax."""
        editor = self.query_one("Input, Select, Checkbox")
        if isinstance(editor, Checkbox):
            return str(editor.value).lower()
        assert isinstance(editor, Input | Select)
        return str(editor.value)

    def show(self, found: Any, *, changed: bool) -> None:
        """Show the draft's value. What is being typed stays as it is when it means the same."""
        self._shown = found
        self.set_class(changed, "-changed")
        editor = self.query_one("Input, Select, Checkbox")
        if isinstance(editor, Input):
            if not self._stays(editor, lambda text: parse(self.setting, text) == found and (text or found is None)):
                with editor.prevent(Input.Changed):
                    editor.value = printable(text_of(self.setting, found), one_line=True)
        elif isinstance(editor, Select):
            with editor.prevent(Select.Changed):
                editor.value = found
        elif isinstance(editor, Checkbox):
            with editor.prevent(Checkbox.Changed):
                editor.value = bool(found)

    def show_pending(self, text: str) -> None:
        """Show an edit that has not validated."""
        editor = self.query_one("Input, Select, Checkbox")
        if isinstance(editor, Input):
            if not self._stays(editor, lambda typed: typed == text):
                with editor.prevent(Input.Changed):
                    editor.value = text
        elif isinstance(editor, Select) and text in self.setting.choices:
            with editor.prevent(Select.Changed):
                editor.value = text

    def _stays(self, editor: Input, means_this: Callable[[str], Any]) -> bool:
        """Whether the editor keeps its text: it means the same, or what is shown was typed a few keys ago.

        The draft answers after the next keys were pressed, when the user types fast or the machine is busy.
        """
        for place, text in enumerate(self._typed):
            if means_this(text):
                del self._typed[:place]
                return True
        self._typed.clear()
        return bool(means_this(editor.value))

    def mark(self, *, reason: str = "", idle: str = "") -> None:
        """Say why the edit is refused, or why the setting does nothing."""
        self._reason, self._idle = reason, idle
        self.set_class(bool(reason), "-invalid")
        self.set_class(bool(idle), "-idle")
        self._note()

    def show_effect(self, text: str) -> None:
        """Say what the setting costs."""
        self._effect = text
        self._note()

    @property
    def explanation(self) -> str:
        """Everything there is to say of the setting now."""
        default = text_of(self.setting, self.setting.default) or "empty"
        said = [self._reason or self._idle, self.setting.help, f"Default: {default}", self._effect]
        return " ".join(f"{text.rstrip('.')}." for text in said if text)

    def _note(self) -> None:
        text = self._reason or self._idle or self._effect or self.setting.help
        if text != self._noted:
            self._noted = text
            self.query_one(".note", Static).update(Content(printable(text, one_line=True)), layout=False)

    def _post(self, text: str) -> None:
        """Unless it is what the draft holds: editors tell of values that they were given, too."""
        if self._reason or self._typed or parse(self.setting, text) != self._shown:
            self.post_message(ConfigEdited({self.key: text}))

    @on(Input.Changed)
    def _on_typed(self, event: Input.Changed) -> None:
        event.stop()
        self._post(event.value)
        self._typed.append(event.value)

    @on(Select.Changed)
    def _chosen(self, event: Select.Changed) -> None:
        event.stop()
        self._post(str(event.value))

    @on(Checkbox.Changed)
    def _ticked(self, event: Checkbox.Changed) -> None:
        event.stop()
        self._post(str(event.value).lower())
