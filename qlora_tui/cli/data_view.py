"""The screen of `data inspect`, printed piece by piece. All text of the data is inert: never markup, never controls."""

from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from qlora_tui.cli.inert_console import InertConsole
from qlora_tui.cli.token_view import TokenView
from qlora_tui.config.run import RunConfig
from qlora_tui.terminal import printable

_BARS, _PLAIN_BARS = ("█", "▒"), ("#", "+")
"""For rows within and beyond the longest length."""

_LONG = {"downloading": 8_000_000, "hashing": 8_000_000, "reading": 8_000_000}
_LONG_ROWS = 10_000
"""From so many bytes or rows on the first rows' numbers are worth showing while all are counted."""


class View:
    """Prints the events of an inspection to stdout, progress to stderr."""

    def __init__(self, config: RunConfig, *, ids: bool) -> None:
        self._config = config
        self._console = InertConsole()
        self._tokens = TokenView(self._console, ids=ids)
        self._bars = _BARS if self._console.encoding.lower().startswith("utf") else _PLAIN_BARS
        self._told: set[str] = set()
        self._estimate: dict[str, Any] | None = None
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._stage = ""

    def source(self, event: dict[str, Any]) -> None:
        """What the rows are and why they are taken for that."""
        facts = Table.grid(padding=(0, 2))
        facts.add_column(style="dim", no_wrap=True)
        facts.add_column(overflow="fold")
        used = ", ".join(f"{kind} = {name}" for kind, name in event["used_columns"].items())
        facts.add_row("columns", inert(", ".join(event["columns"])))
        facts.add_row("format", inert(f"{event['format']} ({event['confidence']:.0%} sure)"))
        facts.add_row("uses", inert(used))
        for index, evidence in enumerate(event["evidence"]):
            facts.add_row("because" if index == 0 else "", inert(evidence))
        self._told |= {*event["notes"]}
        for note in event["notes"]:
            facts.add_row("note", inert(note))
        for bad in event["first_bad_rows"]:
            facts.add_row("bad row", inert(f"{bad['where']}: {bad['reason']}"))
        self._section(event["label"], facts)

    def sample(self, event: dict[str, Any]) -> None:
        """The first rows as the model will see them."""
        template = event["template"]
        how = f"template: {template['name']}; loss on {self._config.training.loss_on}"
        if event["whole_text"]:
            how = "finished text without turns: no template, all of it trained"
        said = [inert(f"tokenizer: {self._config.model.id}; {how}")]
        self._told |= {*template["notes"]}
        said += [inert(note) for note in template["notes"] if not event["whole_text"]]
        shown = [self._tokens.row(row) for row in event["rows"]]
        if shown:
            self._section("as the model sees it", *said, *shown, self._tokens.legend())
        else:
            self._section("as the model sees it", *said)

    def estimate(self, event: dict[str, Any]) -> None:
        """Keep the numbers of the first rows; shown if there is more to count."""
        self._estimate = event

    def progress(self, event: dict[str, Any]) -> None:
        """How far the count of all rows is; the first rows' numbers are shown when it begins."""
        long = _LONG.get(event["stage"], _LONG_ROWS)
        if (event["total"] or long) >= long:
            self._show_estimate(more=True)
        if self._progress is None:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.percentage:3.0f}%", markup=False),
            )
            console = InertConsole(stderr=True)
            disabled = not console.is_terminal
            self._progress = Progress(
                *columns, TimeRemainingColumn(), console=console, transient=True, disable=disabled
            )
            self._progress.start()
        if self._task is None or event["stage"] != self._stage:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._stage = event["stage"]
            self._task = self._progress.add_task(printable(self._stage), total=event["total"])
        self._progress.update(self._task, completed=event["done"], total=event["total"])

    def report(self, event: dict[str, Any]) -> None:
        """The numbers of all rows."""
        self.close()
        self._estimate = None
        prepared = event["prepared"]
        title = "all rows" if prepared["complete"] else f"the first {event['rows']:,} rows of the stream"
        self._numbers(title, event)
        counts = {
            "rows read": prepared["rows_read"],
            "skipped as bad": prepared["bad_rows"],
            "exact duplicates": prepared["duplicate_rows"],
            "removed as duplicates": prepared["removed_duplicates"],
            "kept out, on both sides of the split": prepared["kept_apart_rows"],
            "training rows": prepared["train_rows"],
            "evaluation rows": prepared["eval_rows"],
        }
        always = ["rows read", "training rows"]
        if not self._config.data.streaming:  # The rows of a stream are not compared.
            always.append("exact duplicates")
        lines = [
            f"{count:,} {name.removesuffix('s') if count == 1 else name}"
            for name, count in counts.items()
            if count or name in always
        ]
        self._section("what training gets", inert("; ".join(lines)), *self._steps(event))
        notes = [note for note in prepared["notes"] if note not in self._told]
        self._trouble(event["flags"], prepared["warnings"], notes)

    def finish(self) -> None:
        """What is left to show when no more events come."""
        self.close()
        self._show_estimate(more=False)

    def close(self) -> None:
        """Take the progress bar off the terminal."""
        if self._progress is not None:
            self._progress.stop()
            self._progress, self._task = None, None

    def _show_estimate(self, *, more: bool) -> None:
        event, self._estimate = self._estimate, None
        if event is None:
            return
        self._numbers(f"the first {event['rows']:,} rows" + (" (all are being counted)" if more else ""), event)
        if not more:
            self._section("if these were all", *self._steps(event))
        self._trouble(event["flags"], event["warnings"], [])

    def _numbers(self, title: str, event: dict[str, Any]) -> None:
        longest = event["max_length_tokens"]
        beyond = any(one["rows"] and one["from_tokens"] >= longest for one in event["histogram"])
        # p100 is the longest row, which has a line of its own.
        percentiles = ", ".join(f"{name} {tokens:,}" for name, tokens in event["percentiles"].items() if name != "p100")
        self._section(
            title,
            inert(f"tokens in a row: {percentiles}"),
            *self._histogram(event["histogram"], longest),
            inert(
                f"{event['tokens']:,} tokens, {event['trained_share']:.1%} trained; "
                f"{event['longer_share']:.1%} of rows longer than {longest:,} tokens"
                + (f" ({self._bars[True]})" if beyond else "")
            ),
            inert(f"longest row: {event['longest_origin']}, {event['longest_tokens']:,} tokens"),
        )

    def _histogram(self, bins: list[dict[str, int]], longest: int) -> list[RenderableType]:
        if not bins:
            return []
        most = max(one["rows"] for one in bins)
        label_width = len(f"{bins[-1]['to_tokens']:,}")
        count_width = len(f"{most:,}")
        room = max(8, min(60, self._console.width - 2 * label_width - count_width - 12))
        lines: list[RenderableType] = []
        for one in bins:
            length = max(1, round(room * one["rows"] / most)) if one["rows"] else 0
            line = Text()
            start, end = (f"{one[name]:>{label_width},}" for name in ("from_tokens", "to_tokens"))
            line.append(f"{start} to {end}  " if start != end else f"{' ' * label_width}    {end}  ", style="dim")
            line.append(f"{one['rows']:>{count_width},} ")
            beyond = one["from_tokens"] >= longest
            line.append(self._bars[beyond] * length, style="red" if beyond else "cyan")
            lines.append(line)
        return lines

    def _steps(self, event: dict[str, Any]) -> list[Text]:
        epochs, training = event["epochs"], self._config.training
        batch = f"{training.micro_batch_size} x {training.gradient_accumulation_steps}"
        noun = "step" if epochs["steps_per_epoch"] == 1 else "steps"
        epoch = f"{epochs['steps_per_epoch']:,} {noun} and {epochs['tokens_per_epoch']:,} tokens an epoch"
        lines = [inert(f"{epoch} at batch {batch}; {epochs['total_steps']:,} in all")]
        if epochs["packed_rows"] is not None:
            lines.append(inert(f"packed into about {epochs['packed_rows']:,} sequences"))
        return lines

    def _trouble(self, flags: Iterable[dict[str, Any]], warnings: list[str], notes: list[str]) -> None:
        alarms = [*warnings]
        for flag in flags:
            where = f" (first: {flag['example']})" if flag["example"] else ""
            rows = "row" if flag["rows"] == 1 else "rows"
            alarms.append(f"{flag['rows']:,} {rows} with {flag['meaning']}{where}")
        # A grid, so that the wrapped lines of a long one stand under its text.
        lines = Table.grid(padding=(0, 1))
        lines.add_column(no_wrap=True, min_width=1)
        lines.add_column(overflow="fold")
        for alarm in alarms:
            lines.add_row(Text("!", style="bold yellow"), inert(alarm))
        for note in notes:
            lines.add_row("", inert(note))
        if lines.row_count:
            self._section("look at this", lines)

    def _section(self, title: str, *content: RenderableType) -> None:
        self._console.print(inert(title, style="bold"))
        self._console.print(Padding(Group(*content), (0, 0, 1, 2), expand=False))


def inert(text: str, *, style: str = "") -> Text:
    """Foreign text on one line: no markup, no controls."""
    return Text(printable(text, one_line=True), style=style, overflow="fold")
