"""A place that edits the draft: its edits and their undoing, presets and runs to begin from, the command, the start."""

import asyncio
import shlex
from typing import TYPE_CHECKING, ClassVar

from textual import getters, on, work
from textual.binding import Binding, BindingType

from qlora_tui.config.command_line import CommandLine, command_line
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import QloraError
from qlora_tui.ui import setup_summary
from qlora_tui.ui.downloads import missing_downloads
from qlora_tui.ui.drafting import Edits
from qlora_tui.ui.messages import ConfigEdited, StartRequested
from qlora_tui.ui.pricing import Price
from qlora_tui.ui.screens.place import Place
from qlora_tui.ui.widgets.confirm import Confirm

if TYPE_CHECKING:
    from qlora_tui.ui.app import Workbench

RUN_NAME = "run name"
"""Stands for the run's name where a setting's dotted key is expected."""

_UNDONE = 100
"""How many edits can be taken back."""


class DraftPlace(Place):
    """Every edit of the draft passes here. Subclasses show it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f9", "start", "Start", id="setup.start", tooltip="Start this run in the background"),
        Binding("ctrl+o", "load", "Load", id="setup.load", tooltip="Begin from a preset or an earlier run"),
        Binding("ctrl+s", "save", "Save", id="setup.save", tooltip="Save as a preset of your own"),
        Binding("ctrl+y", "command", "Command", id="setup.command", tooltip="The same run as a command and as TOML"),
        Binding("ctrl+z", "undo", "Undo", id="setup.undo", tooltip="Take the last edit back", show=False),
    ]

    if TYPE_CHECKING:
        app = getters.app(Workbench)

    def __init__(self) -> None:
        super().__init__()
        self.edits = Edits()
        self.run_title = ""
        """What the run is to be called; empty: as suggested."""
        self.price: Price | None = None
        """What the draft needs, once it is known."""
        self._past: list[tuple[RunConfig, str]] = []
        self._last_keys: tuple[str, ...] = ()

    def show_draft(self) -> None:
        """Show the draft and the edits that wait."""
        raise NotImplementedError

    async def show_field(self, key: str) -> None:
        """Put the focus on the field of a setting, or of RUN_NAME."""
        raise NotImplementedError

    @on(ConfigEdited)
    def _edited(self, message: ConfigEdited) -> None:
        message.stop()
        self.edit(message.edits)

    def edit(self, edits: dict[str, str], *, apart: bool = False) -> None:
        """Change the draft, where that validates. `apart`: taken back for itself, whatever was edited before."""
        if apart:
            self._last_keys = ()
        draft = self.app.draft
        changed = self.edits.apply(draft, edits)
        if changed == draft:
            self.show_draft()
            return
        if tuple(edits) != self._last_keys or not self._past:
            self._past = [*self._past[1 - _UNDONE :], (draft, self.app.draft_source)]
        self._last_keys = tuple(edits)
        self._replace(changed, setup_summary.edited(self.app.draft_source))

    def _replace(self, config: RunConfig, source: str) -> None:
        self.app.draft_source = source
        self.app.draft = config

    def _begin_from(self, config: RunConfig, source: str) -> None:
        self._past.append((self.app.draft, self.app.draft_source))
        self._last_keys = ()
        self.edits.clear()
        self._replace(config, source)
        self.show_draft()

    def action_undo(self) -> None:
        """Take the last edit back: one that does not validate, else the last change of the draft."""
        self._last_keys = ()
        if self.edits.pending:
            self.edits.clear()
            self.show_draft()
        elif self._past:
            config, source = self._past.pop()
            self._replace(config, source)
        else:
            self.notify("There is nothing to take back.")

    @property
    def command(self) -> CommandLine:
        """The command that starts what is on the screen."""
        return command_line(self.app.draft, setup_summary.preset_of(self.app.draft_source))

    @property
    def shell_lines(self) -> list[str]:
        """The command for a shell, with the name of the run where it was given one."""
        return [*self.command.shell_lines(), *([f"--name {shlex.quote(self.run_title)}"] if self.run_title else [])]

    def action_command(self) -> None:
        """Show the command and the TOML."""
        from qlora_tui.config.toml_file import to_toml
        from qlora_tui.ui.screens.setup_dialogs import ShowCommand

        toml = to_toml(self.app.draft, sparse=True).strip() or "# Every setting has its default."
        self.app.push_screen(ShowCommand(self.shell_lines, toml))

    @work(group="dialog", exclusive=True)
    async def action_load(self) -> None:
        """Begin from a preset or a run."""
        from qlora_tui.ui.screens.setup_dialogs import LoadDraft

        chosen = await self.app.push_screen_wait(LoadDraft(await asyncio.to_thread(setup_summary.beginnings)))
        if chosen is None:
            return
        try:
            self._begin_from(setup_summary.load(chosen), f"{chosen.kind} {chosen.name}")
        except QloraError as error:
            self.app.complain(error)

    @work(group="dialog", exclusive=True)
    async def action_save(self) -> None:
        """Save the draft as a preset."""
        from qlora_tui.ui.screens.setup_dialogs import SavePreset

        proposed = setup_summary.preset_of(self.app.draft_source) or ""
        answer = await self.app.push_screen_wait(
            SavePreset(proposed, setup_summary.name_problem, setup_summary.is_own_preset)
        )
        if answer is None:
            return
        name, replace = answer
        try:
            path = setup_summary.save(self.app.draft, name, replace=replace)
        except QloraError as error:
            self.app.complain(error)
            return
        self.app.draft_source = f"preset {name}"
        self.show_draft()
        self.notify(f"Saved: {path}", markup=False)

    @work(group="dialog", exclusive=True)
    async def action_start(self) -> None:
        """Start the run: after a yes where it does not fit or something has to be downloaded."""
        from qlora_tui.runs.missing import sentence

        if self.edits.pending or setup_summary.run_name_problem(self.run_title):
            await self._show_trouble()
            return
        command = self.command
        price = self.price
        if price is not None and price.config == self.app.draft and price.verdict.answer == "does not fit":
            question = Confirm("This run does not fit. Start it anyway?", price.verdict.reason, yes="Start")
            if not await self.app.push_screen_wait(question):
                return
        try:
            config = command.config
            downloads = await missing_downloads(config)
        except QloraError as error:
            self.app.complain(error)
            return
        if downloads:
            said = "\n".join(sentence(one) for one in downloads)
            if not await self.app.push_screen_wait(Confirm("Download this?", said, yes="Download")):
                return
        self.post_message(
            StartRequested(config, self.run_title or None, preset=command.preset, allow_download=bool(downloads))
        )

    async def _show_trouble(self) -> None:
        key = next(iter(self.edits.pending), RUN_NAME)
        reason = self.edits.reasons.get(key) or setup_summary.run_name_problem(self.run_title)
        self.notify(f"{key}: {reason}", title="Not started", severity="error", markup=False)
        await self.show_field(key)
