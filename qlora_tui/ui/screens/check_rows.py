"""Check rows: the first rows of the draft's data as read, as trained and as prompted. The panel of `data check`."""

from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from qlora_tui.config.run import RunConfig
from qlora_tui.data import checked_rows
from qlora_tui.errors import QloraError
from qlora_tui.terminal import printable
from qlora_tui.ui.inspection import Event, Inspection
from qlora_tui.ui.widgets.download_question import DownloadQuestion
from qlora_tui.ui.widgets.vim import VimKeys

_ROWS = 100
"""Rows that are checked, counted from the first."""

_LONGEST_TEXT = 20_000
"""Characters of a text that are shown: a longer one takes too long to wrap."""

_VIEWS = (("trained", "Trained text"), ("prompt", "Prompt for the last answer"))


class CheckedRows(OptionList, VimKeys):
    """One line per row: result, origin, trained tokens, problem."""

    HELP = """\
## Check rows

Each line is a row: whether it passes, its status, how many of its tokens are trained, and the problem. Below, the
chosen row as read, the text of its trained tokens, and the prompt for its last answer. A row passes when it is trained
and prompted unchanged, or loses only what training reports. `f` goes to the next row that fails, Tab to the texts.
"""


class RowTexts(VerticalScroll, VimKeys):
    """The views of the chosen row."""

    HELP = CheckedRows.HELP


class CheckRows(ModalScreen[None]):
    """Checks the rows in a child process, as `data check` does. Leaving it ends the process."""

    CSS_PATH = "check_rows.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Back", id="check.back", tooltip="Back to Setup"),
        Binding("f", "next_failing", "Next failing", id="check.failing", tooltip="To the next row that fails"),
    ]

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self._config = config
        self._inspection: Inspection | None = None
        self._rows: list[dict[str, Any]] = []
        self._notes: list[str] = []
        self._failed = False

    def compose(self) -> ComposeResult:
        with Vertical(id="check-box") as box:
            box.border_title = "Check rows"
            box.border_subtitle = "f next failing row, Tab texts, Escape closes"
            yield Static("Checking the first rows …", id="check-summary", markup=False)
            yield DownloadQuestion()
            yield CheckedRows(markup=False, compact=True)
            with RowTexts():
                yield Static("", id="check-texts", markup=False)

    def on_mount(self) -> None:
        self._check()

    @work(exclusive=True, exit_on_error=False)
    async def _check(self) -> None:
        self._inspection = Inspection(self._config, shown_rows=_ROWS, quick=True, check=True)
        try:
            async for event in self._inspection.events():
                self._receive(event)
        except QloraError as error:
            self._fail(error.message, error.hint)
        if not self._rows and not self._failed:
            self._fail("The rows were not checked: the process ended without a result.", "")

    def _receive(self, event: Event) -> None:
        match event["event"]:
            case "download":
                question = f"{event['what']} is not on this machine: {event['size']} would go to {event['to']}"
                self.query_one(DownloadQuestion).ask(question)
            case "source":
                self._notes = event["notes"]
            case "check":
                self._notes += event["notes"]
                self._show(event["rows"])
            case "error":
                self._fail(event["message"], event["hint"])

    def _show(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows
        said = [
            f"{checked_rows.counts(rows)} (the first {_ROWS} are checked)",
            *(f"note: {one}" for one in self._notes),
        ]
        self._say("\n".join(said), failed=any(not row["passes"] for row in rows))
        listed = self.query_one(CheckedRows)
        listed.set_options(Option(_line(row)) for row in rows)
        listed.highlighted = next((at for at, row in enumerate(rows) if not row["passes"]), 0 if rows else None)
        listed.focus()

    def _fail(self, message: str, hint: str) -> None:
        self._failed = True
        self._say(f"{message}\n{hint}".strip(), failed=True)

    def _say(self, text: str, *, failed: bool) -> None:
        style = "$text-error" if failed else "$text-success"
        self.query_one("#check-summary", Static).update(Content.styled(printable(text), style))

    @on(OptionList.OptionHighlighted)
    def _show_row(self, event: OptionList.OptionHighlighted) -> None:
        row = self._rows[event.option_index]
        self.query_one("#check-texts", Static).update(_texts(row))
        self.query_one(RowTexts).scroll_home(animate=False)

    @on(OptionList.OptionSelected)
    def _read_row(self) -> None:
        self.query_one(RowTexts).focus()

    def action_next_failing(self) -> None:
        """Go to the next row that fails, from the last one back to the first."""
        listed = self.query_one(CheckedRows)
        failing = [at for at, row in enumerate(self._rows) if not row["passes"]]
        if not failing:
            self.notify("No row fails.")
            return
        current = listed.highlighted if listed.highlighted is not None else -1
        listed.highlighted = next((at for at in failing if at > current), failing[0])

    @on(DownloadQuestion.Answered)
    async def _answered(self, message: DownloadQuestion.Answered) -> None:
        message.stop()
        if self._inspection is not None:
            await self._inspection.answer(message.agreed)


def _line(row: dict[str, Any]) -> Content:
    mark, style = ("✓", "$text-success") if row["passes"] else ("✗", "$text-error")
    return Content.assemble(
        (f"{mark} {row['status']:<17} ", style),
        f"{printable(row['origin'], one_line=True)}  ",
        (f"{row['trained_tokens']:,} of {row['tokens']:,} tokens trained  ", "$text-muted"),
        printable(row["problem"], one_line=True),
    )


def _texts(row: dict[str, Any]) -> Content:
    texts = [("Result", checked_rows.result(row)), ("Problem", row["problem"] or "none")]
    texts += [("As read", checked_rows.as_read(row)), *((title, row[key] or "none") for key, title in _VIEWS)]
    parts = [Content.assemble((title, "bold"), "\n", printable(_shortened(text)), "\n") for title, text in texts]
    return Content("\n").join(parts)


def _shortened(text: str) -> str:
    more = len(text) - _LONGEST_TEXT
    return f"{text[:_LONGEST_TEXT]} … and {more:,} more characters" if more > 0 else text
