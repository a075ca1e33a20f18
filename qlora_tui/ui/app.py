"""The app: its places, its keys, the draft being set up and the run being shown."""

import os
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.notifications import SeverityLevel
from textual.reactive import var
from textual.screen import Screen

from qlora_tui import paths
from qlora_tui import settings as preferences
from qlora_tui.errors import QloraError
from qlora_tui.settings import Settings
from qlora_tui.terminal import printable
from qlora_tui.ui import load_history, messages, themes
from qlora_tui.ui.commands import Commands
from qlora_tui.ui.key_routing import KeyRouting
from qlora_tui.ui.widgets.places_bar import PLACES

if TYPE_CHECKING:
    from textual.command import Provider

    from qlora_tui.config.run import RunConfig
    from qlora_tui.ui.widgets.theme_list import ThemeList

_THEME_WATCH_S = 1.0
_BIN_AFTER_S = 5.0
"""There is no hurry, and other work in the first second."""
_BIN_EVERY_S = 3600.0


def _place(name: str) -> Callable[[], Screen[None]]:
    """A factory that imports a place when it is opened, which keeps the first frame quick."""

    def make() -> Screen[None]:
        screen: Screen[None] = getattr(import_module(f"qlora_tui.ui.screens.{name}"), f"{name.capitalize()}Place")()
        return screen

    return make


def _everything() -> "type[Provider]":
    """Imported when the palette is opened."""
    provider: type[Provider] = import_module("qlora_tui.ui.palette").Everything
    return provider


class Workbench(KeyRouting[None]):
    """Pick a model, see that it fits, train, chat."""

    TITLE = "qlora-tui"
    CSS_PATH = "app.tcss"
    MODES = {name: _place(name) for name, _, _ in PLACES}
    DEFAULT_MODE = "home"
    COMMANDS = {Commands, _everything}
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(
                f"{key},{number}",
                f"go('{name}')",
                title,
                id=f"workbench.{name}",
                tooltip=f"Go to {title}",
                show=False,
            )
            for number, (name, title, key) in enumerate(PLACES, 1)
        ),
        Binding(
            "f1,question_mark",
            "help",
            "Help",
            id="workbench.help",
            tooltip="Help for the focused panel, and all its keys",
        ),
        Binding(
            "ctrl+p", "command_palette", "Commands", id="workbench.palette", tooltip="Everything a key does, by name"
        ),
        Binding(
            "f10",
            "glossary",
            "Glossary",
            id="workbench.glossary",
            tooltip="What the words on the screen mean",
            show=False,
        ),
        Binding(
            "shift+f1,f13",  # Many terminals send F13 for Shift+F1.
            "manual",
            "Manual",
            id="workbench.manual",
            tooltip="Read the manual",
            show=False,
        ),
        Binding("f12", "change_theme", "Theme", id="workbench.theme", tooltip="Choose a colour theme", show=False),
        Binding(
            "f11", "screenshot", "Screenshot", id="workbench.screenshot", tooltip="Save the screen as SVG", show=False
        ),
        Binding("ctrl+q", "quit", "Quit", id="workbench.quit", tooltip="Leave; runs continue without the workbench"),
        Binding("q", "home_or_leave", "Back", id="workbench.back", tooltip="Back to Home; from Home, quit", show=False),
    ]

    settings: var[Settings] = var(Settings())
    chosen_draft: var["RunConfig | None"] = var(None)
    """What `draft` is once the user has chosen or edited one."""
    draft_source: var[str] = var("preset starter")
    """Where the draft comes from, for people."""
    run_name: var[str | None] = var(None)
    """Name of the run that the Run place shows."""

    starting: var[str] = var("")
    """Message while a run is being started; empty otherwise."""

    chat_with: var[tuple[str, int | None] | None] = var(None)
    """Run and checkpoint that the Chat place is to load next."""

    def __init__(self, *, run: str | None = None, place: str = "home") -> None:
        # A place that was not requested is not made: Home would read every run only to be left at once.
        vars(self).update(DEFAULT_MODE="run" if run else place)
        super().__init__()
        self.release_chat: Callable[[], None] = lambda: None
        """Frees the memory that the Chat place's model takes, for a run that is about to start. For a thread."""
        self.loads = load_history.LoadHistory()
        """Load of the machine, recorded in every place."""
        self._problem: QloraError | None = None
        self.set_reactive(Workbench.run_name, run)
        try:
            self.set_reactive(Workbench.settings, preferences.load())
        except QloraError as error:
            self._problem = error
        self._applied_keymap: dict[str, str] = {}
        self._theme_stamp = themes.stamp()
        self._theme_problems: list[str] = []
        self._register_themes()
        self.begin_with(self._wanted_theme)

    def on_mount(self) -> None:
        self._complain_of_themes()
        self.set_interval(_THEME_WATCH_S, self._watch_themes)
        self.set_interval(load_history.PERIOD_S, self._record_load)
        self.watch(self, "settings", self._apply_settings)
        self.screen_change_signal.subscribe(self, self._leave_preview)
        if self._problem is not None:
            self.complain(self._problem)
        self.set_timer(_BIN_AFTER_S, self._purge_bin)
        self.set_interval(_BIN_EVERY_S, self._purge_bin)

    @property
    def draft(self) -> "RunConfig":
        """The configuration being set up. Replaced as a whole, never changed in place."""
        if self.chosen_draft is None:
            from qlora_tui.config import presets  # The first frame does without.
            from qlora_tui.config.run import RunConfig

            try:
                config = presets.find("starter").config
            except QloraError:  # The user's own preset of that name is broken.
                config = RunConfig()
                self.set_reactive(Workbench.draft_source, "defaults")
            self.set_reactive(Workbench.chosen_draft, config)
        assert self.chosen_draft is not None
        return self.chosen_draft

    @draft.setter
    def draft(self, config: "RunConfig") -> None:
        self.chosen_draft = config

    def _apply_settings(self, settings: Settings) -> None:
        if settings.keymap != self._applied_keymap:
            self._applied_keymap = settings.keymap
            self.set_keymap(settings.keymap)
            self._check_keymap(settings.keymap)
        if "TEXTUAL_ANIMATIONS" not in os.environ:
            self.animation_level = settings.animation

    @work(thread=True, exclusive=True, group="keymap", exit_on_error=False)
    def _check_keymap(self, keymap: dict[str, str]) -> None:
        from qlora_tui.ui import keys  # imports every screen

        if refused := keys.refusals(keymap):
            kept = {name: key for name, key in keymap.items() if name not in refused}
            self.call_from_thread(self._refuse_keys, kept, refused)

    def _refuse_keys(self, kept: dict[str, str], refused: dict[str, str]) -> None:
        self.set_keymap(kept)
        said = "\n".join(f"{name}: {reason}" for name, reason in refused.items())
        self.complain(
            QloraError(
                said,
                hint=f"These actions keep their default keys. To change them, edit [keymap] in {preferences.file()}.",
            )
        )

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = True,
    ) -> None:
        """As in Textual, for every toast of every place; what is foreign in it cannot control the terminal."""
        super().notify(printable(message), title=title, severity=severity, timeout=timeout, markup=markup)

    def complain(self, error: QloraError) -> None:
        """Show what went wrong and what to do about it, as plain text."""
        text = f"{error.message}\n{error.hint}" if error.hint else error.message
        self.notify(text, severity="error", timeout=10, markup=False)

    def action_go(self, place: str) -> None:
        """Switch to another place. An open dialog there is dismissed."""
        self.leave_dialogs()
        self.switch_mode(place)

    def action_home_or_leave(self) -> None:
        """Go from a place to Home; quit from Home."""
        if self.current_mode == "home":
            self.exit()
        else:
            self.action_go("home")

    def action_help(self) -> None:
        """Show or hide help for the focused panel."""
        if self.screen.query("HelpPanel"):
            self.action_hide_help_panel()
        else:
            self.action_show_help_panel()

    def action_screenshot(self, filename: str | None = None, path: str | None = None) -> None:
        """Save the screen as SVG, in a folder that there is on every machine."""
        folder = paths.data() / "screenshots"
        with suppress(OSError):  # Then saving fails as well, and says so.
            folder.mkdir(parents=True, exist_ok=True)
        self.deliver_screenshot(filename, path or str(folder))

    def action_glossary(self) -> None:
        """Show the glossary, the terms of the focused field or panel first."""
        from qlora_tui.ui import glossary
        from qlora_tui.ui.screens.glossary import Glossary
        from qlora_tui.ui.widgets.setting_field import SettingField

        if isinstance(self.screen, Glossary):
            self.screen.dismiss()
            return
        around = self.focused.ancestors_with_self if self.focused else [self.screen]
        nearest = next((node for node in around if node.HELP), self.screen)
        if isinstance(nearest, SettingField):
            self.push_screen(Glossary(glossary.terms_of(nearest.key)))
        else:
            self.push_screen(Glossary(glossary.in_text(nearest.HELP or "")))

    def action_manual(self, page: str = "") -> None:
        """Show a page of the manual, or close the manual."""
        from qlora_tui import manual
        from qlora_tui.ui.screens.manual import Manual

        if isinstance(self.screen, Manual) and not page:
            self.screen.dismiss()
        else:
            self.push_screen(Manual(page or manual.ORDER[0]))

    def action_change_theme(self) -> None:
        """Choose a theme with a live preview."""
        from qlora_tui.ui.screens.choose_theme import ChooseTheme

        if isinstance(self.screen, ChooseTheme):
            self.screen.dismiss()
        else:
            self.push_screen(ChooseTheme(self.settings.theme))

    def on_theme_list_previewed(self, message: "ThemeList.Previewed") -> None:
        """Preview a theme while its list is open, and keep it when it was chosen."""
        if message.keep:
            self.use_theme(message.theme)
            self.leave_dialogs()
        elif message.themes.is_attached and message.themes.screen is self.screen:
            self._preview(message.theme)

    def use_theme(self, theme: str) -> None:
        """Apply a theme, and keep it in the settings."""
        self.prefer(theme=theme)
        self._preview(theme)

    def _preview(self, theme: str) -> None:
        if theme in self.available_themes:
            self.theme = theme

    def _leave_preview(self, front: Screen[object]) -> None:
        """Restore the theme when another screen covers the list."""
        if self.theme != self._wanted_theme:
            self.theme = self._wanted_theme

    def prefer(self, **changes: object) -> None:
        """Change preferences, here and in the file."""
        self.settings = self.settings.model_copy(update=changes)
        try:
            preferences.save(self.settings)
        except QloraError as error:
            self.complain(error)

    @on(messages.Complained)
    def _complained(self, message: messages.Complained) -> None:
        self.complain(message.error)

    @on(messages.PlaceRequested)
    def _go(self, message: messages.PlaceRequested) -> None:
        self.switch_mode(message.place)

    @on(messages.RunRequested)
    def _show_run(self, message: messages.RunRequested) -> None:
        self.run_name = message.name
        self.switch_mode("run")

    @on(messages.ChatRequested)
    def _show_chat(self, message: messages.ChatRequested) -> None:
        self.chat_with = (message.name, message.checkpoint)
        self.switch_mode("chat")

    @on(messages.DraftReplaced)
    def _replace_draft(self, message: messages.DraftReplaced) -> None:
        self.draft = message.config
        self.draft_source = message.source

    @on(messages.StartRequested)
    def _start_requested(self, message: messages.StartRequested) -> None:
        if not self.starting:
            self.starting = f"Starting {message.name or 'the run'}. The worker takes a few seconds to start."
            self._start(message, self.current_mode)
            self.switch_mode("run")

    @work(thread=True, group="start", exit_on_error=False)
    def _start(self, wanted: messages.StartRequested, place: str) -> None:
        """Start a run. If it cannot be started, go back to the previous place."""
        from qlora_tui.ui import starting

        try:
            self.release_chat()
            run = starting.start(wanted)
        except QloraError as error:
            self.call_from_thread(self._not_started, error, place)
        else:
            self.call_from_thread(setattr, self, "run_name", run.name)
        finally:
            self.call_from_thread(setattr, self, "starting", "")

    def _not_started(self, error: QloraError, place: str) -> None:
        self.complain(error)
        if self.current_mode == "run":
            self.switch_mode(place)

    @work(thread=True, exclusive=True, group="load", exit_on_error=False)
    def _record_load(self) -> None:
        from qlora_tui import hardware

        self.loads.record(hardware.snapshot())

    @work(thread=True, group="bin", exit_on_error=False)
    def _purge_bin(self) -> None:
        from qlora_tui.runs import deleted

        deleted.purge()

    def _register_themes(self) -> None:
        found, self._theme_problems = themes.load_all()
        for theme in found:
            self.register_theme(theme)

    @property
    def _wanted_theme(self) -> str:
        """The theme of the settings, if there is one of that name."""
        return self.settings.theme if self.settings.theme in self.available_themes else "textual-dark"

    def _complain_of_themes(self) -> None:
        if self._theme_problems:
            text = "\n".join(self._theme_problems)
            self.notify(text, title="Themes", severity="error", timeout=10, markup=False)
        if self._wanted_theme != self.settings.theme:
            self.notify(f"There is no theme called {self.settings.theme}.", severity="warning", markup=False)

    def _watch_themes(self) -> None:
        stamp = themes.stamp()
        if stamp != self._theme_stamp:
            self._theme_stamp = stamp
            self._register_themes()
            self.theme = self._wanted_theme
            self.refresh_css(animate=False)
            self._complain_of_themes()
