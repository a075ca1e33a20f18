"""A place that edits the draft: its edits and their undoing, presets and runs to begin from, the command, the start."""

import asyncio
import shlex
from typing import TYPE_CHECKING, ClassVar

from textual import getters, on, work
from textual.binding import Binding, BindingType

from qlora_tui.config import adoption
from qlora_tui.config.command_line import CommandLine, command_line
from qlora_tui.config.run import RunConfig
from qlora_tui.config.source_settings import reset_note
from qlora_tui.errors import QloraError
from qlora_tui.ui import setup_summary
from qlora_tui.ui.downloads import missing_downloads
from qlora_tui.ui.drafting import Edits
from qlora_tui.ui.key_routing import DIALOG
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
    """Applies all edits of the draft. Subclasses display it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f9", "start", "Start", id="setup.start", tooltip="Start this run in the background"),
        Binding("ctrl+o", "load", "Load", id="setup.load", tooltip="Begin from a preset or an earlier run"),
        Binding("ctrl+s", "save", "Save", id="setup.save", tooltip="Save as a preset of your own"),
        Binding("ctrl+y", "command", "Command", id="setup.command", tooltip="The same run as a command and as TOML"),
        Binding("ctrl+z", "undo", "Undo", id="setup.undo", tooltip="Undo the last edit", show=False),
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
        """Settings being edited: consecutive edits of the same settings are undone together."""
        self._base: RunConfig | None = None
        self._base_source = ""
        """The initial configuration of the draft, if it is not a stored preset or run."""

    def show_draft(self) -> None:
        """Show the draft and the invalid edits."""
        raise NotImplementedError

    async def show_field(self, key: str) -> None:
        """Put the focus on the field of a setting, or of RUN_NAME."""
        raise NotImplementedError

    @on(ConfigEdited)
    def _edited(self, message: ConfigEdited) -> None:
        message.stop()
        self.edit(message.edits)

    def edit(self, edits: dict[str, str], *, apart: bool = False) -> None:
        """Change the draft if the edit is valid. `apart`: undone separately from earlier edits."""
        if apart:
            self.end_typing()
        draft = self.app.draft
        typing = bool(self._past) and tuple(edits) == self._last_keys
        changed = self.edits.apply(draft, edits, self._past[-1][0] if typing else draft)
        if changed == draft:
            self.show_draft()
        elif typing and changed == self._past[-1][0]:
            self._replace(*self._past.pop())
            self.end_typing()
        else:
            if not typing:
                self._remember()
            self._last_keys = tuple(edits)
            self._replace(changed, setup_summary.edited(self.app.draft_source))
            if note := reset_note(draft, changed):
                self.notify(f"{note} Press Ctrl+Z to undo.", markup=False)

    def end_typing(self) -> None:
        """Start a new undo step; an invalid edit reverts to the current value."""
        self._last_keys = ()

    def adopt(self, model_id: str, context_tokens: int | None) -> None:
        """Choose another model, with the hyperparameters of its preset and the edits made here."""
        before = self.app.draft
        try:
            adopted = adoption.for_model(before, self.draft_base(), model_id, context_tokens=context_tokens)
        except QloraError as error:
            self.app.complain(error)
            return
        self.end_typing()
        self.edits.clear()
        if adopted.config == before:
            self.show_draft()
            return
        self._remember()
        begun = f"preset {adopted.preset}" if adopted.preset else "defaults"
        self._base, self._base_source = adopted.base, begun
        unchanged = setup_summary.base_of(begun) == adopted.config
        self._replace(adopted.config, begun if unchanged else setup_summary.edited(begun))
        self.notify(
            setup_summary.told_adopted(before, adopted), title=f"Settings from {begun}", markup=False, timeout=10
        )

    def draft_base(self) -> RunConfig:
        """Return the initial configuration of the draft: differences are the user's edits."""
        begun = setup_summary.unedited(self.app.draft_source)
        if begun != self._base_source or self._base is None:
            self._base, self._base_source = setup_summary.base_of(begun) or self.app.draft, begun
        return self._base

    def _remember(self) -> None:
        self._past = [*self._past[1 - _UNDONE :], (self.app.draft, self.app.draft_source)]

    def _replace(self, config: RunConfig, source: str) -> None:
        self.app.draft_source = source
        self.app.draft = config

    def begin_from(self, config: RunConfig, source: str) -> None:
        """Replace the draft by a preset or a run, which can be undone."""
        self._remember()
        self.end_typing()
        self.edits.clear()
        self._replace(config, source)
        self.show_draft()

    def action_undo(self) -> None:
        """Undo the last edit: an invalid one, else the last change of the draft."""
        self.end_typing()
        if self.edits.pending:
            self.edits.clear()
            self.show_draft()
        elif self._past:
            self._replace(*self._past.pop())
        else:
            self.notify("Nothing to undo.")

    @property
    def command(self) -> CommandLine:
        """The command that starts what is on the screen."""
        return command_line(self.app.draft, setup_summary.preset_of(self.app.draft_source))

    @property
    def shell_lines(self) -> list[str]:
        """The command for a shell, with the name of the run where it was given one."""
        return [*self.command.shell_lines(), *([f"--name {shlex.quote(self.run_title)}"] if self.run_title else [])]

    @work(group=DIALOG, exclusive=True)
    async def action_command(self) -> None:
        """Show the command and the TOML."""
        from qlora_tui.config.toml_file import to_toml
        from qlora_tui.ui.screens.setup_dialogs import ShowCommand

        if not await self._is_valid("No command", named=True):
            return
        toml = to_toml(self.app.draft, sparse=True).strip() or "# Every setting has its default."
        self.app.push_screen(ShowCommand(self.shell_lines, toml))

    @work(group=DIALOG, exclusive=True)
    async def action_load(self) -> None:
        """Begin from a preset or a run."""
        from qlora_tui.ui.screens.setup_dialogs import LoadDraft

        chosen = await self.app.push_screen_wait(LoadDraft(await asyncio.to_thread(setup_summary.beginnings)))
        if chosen is None:
            return
        try:
            self.begin_from(await asyncio.to_thread(setup_summary.load, chosen), f"{chosen.kind} {chosen.name}")
        except QloraError as error:
            self.app.complain(error)

    @work(group=DIALOG, exclusive=True)
    async def action_save(self) -> None:
        """Save the draft as a preset."""
        from qlora_tui.ui.screens.setup_dialogs import SavePreset

        if not await self._is_valid("Not saved"):
            return
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

    @work(group="start", exclusive=True)
    async def action_start(self) -> None:
        """Start the run: after a yes where it does not fit or something has to be downloaded."""
        from qlora_tui.runs.missing import sentence

        if not await self._is_valid("Not started", named=True):
            return
        if self.app.starting:
            return
        self.notify("Checking the model and the data before the run starts.")
        command = self.command
        price = await self.price_here()
        price = price if price is not None and price.config == self.app.draft else None
        if price is not None and price.verdict.answer == "does not fit":
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
            StartRequested(
                config,
                self.run_title or None,
                preset=command.preset,
                allow_download=bool(downloads),
                estimate=price.entry if price is not None else None,
            )
        )

    def take_typed(self) -> None:
        """Apply the focused field, whose last key event may be pending."""
        raise NotImplementedError

    def unfinished(self) -> tuple[str, str] | None:
        """Return a field with text that was not applied, by dotted key, and what to do."""
        raise NotImplementedError

    async def price_here(self) -> Price | None:
        """The price of the draft on this machine, once it is known."""
        raise NotImplementedError

    async def _is_valid(self, refusal: str, *, named: bool = False) -> bool:
        """Return whether all fields are valid and applied; otherwise show the field that is not.

        `named`: the run's name counts too. `refusal`: title of the message.
        """
        self.take_typed()
        trouble = self.unfinished()
        if key := next(iter(self.edits.pending), None):
            trouble = key, self.edits.reasons.get(key, "is invalid")
        elif trouble is None and named and (problem := setup_summary.run_name_problem(self.run_title)):
            trouble = RUN_NAME, problem
        if trouble is None:
            return True
        self.notify(f"{trouble[0]}: {trouble[1]}", title=refusal, severity="error", markup=False)
        await self.show_field(trouble[0])
        return False
