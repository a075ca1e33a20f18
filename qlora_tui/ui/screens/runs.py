"""Runs: every run in a table, what a person does with them afterwards, and the queue."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from qlora_tui.errors import QloraError, UsageError
from qlora_tui.runs import damage, deleted, jobs, labels, queue, store, waiting
from qlora_tui.runs.deleted import DeletedRun
from qlora_tui.runs.shelf import Glimpse, Shelf
from qlora_tui.terminal import printable
from qlora_tui.ui import messages
from qlora_tui.ui.downloads import missing_downloads
from qlora_tui.ui.key_routing import DIALOG
from qlora_tui.ui.screens.place import Place
from qlora_tui.ui.widgets.ask_text import AskText
from qlora_tui.ui.widgets.confirm import Confirm
from qlora_tui.ui.widgets.queue_line import QueueLine
from qlora_tui.ui.widgets.run_table import RunTable
from qlora_tui.units import disk

_EVERY_S = 2.0
_MOST_COMPARED = 5


class RunsRead(Message):
    """All runs and the queue were looked at."""

    def __init__(
        self, glimpses: tuple[Glimpse, ...], waiting: tuple[str, ...], obstacle: str, in_bin: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.glimpses = glimpses
        self.waiting = waiting
        self.obstacle = obstacle
        self.in_bin = in_bin


class DamageFound(Message):
    """The adapter of a run was read and is damaged."""

    def __init__(self, glimpse: Glimpse, sentence: str) -> None:
        super().__init__()
        self.glimpse = glimpse
        self.sentence = sentence


class RunsPlace(Place):
    """All runs."""

    NAME = "runs"
    CSS_PATH = "runs.tcss"
    AUTO_FOCUS = "RunTable"
    HELP = """
### All runs
The filter takes words: a run is shown when each of them is in its name, status, model, data or tags. Enter goes to
the table, escape clears the filter. The queue starts the next run when one has ended and memory is free, whether or
not this program is open: `qlora-tui queue list` shows it from any shell.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", id="runs.filter", tooltip="Show only runs with these words"),
        Binding("e", "rename", "Rename", id="runs.rename", tooltip="Give the run another name"),
        Binding("t", "tag", "Tags", id="runs.tag", tooltip="Words to find the run by"),
        Binding("x,delete", "delete", "Delete", id="runs.delete", tooltip="Move the run to the bin for 7 days"),
        Binding("u", "undo", "Undo", id="runs.undo", tooltip="Restore the run that was deleted last"),
        Binding("c", "compare", "Compare", id="runs.compare", tooltip="Compare the marked runs"),
        Binding("a", "queue", "Queue", id="runs.queue", tooltip="Queue a preset, to start when the machine is free"),
        Binding("w", "unqueue", "Unqueue", show=False, id="runs.unqueue", tooltip="Take the run out of the queue"),
        Binding(
            "E", "empty_bin", "Empty bin", show=False, id="runs.empty-bin", tooltip="Free the disk of deleted runs"
        ),
        Binding("escape", "clear", "Clear", show=False, id="runs.clear", tooltip="Clear filter and marks"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._shelf = Shelf()
        self._in_bin: tuple[str, ...] = ()
        """Names of the deleted runs, the one deleted last first."""
        self._damage: dict[Glimpse, str] = {}
        """Damage of adapters that was found by reading them. Empty: intact, or being read."""
        self._has_read = False
        self._changing = asyncio.Lock()
        """A change waits for the one before it: undo for the delete."""

    def compose_place(self) -> ComposeResult:
        yield Input(placeholder="words in name, status, model, data or tags", id="run-filter", compact=True)
        yield RunTable(id="run-table")
        yield QueueLine()
        yield Static(id="run-detail", markup=False)
        yield Static("Reading the runs...", id="run-count", markup=False)

    def on_mount(self) -> None:
        self.query_one("#run-filter").display = False
        self.set_interval(_EVERY_S, self._look)

    def on_screen_resume(self) -> None:
        """Coming back shows the present state at once."""
        self._look()

    def _look(self) -> None:
        if self.is_current:
            self._read()

    @work(thread=True, exclusive=True, group="runs", exit_on_error=False)
    def _read(self) -> None:
        in_queue = tuple(entry.name for entry in waiting.waiting())
        in_bin = tuple(entry.name for entry in deleted.entries())
        obstacle = queue.busy(in_queue[0]) if in_queue else ""
        self.post_message(RunsRead(self._shelf.read(), in_queue, obstacle, in_bin))

    @on(RunsRead)
    def _show(self, message: RunsRead) -> None:
        self._has_read = True
        self._table.glimpses = message.glimpses
        line = self.query_one(QueueLine)
        line.waiting, line.obstacle = message.waiting, message.obstacle
        self._in_bin = message.in_bin
        self._count()

    @property
    def _table(self) -> RunTable:
        return self.query_one(RunTable)

    @on(RunTable.Shown)
    @on(RunTable.RowHighlighted)
    def _describe(self) -> None:
        """Show the whole name, model, data and tags of the run under the cursor: the table shortens them."""
        glimpse = self._table.current_glimpse
        detail = self.query_one("#run-detail", Static)
        if glimpse is None:
            detail.update("")
            return
        found = dict.fromkeys((*glimpse.damage, self._damage.get(glimpse, "")))
        words = [Content.styled(printable(sentence, one_line=True), "$error") for sentence in found if sentence]
        detail.update(Content("  ").join([*words, Content(printable(_described(glimpse), one_line=True))]))
        if glimpse not in self._damage and glimpse.status == "finished":
            self._damage[glimpse] = ""
            self._check(glimpse)

    @work(thread=True, group="damage", exit_on_error=False)
    def _check(self, glimpse: Glimpse) -> None:
        with suppress(QloraError):
            sentence = damage.of_adapter(store.find(glimpse.name), by_content=True)
            if sentence:
                self.post_message(DamageFound(glimpse, sentence))

    @on(DamageFound)
    def _show_damage(self, message: DamageFound) -> None:
        self._damage[message.glimpse] = message.sentence
        self._describe()

    @on(RunTable.Shown)
    def _count(self) -> None:
        if not self._has_read:
            return
        table = self._table
        found, pages = len(table.found), table.pages
        text = f"{found} of {len(table.glimpses)} runs"
        if pages > 1:
            text += f", page {table.page + 1} of {pages} ([ and ])"
        if table.marked:
            text += f", {len(table.marked)} marked: c compares"
        if not table.glimpses:
            text = "No runs yet: start one in Setup (F3), or queue a preset with a."
        if self._in_bin:
            text += f"  {len(self._in_bin)} in the bin: u restores {self._in_bin[0]}"
        self.query_one("#run-count", Static).update(text)

    @on(Input.Changed, "#run-filter")
    def _filter(self, event: Input.Changed) -> None:
        self._table.letters = event.value

    @on(Input.Submitted, "#run-filter")
    def _filtered(self) -> None:
        self._table.focus()

    def action_filter(self) -> None:
        """Show and focus the filter."""
        field = self.query_one("#run-filter")
        field.display = True
        self.set_focus(field)  # at once: letters typed right after the key arrive there

    def action_clear(self) -> None:
        """One step back: the filter first, then the marks."""
        field = self.query_one("#run-filter", Input)
        if field.display:
            field.value = ""
            field.display = False
            self._table.focus()
        else:
            self._table.marked = frozenset()

    async def _attempt(self, what: Callable[[], object]) -> bool:
        """Do it in a thread, or say why not; then look again."""
        try:
            await asyncio.to_thread(what)
        except QloraError as error:
            self.post_message(messages.Complained(error))
            return False
        finally:
            self._look()
        return True

    @work(exclusive=True, group=DIALOG)
    async def action_rename(self) -> None:
        """Ask for another name."""
        name = self._table.current
        if name is not None:
            await self._ask(f"Rename {name}", name, lambda text: _rename(name, text))

    @work(exclusive=True, group=DIALOG)
    async def action_tag(self) -> None:
        """Ask for the tags."""
        glimpse = self._table.current_glimpse
        if glimpse is not None:
            before, name = " ".join(glimpse.tags), glimpse.name
            hint = "Words separated by spaces."
            await self._ask(f"Tags of {name}", before, lambda text: _tag(name, text), hint)

    async def _ask(self, question: str, text: str, accept: Callable[[str], object], hint: str = "") -> None:
        """Ask for a text until it is accepted, then show the change."""
        await self.app.push_screen_wait(AskText(question, text, accept, hint))
        self._look()

    @work(group="change")
    async def action_delete(self) -> None:
        """Move the run into the bin."""
        name = self._table.current
        if name is None:
            return
        async with self._changing:
            if await self._attempt(lambda: deleted.delete(_idle(name))):
                self._table.marked -= {name}
                self.notify(f"{name} is in the bin for 7 days. u restores it, E empties the bin.", markup=False)

    @work(group="change")
    async def action_undo(self) -> None:
        """Restore the run that was deleted last, by this window or any other."""
        restored: list[DeletedRun] = []

        def restore_last() -> None:
            if found := deleted.entries():
                deleted.restore(found[0])
                restored.append(found[0])

        async with self._changing:
            if await self._attempt(restore_last):
                self.notify(f"{restored[0].name} is restored." if restored else "The bin is empty.", markup=False)

    @work(exclusive=True, group=DIALOG)
    async def action_empty_bin(self) -> None:
        """Ask, then free the disk."""
        found = await asyncio.to_thread(deleted.entries)
        if not found:
            self.notify("The bin is empty.", markup=False)
            return
        used_bytes = await asyncio.to_thread(lambda: sum(store.size_bytes(entry.run) for entry in found))
        question = Confirm(
            f"Delete {len(found)} {'run' if len(found) == 1 else 'runs'} in the bin permanently?",
            f"{disk(used_bytes)} of checkpoints, adapters and logs cannot be restored.",
            yes="Delete",
            no="Keep",
        )
        if await self.app.push_screen_wait(question):
            await asyncio.to_thread(lambda: deleted.purge(older_than_s=0))
            self.notify(f"Freed {disk(used_bytes)}.", markup=False)
            self._look()

    def action_compare(self) -> None:
        """Compare the marked runs, or the one under the cursor with the marked one."""
        names = [glimpse.name for glimpse in self._table.found if glimpse.name in self._table.marked]
        if len(names) == 1 and self._table.current not in (None, names[0]):
            names.append(str(self._table.current))
        if not 2 <= len(names) <= _MOST_COMPARED:
            self.notify(f"Mark two to {_MOST_COMPARED} runs with space first.", markup=False)
            return
        from qlora_tui.ui.screens.compare import Compare

        self.app.push_screen(Compare(names))

    def action_queue(self) -> None:
        """Choose a preset to queue."""
        from functools import partial

        from qlora_tui.config import presets
        from qlora_tui.ui.setup_summary import title_of

        self.app.search_commands(
            [(one.name, partial(self._queue, one.name), printable(title_of(one))) for one in presets.presets()],
            placeholder="Which preset shall wait for its turn?",
        )

    @work(exclusive=True, group="queue")
    async def _queue(self, preset: str) -> None:
        from qlora_tui.config import presets
        from qlora_tui.runs.missing import sentence
        from qlora_tui.ui import starting

        try:
            config = presets.find(preset).config
            downloads = await missing_downloads(config)
            text = "\n".join(map(sentence, downloads))
            if downloads and not await self.app.push_screen_wait(
                Confirm("Download this when the run's turn comes?", text, yes="Download", no="Do not queue")
            ):
                return
            name = await asyncio.to_thread(starting.enqueue, config, preset, allow_download=bool(downloads))
        except QloraError as error:
            self.post_message(messages.Complained(error))
        else:
            self.notify(f"{name} waits in the queue.", markup=False)
        self._look()

    @work(group="change")
    async def action_unqueue(self) -> None:
        """Take the run under the cursor out of the queue."""
        name = self._table.current
        removed: list[bool] = []
        if name is not None and await self._attempt(lambda: removed.append(queue.remove(name))):
            said = "was removed from the queue; its folder is kept" if removed[0] else "is not in the queue"
            self.notify(f"{name} {said}.", markup=False)


def _described(glimpse: Glimpse) -> str:
    parts = [glimpse.name, " on ".join(filter(None, (glimpse.model, glimpse.data)))]
    parts.append(f"tags: {' '.join(glimpse.tags)}" if glimpse.tags else "")
    return "  ".join(filter(None, parts))


def _rename(name: str, wanted: str) -> None:
    """Rename a run. Raises NotFoundError, UsageError, RunConflictError, StorageError."""
    if wanted.strip() != name:
        labels.rename(_idle(name), wanted.strip())


def _tag(name: str, words: str) -> None:
    """Set the tags of a run. Raises NotFoundError, UsageError, StorageError."""
    labels.set_tags(store.find(name), words.split())


def _idle(name: str) -> store.RunFolder:
    """The run, when no worker is at it. Raises NotFoundError, UsageError."""
    run = store.find(name)
    if jobs.is_alive(run):
        raise UsageError(f"{name} is running", hint="Stop it first, in Run (F4).")
    return run
