"""The third section of Setup: which rows are trained on, and what the loss will see of them.

The rows are looked at in a child process, so nothing here reads data; `Inspection` speaks with it.
"""

import json
from collections.abc import Mapping
from typing import Any

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Button, Static

from qlora_tui.config.run import RunConfig
from qlora_tui.data.choices import file_choices, known_choices
from qlora_tui.errors import QloraError
from qlora_tui.terminal import printable
from qlora_tui.ui.inspection import Event, Inspection
from qlora_tui.ui.messages import ConfigEdited
from qlora_tui.ui.pricing import Counted
from qlora_tui.ui.screens.check_rows import CheckRows
from qlora_tui.ui.widgets.column_field import ColumnsForm
from qlora_tui.ui.widgets.data_picker import DataPicker
from qlora_tui.ui.widgets.download_question import DownloadQuestion
from qlora_tui.ui.widgets.length_histogram import LengthHistogram
from qlora_tui.ui.widgets.reading_list import ReadingList
from qlora_tui.ui.widgets.settings_form import SettingsForm, remaining
from qlora_tui.ui.widgets.token_preview import TokenPreview

_PAUSE_S = 0.6
"""The data is looked at when nothing has been changed for so long."""

_SHOWN_ROWS = 24
_FIRST = ("data.format", "data.template", "data.system_prompt", "data.eval_rows", "data.length_policy")
COLUMNS = remaining("data.columns")
_SEEN = ("model", "data", "training")
"""Tables of the configuration that decide what an inspection says."""


class DataSection(VerticalScroll):
    """Posts ConfigEdited, and Measured when the lengths of all rows are known."""

    DEFAULT_CSS = """
    DataSection {
        height: 1fr;
        #data-stage { height: auto; padding: 0 1; color: $text-muted; }
        #data-actions { height: 1; padding: 0 1; }
        #data-actions Button { margin: 0 2 0 0; }
        #data-evidence { height: auto; padding: 0 1; }
    }
    """
    HELP = """\
## Data

A known set, a file or folder, or a hub id. Its first rows are looked at as soon as it is chosen: what format they
have and why, how many tokens, and which of them are trained. `i` counts every row, `x` stops that. `v` compares the
first rows as read, as trained and as prompted.
"""

    class Measured(Message):
        """Rows were looked at."""

        def __init__(self, config: RunConfig, counted: Counted | None, tokens_per_row: float) -> None:
            super().__init__()
            self.config = config
            self.counted = counted
            """All rows; None when only the first ones were looked at."""
            self.tokens_per_row = tokens_per_row
            """Of those that were looked at, cut at the limit."""

    def __init__(self) -> None:
        super().__init__(id="section-data")
        self._config = RunConfig()
        self._looked_at: Any = None
        self._numbers: dict[str, Any] | None = None
        self._title = ""
        self._pause: Timer | None = None
        self._inspection: Inspection | None = None
        self._format = ("", "")

    def compose(self) -> ComposeResult:
        yield DataPicker()
        yield Static("", id="data-stage", markup=False)
        with Horizontal(id="data-actions"):
            yield Button("Count all rows (i)", id="data-count", compact=True)
            yield Button("Check rows (v)", id="data-check", compact=True)
            yield Button("Stop (x)", id="data-cancel", compact=True)
        yield DownloadQuestion()
        yield ReadingList()
        yield Static("", id="data-evidence", markup=False)
        yield ColumnsForm()
        yield TokenPreview()
        yield LengthHistogram()
        yield SettingsForm(_FIRST)
        yield SettingsForm((), remaining("data", "data.source", *_FIRST, *COLUMNS), title="Splits, mix, limits …")

    def on_mount(self) -> None:
        self.query_one("#data-cancel").display = False
        self._list_choices("")

    def show(self, config: RunConfig, pending: Mapping[str, str], reasons: Mapping[str, str]) -> None:
        """Show the draft; when it is in view and the data changed, look at it again."""
        before, self._config = self._config, config
        if before.data.source != config.data.source:
            self._list_choices("")
            self._forget()
        for form in self.query(SettingsForm):
            form.show(config, pending, reasons)
        self.query_one(DataPicker).show_source(config.data.source)
        if self._numbers is not None:
            self.query_one(LengthHistogram).show(self._numbers, config.training.max_length_tokens, self._title)
        self.look()

    def format_of(self, source: str) -> str:
        """The format that was found in a source; empty while it is not known."""
        looked_at, found = self._format
        return found if looked_at == source else ""

    def look(self) -> None:
        """Look at the first rows, unless this was done for these settings. Does nothing while out of view."""
        if not self.display or self._looked_at == self._seen():
            return
        if self._pause is not None:
            self._pause.stop()
        self._pause = self.set_timer(_PAUSE_S, lambda: self._begin(quick=True))

    def count(self) -> None:
        """Look at every row."""
        self._begin(quick=False)

    def check(self) -> None:
        """Compare the first rows as read, as trained and as prompted."""
        self.app.push_screen(CheckRows(self._config))

    def cancel(self) -> None:
        """End the look into the data."""
        self.workers.cancel_group(self, "inspection")
        self._rest("stopped")

    def _seen(self) -> Any:
        return tuple(getattr(self._config, table) for table in _SEEN)

    def _begin(self, *, quick: bool) -> None:
        self._looked_at = self._seen()
        self._inspect(self._config, quick=quick)

    @work(group="inspection", exclusive=True, exit_on_error=False)
    async def _inspect(self, config: RunConfig, *, quick: bool) -> None:
        self._inspection = inspection = Inspection(config, shown_rows=_SHOWN_ROWS, quick=quick)
        self.query_one(DownloadQuestion).withdraw()
        self.query_one(ReadingList).offer([])
        self._stage("looking at the first rows …", busy=True)
        try:
            async for event in inspection.events():
                await self._hear(event, config)
        except QloraError as error:
            self._fail(error.message, error.hint)
        else:
            self.query_one("#data-cancel").display = False
        self.query_one(DownloadQuestion).withdraw()

    async def _hear(self, event: Event, config: RunConfig) -> None:
        match event["event"]:
            case "source":
                self._show_source(event, config)
            case "sample":
                self.query_one(TokenPreview).show(event["rows"])
            case "picks":
                self.query_one(TokenPreview).add(event["rows"])
            case "estimate" | "report":
                self._show_numbers(event, config)
            case "progress":
                total = f" of {event['total']:,}" if event["total"] else ""
                self._stage(f"{event['stage']}: {event['done']:,}{total}", busy=True)
            case "download":
                question = f"{event['what']} is not on this machine: {event['size']} would go to {event['to']}"
                self.query_one(DownloadQuestion).ask(question)
            case "error":
                self._fail(event["message"], event["hint"])
                self.query_one("#data-evidence", Static).update("")
                self.query_one(ReadingList).offer(event["choices"])
                if event["columns"]:
                    self.query_one(ColumnsForm).offer(event["columns"])
                    await self.query_one(ColumnsForm).unfold()

    def _show_source(self, event: Event, config: RunConfig) -> None:
        used = ", ".join(f"{kind} = {name}" for kind, name in event["used_columns"].items())
        said = [
            f"format {event['format']} ({event['confidence']:.0%} sure)  uses {used}",
            *(f"because {reason}" for reason in event["evidence"]),
            *(f"note: {note}" for note in event["notes"]),
            *(f"bad row {bad['where']}: {bad['reason']}" for bad in event["first_bad_rows"]),
        ]
        self.query_one("#data-evidence", Static).update(Content(printable("\n".join(said))))
        self._format = (config.data.source, str(event["format"]))
        self.query_one(ColumnsForm).offer(event["columns"])

    def _show_numbers(self, event: Event, config: RunConfig) -> None:
        complete = event["event"] == "report"
        self._numbers = event
        rows, steps = event["rows"], event["epochs"]["total_steps"]
        self._title = f"all {rows:,} rows" if complete else f"the first {rows:,} rows"
        self.query_one(LengthHistogram).show(event, self._config.training.max_length_tokens, self._title)
        warnings = event["prepared"]["warnings"] if complete else event["warnings"]
        flags = [f"{flag['rows']:,} rows with {flag['meaning']}" for flag in event["flags"]]
        stage = f"{self._title}; {event['longer_share']:.1%} longer than {event['max_length_tokens']:,} tokens"
        stage += f"; {steps:,} optimizer steps" if complete else ""
        self._rest("\n".join([stage, *(f"! {one}" for one in (*warnings, *flags))]))
        per_row = event["tokens"] / (event.get("train_rows", rows) or 1)
        self.post_message(self.Measured(config, _counted(config, event) if complete else None, per_row))

    def _forget(self) -> None:
        """Clear the view while another source is read."""
        self.workers.cancel_group(self, "inspection")
        self._format, self._numbers, self._title = ("", ""), None, ""
        self._stage("", busy=False)
        self.query_one("#data-evidence", Static).update("")
        self.query_one(DownloadQuestion).withdraw()
        self.query_one(ReadingList).offer([])
        self.query_one(ColumnsForm).offer([])
        self.query_one(TokenPreview).show([])
        self.query_one(LengthHistogram).show(None, 0)

    def _stage(self, text: str, *, busy: bool) -> None:
        self.query_one("#data-stage", Static).update(Content(printable(text)))
        self.query_one("#data-cancel").display = busy

    def _rest(self, text: str) -> None:
        self._stage(text, busy=False)

    def _fail(self, message: str, hint: str) -> None:
        text = printable(f"{message}\n{hint}".strip())
        self.query_one("#data-stage", Static).update(Content.styled(text, "$text-error"))
        self.query_one("#data-cancel").display = False
        self.query_one(TokenPreview).show([])
        self._numbers = None
        self.query_one(LengthHistogram).show(None, 0)

    @on(DownloadQuestion.Answered)
    async def _answered(self, message: DownloadQuestion.Answered) -> None:
        message.stop()
        if self._inspection is not None:
            await self._inspection.answer(message.agreed)

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        match event.button.id:
            case "data-count":
                self.count()
            case "data-check":
                self.check()
            case "data-cancel":
                self.cancel()

    @on(DataPicker.Typed)
    def _typed(self, message: DataPicker.Typed) -> None:
        message.stop()
        self._list_choices(message.text)

    @on(DataPicker.Taken)
    def _taken(self, message: DataPicker.Taken) -> None:
        message.stop()
        self.post_message(ConfigEdited({"data.source": json.dumps(message.source, ensure_ascii=False)}))

    def _list_choices(self, text: str) -> None:
        known = known_choices()
        path = text.startswith((".", "/", "~"))
        files = file_choices(text) if path or not text else []
        words = text.lower()
        named = [one for one in known if words in f"{one.source} {one.title}".lower()]
        self.query_one(DataPicker).show([*([] if path else named), *files] or known, self._config.data.source)


def _counted(config: RunConfig, report: Event) -> Counted | None:
    """All rows, by the report on them; None for a stream, whose end was not seen."""
    if not report["longest_train_tokens"]:
        return None
    return Counted(
        config=config,
        full_tokens=report["longest_tokens"],
        train_tokens=report["longest_train_tokens"],
        eval_tokens=report["longest_eval_tokens"],
        train_rows=report["train_rows"],
        tokens=report["tokens"],
        eval_rows=report["eval_rows"],
    )
