"""`qlora-tui data inspect`: starts the child that looks into the data, and shows what it says as it says it."""

import contextlib
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from qlora_tui.cli import completion
from qlora_tui.cli.command import DATA_OPTIONS, TRAINING_OPTIONS
from qlora_tui.cli.consent import agrees, asked_number
from qlora_tui.cli.data_options import Columns, Config, IgnoreColumns, Revision, SkipBadRows, Split
from qlora_tui.cli.options import Json, Settings, Yes
from qlora_tui.errors import DataError
from qlora_tui.terminal import narrate, printable

if TYPE_CHECKING:
    from qlora_tui.cli.data_view import View
    from qlora_tui.config.run import RunConfig

Event = dict[str, Any]


Source = Annotated[
    str | None,
    typer.Argument(
        metavar="[SOURCE]",
        autocompletion=completion.datasets,
        help="A known set, a file or folder, or a hub dataset id. Default: the starter dataset.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        autocompletion=completion.models,
        rich_help_panel=TRAINING_OPTIONS,
        help="Model whose tokenizer and template are used.",
    ),
]
FormatName = Annotated[
    str | None, typer.Option("--format", rich_help_panel=DATA_OPTIONS, help="Format of the rows. Default: detected.")
]
Template = Annotated[str | None, typer.Option("--template", rich_help_panel=TRAINING_OPTIONS, help="Chat template.")]
MaxLength = Annotated[
    int | None, typer.Option("--max-length", rich_help_panel=TRAINING_OPTIONS, help="Longest row in tokens.")
]
LossOn = Annotated[
    str | None,
    typer.Option(
        "--loss-on", rich_help_panel=TRAINING_OPTIONS, help="Tokens to train: responses, last-response or everything."
    ),
]
ShownRows = Annotated[int, typer.Option("--rows", min=0, max=100, help="Rows shown token by token.")]
Ids = Annotated[bool, typer.Option("--ids", help="Show the id of each token.")]
Quick = Annotated[bool, typer.Option("--quick", help="Look at the first rows only.")]


def register(app: typer.Typer) -> None:
    """Add the command to the `data` group."""
    app.command("inspect")(inspect)


def inspect(
    source: Source = None,
    model: Model = None,
    format_name: FormatName = None,
    column: Columns = None,
    ignore_column: IgnoreColumns = None,
    config: Config = None,
    split: Split = None,
    revision: Revision = None,
    template: Template = None,
    max_length: MaxLength = None,
    loss_on: LossOn = None,
    settings: Settings = None,
    skip_bad_rows: SkipBadRows = False,
    rows: ShownRows = 1,
    ids: Ids = False,
    quick: Quick = False,
    as_json: Json = False,
    yes: Yes = False,
) -> None:
    """Show the format, token lengths and loss mask of a dataset."""
    given = {
        "model.id": model,
        "data.source": source,
        "data.format": format_name,
        "data.ignore_columns": ignore_column,
        "data.config": config,
        "data.split": split,
        "data.revision": revision,
        "data.template": template,
        "training.max_length_tokens": max_length,
        "training.loss_on": loss_on,
        "data.skip_bad_rows": skip_bad_rows or None,
    }
    look = _Look(shown_rows=rows, quick=quick, ids=ids, as_json=as_json, yes=yes)
    named = [*(settings or []), *options(given), *map(column_setting, column or [])]
    try:
        look.at(named)
    except _AmbiguousError as ambiguous:
        look.at([*named, *look.choice(ambiguous)])


@dataclass(frozen=True)
class _Look:
    shown_rows: int
    quick: bool
    ids: bool
    as_json: bool
    yes: bool

    def at(self, overrides: list[str]) -> None:
        """Inspect with these settings. Raises QloraError."""
        # The child is started first: it imports its libraries while the settings are read here.
        with child_process() as (child, events):
            from qlora_tui.config.overrides import resolve

            config = resolve(overrides=overrides)
            settings = config.model_dump(mode="json")
            tell(child, {"config": settings, "shown_rows": self.shown_rows, "quick": self.quick})
            if self.as_json:
                _write_json(child, events, yes=self.yes)
            else:
                _show(child, events, config, ids=self.ids, yes=self.yes)

    def choice(self, ambiguous: "_AmbiguousError") -> list[str]:
        """The settings of the reading a person chooses. Raises `ambiguous` without a terminal."""
        if self.as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise ambiguous
        return _choose(ambiguous)


class _AmbiguousError(DataError):
    """The rows can be read in several ways."""

    def __init__(self, event: Event) -> None:
        super().__init__(event["message"], hint=event["hint"])
        self.choices: list[dict[str, str]] = event["choices"]


def _choose(ambiguous: _AmbiguousError) -> list[str]:
    """Ask which reading is meant; its settings, as --set takes them."""
    narrate(printable(ambiguous.message, one_line=True))
    readings = [[f"{key}={toml_literal(value)}" for key, value in one.items()] for one in ambiguous.choices]
    for number, settings in enumerate(readings, 1):
        narrate(f"  {number}  {printable('  '.join(settings), one_line=True)}")
    answer = 0
    while not 1 <= answer <= len(readings):
        answer = asked_number(f"Which one, 1 to {len(readings)}?")
    options = " ".join(f"--set {shlex.quote(setting)}" for setting in readings[answer - 1])
    narrate(f"A run takes the same: {printable(options, one_line=True)}")
    return readings[answer - 1]


def options(given: dict[str, Any]) -> list[str]:
    return [f"{key}={toml_literal(value)}" for key, value in given.items() if value is not None]


def toml_literal(value: Any) -> str:
    """`value` as a TOML literal, so that no text is taken for something else."""
    return json.dumps(value)


def column_setting(text: str) -> str:
    from qlora_tui.errors import UsageError

    kind, equals, name = text.partition("=")
    if not equals:
        raise UsageError(f"--column {text}: no '='", hint="Write it as --column prompt=question.")
    return f"data.columns.{kind}={toml_literal(name)}"


@contextlib.contextmanager
def child_process() -> Iterator[tuple["subprocess.Popen[str]", Iterator[Event]]]:
    """The child and its events; it is ended with the block. Raises QloraError as the child does."""
    with tempfile.TemporaryFile("w+") as narration:
        child = subprocess.Popen(
            [sys.executable, "-m", "qlora_tui.engine.inspect_data"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=narration,
            text=True,
        )
        try:
            yield child, _events(child, narration)
        finally:
            child.terminate()
            child.wait()


def tell(child: "subprocess.Popen[str]", content: Any) -> None:
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # A child that has gone says why on its other pipe.
        child.stdin.write(json.dumps(content) + "\n")
        child.stdin.flush()


def _events(child: "subprocess.Popen[str]", narration: IO[str]) -> Iterator[Event]:
    from qlora_tui.errors import QloraError

    assert child.stdout is not None
    for line in child.stdout:
        event: Event = json.loads(line)
        if event["event"] == "error":
            raise _error(event)
        yield event
    if child.wait() != 0:
        narration.seek(0)
        last = narration.read().strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
        raise QloraError(f"looking into the data failed: {last[0]}")


def _error(event: Event) -> Exception:
    """The error the child reported, as the class that has its exit code."""
    from qlora_tui.errors import ExitCode, QloraError

    if event["choices"]:
        return _AmbiguousError(event)
    code = ExitCode(event["exit_code"])
    kind = next((one for one in QloraError.__subclasses__() if one.exit_code == code), QloraError)
    return kind(event["message"], hint=event["hint"])


def answer_download(child: "subprocess.Popen[str]", question: Event, *, yes: bool) -> None:
    """Answer the child's question before a download. Without a terminal to ask on it is no, unless --yes was given."""
    line = f"{question['what']} is not on this machine: {question['size']} would go to {question['to']}"
    agreed = yes
    if yes:
        narrate(line)
    elif sys.stdin.isatty() and sys.stderr.isatty():
        agreed = agrees(f"{line}. Download this?")
    tell(child, agreed)


def _write_json(child: "subprocess.Popen[str]", events: Iterator[Event], *, yes: bool) -> None:
    from qlora_tui.cli.output import write_json

    found: dict[str, Any] = {}
    for event in events:
        kind = event.pop("event")
        if kind == "download":
            answer_download(child, event, yes=yes)
        elif kind != "progress":
            found[kind] = event
    write_json(found)


def _show(
    child: "subprocess.Popen[str]", events: Iterator[Event], config: "RunConfig", *, ids: bool, yes: bool
) -> None:
    from qlora_tui.cli.data_view import View

    view = View(config, ids=ids)
    try:
        for event in events:
            if event["event"] == "download":
                answer_download(child, event, yes=yes)
            else:
                _show_event(view, event)
        view.finish()
    finally:
        view.close()


def _show_event(view: "View", event: Event) -> None:
    match event["event"]:
        case "source":
            view.source(event)
        case "sample":
            view.sample(event)
        case "estimate":
            view.estimate(event)
        case "progress":
            view.progress(event)
        case "report":
            view.report(event)
