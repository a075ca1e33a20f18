"""Choosing a base model: a line to search or to type a path in, a table of models, and the facts of the marked one."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import DataTable, Input, Static

from qlora_tui.models.choices import Choice
from qlora_tui.terminal import printable
from qlora_tui.ui.widgets.vim import VimKeys
from qlora_tui.units import count, disk

_COLUMNS = (
    ("model", "model", 36),
    ("fit", "fits here", 9),
    ("params", "params", 7),
    ("size", "download", 16),
    ("type", "type", 12),
    ("licence", "licence", 24),
)
"""Key, title and width. Widths are fixed: names that are cut are whole beside the table."""

_ID_WIDTH = 34
_BADGES = {
    "fits": "$text-success",
    "tight": "$text-warning",
    "by paging": "$text-warning",
    "slow": "$text-warning",
    "too big": "$text-error",
}


class ModelTable(DataTable[Content], VimKeys):
    """The models, one a line."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select_cursor", "Choose", id="models.choose", tooltip="Train this model"),
        Binding("slash", "search", "Search", id="models.search", tooltip="Search models here and on the hub"),
    ]
    HELP = """\
## Models

The base models with their size and licence, whether they are gated, and whether the draft fits with them. A model that
is "slow" fits, but would train for more than a day on this CPU. **Enter** chooses the model under the cursor. `/`
searches local and well-known models at once, and the hub after a moment; **Down** moves back to the table. A path
(`~/models`, `./x`) lists the model folders there. Choosing a model does not download it.
"""

    def action_search(self) -> None:
        """Type in the search line. The focus moves at once, so that letters typed right after the key arrive there."""
        self.screen.set_focus(self.screen.query_one("#model-search", Input))


class ModelSearch(Input):
    """Words of a model's name, or a path."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "table", "To the models", id="models.table", tooltip="Move from the search to the models",
                show=False),
    ]  # fmt: skip
    HELP = ModelTable.HELP

    def action_table(self) -> None:
        """Go to the models."""
        self.screen.set_focus(self.screen.query_one(ModelTable))


class ModelPicker(Vertical):
    """Shows choices and posts what the user wants of them; looking for models is the screen's work."""

    DEFAULT_CSS = """
    ModelPicker {
        height: auto;
        #model-search { width: 1fr; }
        #model-status { height: auto; max-height: 2; color: $text-muted; padding: 0 1; }
        #model-columns { height: 22; }
        ModelTable { width: 1fr; height: 100%; scrollbar-size-horizontal: 0; background: $surface; }
        #model-facts { width: 34; height: 100%; padding: 0 1; border-left: vkey $primary 30%; }
        #model-facts:focus { border-left: vkey $primary; }
    }
    """

    class SearchChanged(Message):
        """Other models are to be shown."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Marked(Message):
        """A model is looked at."""

        def __init__(self, choice: Choice) -> None:
            super().__init__()
            self.choice = choice

    class Taken(Message):
        """A model is to be trained."""

        def __init__(self, choice: Choice) -> None:
            super().__init__()
            self.choice = choice

    def __init__(self) -> None:
        super().__init__()
        self._choices: dict[str, Choice] = {}
        self._badges: dict[str, str] = {}
        self._chosen = ""

    def compose(self) -> ComposeResult:
        yield ModelSearch(placeholder="search models, or a folder: ~/models", id="model-search", compact=True)
        yield Static("", id="model-status", markup=False)
        with Horizontal(id="model-columns"):
            yield ModelTable(cursor_type="row", id="model-table")
            with VerticalScroll(id="model-facts"):
                yield Static("", id="model-facts-text", markup=False)

    def on_mount(self) -> None:
        table = self.query_one(ModelTable)
        for key, label, width in _COLUMNS:
            table.add_column(label, key=key, width=width)

    @property
    def marked(self) -> Choice | None:
        """The model under the cursor."""
        table = self.query_one(ModelTable)
        if not table.row_count:
            return None
        return self._choices.get(str(table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value))

    @property
    def choices(self) -> Sequence[Choice]:
        """The models that are shown, in order."""
        return list(self._choices.values())

    def show(self, choices: Sequence[Choice], chosen: str, status: str) -> None:
        """Show these models, the cursor on the one it was on, else on the chosen one."""
        marked = self.marked
        self._chosen = chosen
        self.query_one("#model-status", Static).update(Content(printable(status, one_line=True)))
        table = self.query_one(ModelTable)
        wanted = {choice.id: choice for choice in choices}
        if list(wanted) == list(self._choices):
            self._choices = wanted
            self._refresh_rows()
        else:
            self._choices = wanted
            table.clear()
            for choice in self._choices.values():
                table.add_row(*self._cells(choice), key=choice.id)
            ids = list(wanted)
            at = marked.id if marked is not None and marked.id in wanted else chosen
            if at in wanted:
                table.move_cursor(row=ids.index(at))
        self._show_facts()

    def show_badges(self, badges: Mapping[str, str]) -> None:
        """Say of models by id whether they fit."""
        self._badges = dict(badges)
        self._refresh_rows()

    def _refresh_rows(self) -> None:
        table = self.query_one(ModelTable)
        for choice in self._choices.values():
            for (key, _, _), cell in zip(_COLUMNS, self._cells(choice), strict=True):
                if table.get_cell(choice.id, key) != cell:
                    table.update_cell(choice.id, key, cell)

    def _cells(self, choice: Choice) -> list[Content]:
        name = printable(choice.id, one_line=True)
        name = name if len(name) <= _ID_WIDTH else "…" + name[1 - _ID_WIDTH :]
        chosen = choice.id == self._chosen
        badge = self._badges.get(choice.id, "")
        colour = _BADGES.get(badge, "$foreground 60%")
        gated = " gated" if choice.gated else ""
        return [
            Content.styled(("● " if chosen else "  ") + name, "bold" if chosen else ""),
            Content.styled(badge or "·", colour),
            Content(count(choice.parameters)),
            Content(_size(choice)),
            Content(printable(choice.model_type or "?", one_line=True)),
            Content(printable(choice.licence or "?", one_line=True)[:18] + gated),
        ]

    def _show_facts(self) -> None:
        choice = self.marked
        lines = _facts(choice) if choice is not None else Content("No model matches.")
        self.query_one("#model-facts-text", Static).update(lines)

    @on(Input.Changed, "#model-search")
    def _search(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(self.SearchChanged(event.value))

    @on(Input.Submitted, "#model-search")
    def _to_table(self, event: Input.Submitted) -> None:
        event.stop()
        self.query_one(ModelTable).focus()

    @on(DataTable.RowHighlighted)
    def _mark(self, event: DataTable.RowHighlighted) -> None:
        event.stop()
        choice = self.marked
        self._show_facts()
        if choice is not None:
            self.post_message(self.Marked(choice))

    @on(DataTable.RowSelected)
    def _take(self, event: DataTable.RowSelected) -> None:
        event.stop()
        choice = self._choices.get(str(event.row_key.value))
        if choice is not None:
            self.post_message(self.Taken(choice))


def _size(choice: Choice) -> str:
    if choice.where == "bundled":
        return "bundled"
    if choice.where in ("folder", "cached"):
        return f"here, {disk(choice.stored_bytes)}"
    if choice.download_bytes is None:
        return "?"
    about = "" if choice.exact else "~"
    held = f", {disk(choice.stored_bytes)} here" if choice.stored_bytes else ""
    return f"{about}{disk(choice.download_bytes)}{held}"


def _facts(choice: Choice) -> Content:
    facts = choice.facts
    rows = [("", printable(choice.id, one_line=True)), ("where", choice.where)]
    if facts is not None:
        rows += [
            ("parameters", f"{count(facts.parameters)} ({facts.parameters:,})"),
            ("layers", f"{facts.layers} of width {facts.hidden_size:,}"),
            ("attention", f"{facts.heads} heads, {facts.kv_heads} key-value heads" if facts.heads else ""),
            ("vocabulary", f"{facts.vocab_size:,} tokens"),
            ("context", f"{facts.context_tokens:,} tokens" if facts.context_tokens else ""),
            ("weights", facts.dtype),
            ("type", f"{facts.architecture} ({facts.model_type})"),
        ]
    else:
        rows += [("parameters", count(choice.parameters)), ("type", choice.model_type or "")]
    rows += [
        ("download", _size(choice)),
        ("licence", (choice.licence or "not stated") + (", gated" if choice.gated else "")),
        ("problem", choice.problem),
    ]
    lines = [_line(name, printable(text, one_line=True)) for name, text in rows if text]
    notes = facts.notes if facts is not None else ()
    lines += [Content.styled(printable(note, one_line=True), "$foreground 60%") for note in notes]
    return Content("\n").join(lines)


def _line(name: str, text: str) -> Content:
    if not name:
        return Content.styled(text, "bold")
    return Content.assemble((f"{name:<11}", "$foreground 60%"), text)
