"""Settings: how the workbench looks and answers, where things lie, and whether the hub knows you."""

import os
from typing import ClassVar

from pydantic import ValidationError
from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.message import Message
from textual.widgets import DataTable, Input, Select, Static, TabbedContent, TabPane

from qlora_tui import paths
from qlora_tui.errors import UsageError
from qlora_tui.settings import Settings, file
from qlora_tui.ui import keys, messages
from qlora_tui.ui.key_routing import DIALOG
from qlora_tui.ui.screens.place import Place
from qlora_tui.ui.widgets.ask_key import AskKey
from qlora_tui.ui.widgets.theme_list import ThemeList
from qlora_tui.ui.widgets.vim import VimKeys

_TABS = {"look": "#themes", "keys": "#key-table", "folders": "#folder-list"}
"""The first field of each tab."""

_FIELDS = {
    "theme": ("look", "#themes"),
    "refresh_hz": ("look", "#refresh-hz"),
    "animation": ("look", "#animation"),
    "keymap": ("keys", "#key-table"),
}
"""Tab and field of each setting."""


class KeyTable(DataTable[Text], VimKeys):
    """Every key with what it does; enter changes it."""

    HELP = """
### Keys
**Enter** asks for another key for the action under the cursor, **r** gives it back its own one. The id on the left is
its name in `settings.toml`, where an action may have several keys with commas between them.
"""


class SettingsRead(Message):
    """What takes a moment was looked at."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self.token = token


class SettingsPlace(Place):
    """Preferences. Each change is kept at once."""

    NAME = "settings"
    CSS_PATH = "settings.tcss"
    AUTO_FOCUS = "ThemeList"
    HELP = """
### Settings
What is kept here belongs to you and this machine. What belongs to a run is in Setup, and in the run's own run.toml.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "reset_key", "Own key again", id="settings.reset-key", tooltip="Forget the changed key"),
        Binding("left_square_bracket", "tab(-1)", "Tab before", show=False, id="settings.back", tooltip="Tab before"),
        Binding("right_square_bracket", "tab(1)", "Next tab", id="settings.next", tooltip="Next tab of the settings"),
        Binding("escape", "back", "Back", show=False, id="settings.leave", tooltip="Home"),
    ]

    def compose_place(self) -> ComposeResult:
        settings = self._settings
        with TabbedContent(id="tabs"):
            with TabPane("Look", id="look"):
                yield ThemeList(settings.theme, id="themes")
                with Vertical(id="pace"):
                    yield Static(_help("refresh_hz"), markup=False)
                    yield Input(f"{settings.refresh_hz:g}", type="number", id="refresh-hz", compact=True)
                    yield Static(_help("animation"), markup=False)
                    choices = [(word, word) for word in ("full", "basic", "none")]
                    yield Select(choices, value=settings.animation, allow_blank=False, id="animation", compact=True)
            with TabPane("Keys", id="keys"):
                yield KeyTable(cursor_type="row", id="key-table")
            with TabPane("Folders and hub", id="folders"), VerticalScroll(id="folder-list"):
                yield Static(_folders(), markup=False)
                yield Static("looking for a hub token...", id="token", markup=False)

    def on_mount(self) -> None:
        self.query_one("#refresh-hz").HELP = f"### Refresh rate\n{_help('refresh_hz')}"  # type: ignore[misc]
        self.query_one("#animation").HELP = f"### Animation\n{_help('animation')}"  # type: ignore[misc]
        self._read()

    def on_screen_resume(self) -> None:
        """Update the list of themes and the chosen one."""
        self.query_one(ThemeList).offer(self.app.available_themes, self._settings.theme)

    @property
    def _settings(self) -> Settings:
        return self.app.settings  # type: ignore[attr-defined, no-any-return]

    def _prefer(self, **changes: object) -> None:
        self.app.prefer(**changes)  # type: ignore[attr-defined]

    @work(thread=True, exclusive=True, group="settings", exit_on_error=False)
    def _read(self) -> None:
        keys.bindings()
        self.post_message(SettingsRead(token_state()))

    @on(SettingsRead)
    def _show(self, message: SettingsRead) -> None:
        self.query_one("#token", Static).update(message.token)
        table = self.query_one(KeyTable)
        table.clear(columns=True)
        for column in ("key", "action", "what it does"):
            table.add_column(column, key=column)
        for binding_id, binding in keys.bindings().items():
            table.add_row(
                Text(self._settings.keymap.get(binding_id, binding.key)),
                Text(binding_id),
                Text(binding.tooltip or binding.description),
                key=binding_id,
            )

    @on(Input.Changed, "#refresh-hz")
    def _refresh_rate(self, event: Input.Changed) -> None:
        try:
            wanted = Settings.model_validate({"refresh_hz": event.value}).refresh_hz
        except ValidationError:
            event.input.add_class("-invalid")
            return
        event.input.remove_class("-invalid")
        if wanted != self._settings.refresh_hz:
            self._prefer(refresh_hz=wanted)

    @on(Select.Changed, "#animation")
    def _animation(self, event: Select.Changed) -> None:
        if event.value != self._settings.animation:
            self._prefer(animation=event.value)

    @on(DataTable.RowSelected, "#key-table")
    def _change_key(self, event: DataTable.RowSelected) -> None:
        self._ask_key(str(event.row_key.value))

    @work(exclusive=True, group=DIALOG)
    async def _ask_key(self, binding_id: str) -> None:
        key = await self.app.push_screen_wait(AskKey(binding_id))
        if key is None:
            return
        reason = keys.refusal(binding_id, key, self._settings.keymap)
        if reason is not None:
            problem = UsageError(reason, hint=f"{binding_id} keeps its current key.")
            self.post_message(messages.Complained(problem))
        else:
            self._set_key(binding_id, key)

    def _set_key(self, binding_id: str, key: str | None) -> None:
        keymap = {name: value for name, value in self._settings.keymap.items() if name != binding_id}
        if key is not None:
            keymap[binding_id] = key
        self._prefer(keymap=keymap)
        shown = key or keys.bindings()[binding_id].key
        self.query_one(KeyTable).update_cell(binding_id, "key", Text(shown), update_width=True)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A key can be reset where keys are shown."""
        if action == "reset_key" and self.is_mounted:
            return self.query_one(TabbedContent).active == "keys"
        return True

    @on(TabbedContent.TabActivated)
    def _tab_shown(self) -> None:
        self.refresh_bindings()

    def action_reset_key(self) -> None:
        """Give the action under the cursor its own key again."""
        table = self.query_one(KeyTable)
        if table.row_count:
            self._set_key(str(table.ordered_rows[table.cursor_row].key.value), None)

    def action_tab(self, step: int) -> None:
        """Show another tab and focus its first field."""
        names = list(_TABS)
        self._open(names[(names.index(self.query_one(TabbedContent).active) + step) % len(names)])

    def show_field(self, name: str) -> None:
        """Show the tab of a setting and focus its field."""
        self._open(*_FIELDS[name])

    def _open(self, tab: str, field: str = "") -> None:
        self.query_one(TabbedContent).active = tab
        self.call_after_refresh(self.query_one(field or _TABS[tab]).focus)

    def action_back(self) -> None:
        """One step back: home."""
        self.post_message(messages.PlaceRequested("home"))


def _help(name: str) -> str:
    return f"{name}: {Settings.model_fields[name].description or ''}"


def _folders() -> str:
    found = {
        "runs": paths.runs(),
        "settings": file(),
        "presets of yours": paths.user_presets(),
        "themes of yours": paths.user_themes(),
        "cache": paths.cache(),
        "hub cache": paths.hub_cache(),
    }
    return "\n".join(f"{name:18}{path}" for name, path in found.items())


def token_state() -> str:
    """Whether this machine has a token of the hub, and from where; never the token itself. Blocking."""
    from huggingface_hub import get_token

    if not get_token():
        return "hub token         none. Gated models need one: `hf auth login`, or HF_TOKEN in the environment."
    origin = "HF_TOKEN in the environment" if os.environ.get("HF_TOKEN") else "`hf auth login`"
    return f"hub token         there is one, from {origin}"
