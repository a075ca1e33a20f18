"""The table of runs: one page at a time, sorted, filtered, with marks for those to compare."""

from collections.abc import Mapping
from typing import Any, ClassVar

from rich.text import Text
from textual import on
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.reactive import reactive, var
from textual.widgets import DataTable

from qlora_tui.runs.shelf import Glimpse
from qlora_tui.ui.messages import RunRequested
from qlora_tui.ui.statuses import MARKS
from qlora_tui.ui.themes import rich_style
from qlora_tui.ui.widgets.run_columns import cells, shortened, widths
from qlora_tui.ui.widgets.vim import VimKeys

PAGE_ROWS = 100
_DESCENDING_FIRST = {"changed", "step"}


def matches(glimpse: Glimpse, letters: str) -> bool:
    """Whether every word of a filter is in what is known of the run."""
    known = " ".join(
        (
            glimpse.name,
            glimpse.shown_status,
            glimpse.status,
            "damaged" if glimpse.damage else "",
            glimpse.model,
            glimpse.data,
            *glimpse.tags,
        )
    ).lower()
    return all(word in known for word in letters.lower().split())


def sorted_by(glimpses: list[Glimpse], column: str, *, descending: bool) -> list[Glimpse]:
    """Sorted by a column; runs without a value come last."""
    has = [glimpse for glimpse in glimpses if _key(glimpse, column) is not None]
    lacks = [glimpse for glimpse in glimpses if _key(glimpse, column) is None]
    return sorted(has, key=lambda glimpse: _key(glimpse, column), reverse=descending) + lacks


def _key(glimpse: Glimpse, column: str) -> Any:
    match column:
        case "loss":
            return glimpse.loss
        case "eval":
            return glimpse.eval_loss
        case "changed":
            return glimpse.last_event_s or glimpse.created_s
        case "tags":
            return " ".join(glimpse.tags) or None
    return getattr(glimpse, column)


class RunTable(DataTable[Text], VimKeys):
    """Rows of the present page. What it shows follows from its reactives."""

    HELP = """
### Runs
Each row is one run. Enter opens it, Space marks it, **c** compares the marked runs.
Click a heading to sort by it. A deleted run stays in the bin for 7 days; **u** restores the
last deleted run, also after a restart.
**loss** is the smoothed training loss at the last step, **eval** that of the last evaluation.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select_cursor", "Open", id="runs.open", tooltip="Show this run"),
        Binding("space", "mark", "Mark", id="runs.mark", tooltip="Mark this run for a comparison"),
        Binding("s", "sort", "Sort", id="runs.sort", tooltip="Sort by the next column"),
        Binding("S", "reverse", "Reverse", show=False, id="runs.reverse", tooltip="Sort the other way round"),
        Binding("right_square_bracket", "page(1)", "Next page", show=False, id="runs.page-next", tooltip="Next page"),
        Binding(
            "left_square_bracket", "page(-1)", "Previous page", show=False, id="runs.page-back", tooltip="Page before"
        ),
    ]

    glimpses: reactive[tuple[Glimpse, ...]] = reactive((), repaint=False)
    letters: reactive[str] = reactive("", repaint=False)
    sort_column: reactive[str] = reactive("changed", repaint=False)
    descending: reactive[bool] = reactive(True, repaint=False)
    page: reactive[int] = reactive(0, repaint=False)
    marked: var[frozenset[str]] = var(frozenset())

    class Shown(Message):
        """Another page, order or choice of rows is on the screen."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(cursor_type="row", zebra_stripes=False, **kwargs)
        self._drawn: dict[str, dict[str, str]] = {}
        """The texts of each row on screen, by the name of its run."""
        self._widths: dict[str, int] = {}

    def on_mount(self) -> None:
        self._draw()

    def on_resize(self) -> None:
        """Distribute the width again."""
        self._draw()

    @property
    def found(self) -> list[Glimpse]:
        """All runs that pass the filter, in order."""
        kept = [glimpse for glimpse in self.glimpses if matches(glimpse, self.letters)]
        return sorted_by(kept, self.sort_column, descending=self.descending)

    @property
    def pages(self) -> int:
        """How many pages there are, at least one."""
        return max(1, -(-len(self.found) // PAGE_ROWS))

    @property
    def current(self) -> str | None:
        """Name of the run under the cursor."""
        return str(self.ordered_rows[self.cursor_row].key.value) if self.row_count else None

    @property
    def current_glimpse(self) -> Glimpse | None:
        """The run under the cursor."""
        return next((glimpse for glimpse in self.glimpses if glimpse.name == self.current), None)

    def watch_glimpses(self) -> None:
        self._draw()

    def watch_letters(self) -> None:
        self.page = 0
        self._draw()

    def watch_sort_column(self) -> None:
        self._draw()

    def watch_descending(self) -> None:
        self._draw()

    def watch_page(self) -> None:
        self._draw()

    def watch_marked(self) -> None:
        self._draw()

    def _draw(self) -> None:
        """Rows are replaced only when they differ, so that the cursor and the eye can rest."""
        if not self.is_mounted:
            return
        self.set_reactive(RunTable.page, min(self.page, self.pages - 1))
        shown = self.found[self.page * PAGE_ROWS : (self.page + 1) * PAGE_ROWS]
        rows = {
            glimpse.name: cells(glimpse, marked=glimpse.name in self.marked, mark=MARKS[glimpse.shown_status][0])
            for glimpse in shown
        }
        fitted = widths(list(rows.values()), self.scrollable_content_region.width)
        statuses = {glimpse.name: glimpse.shown_status for glimpse in shown}
        if list(rows) == list(self._drawn) and fitted == self._widths:
            self._update_cells(rows, statuses)
        else:
            self._replace_rows(rows, statuses, fitted)
        self._drawn = rows
        self._label_columns()
        self.post_message(self.Shown())

    def _update_cells(self, rows: dict[str, dict[str, str]], statuses: Mapping[str, str]) -> None:
        for name, row in rows.items():
            for column in self._widths:
                if row[column] != self._drawn[name][column]:
                    self.update_cell(name, column, self._cell(column, row, statuses[name]))

    def _replace_rows(
        self, rows: dict[str, dict[str, str]], statuses: Mapping[str, str], fitted: dict[str, int]
    ) -> None:
        name, line = self.current, self.cursor_row
        self.clear(columns=fitted != self._widths)
        if not self.columns:
            for column, width in fitted.items():
                self.add_column(Text(column), width=width, key=column)
        self._widths = fitted
        for run, row in rows.items():
            self.add_row(*(self._cell(column, row, statuses[run]) for column in fitted), key=run)
        names = list(rows)
        self.move_cursor(row=names.index(name) if name in names else min(line, len(rows) - 1))

    def _label_columns(self) -> None:
        for key, column in self.columns.items():
            arrow = (" ▼" if self.descending else " ▲") if key.value == self.sort_column else ""
            column.label = Text(f"{key.value}{arrow}")
        self.refresh()

    def _cell(self, column: str, row: dict[str, str], status: str) -> Text:
        text = shortened(column, row[column], self._widths[column])
        if column != "status":
            return Text(text)
        return Text(text, rich_style(self.app.theme_variables[MARKS[status][1].removeprefix("$")]))

    @on(DataTable.HeaderSelected)
    def _sort_by(self, event: DataTable.HeaderSelected) -> None:
        column = str(event.column_key.value)
        if column == self.sort_column:
            self.descending = not self.descending
        else:
            self._sort(column)

    @on(DataTable.RowSelected)
    def _open(self, event: DataTable.RowSelected) -> None:
        event.stop()
        self.post_message(RunRequested(str(event.row_key.value)))

    def action_sort(self) -> None:
        """Sort by the next column."""
        shown = list(self._widths)
        after = shown.index(self.sort_column) + 1 if self.sort_column in shown else 0
        self._sort(shown[after % len(shown)])

    def _sort(self, column: str) -> None:
        self.descending = column in _DESCENDING_FIRST
        self.sort_column = column

    def action_reverse(self) -> None:
        """Sort the other way round."""
        self.descending = not self.descending

    def action_page(self, step: int) -> None:
        """Another page."""
        self.page = max(0, min(self.page + step, self.pages - 1))

    def action_mark(self) -> None:
        """Mark or unmark the run under the cursor."""
        if self.current is not None:
            self.marked = self.marked ^ {self.current}
