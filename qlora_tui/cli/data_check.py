"""`qlora-tui data check`: show rows as read, as trained and as prompted, with an exit code for CI."""

import sys
from typing import Any

import typer

from qlora_tui.cli.data_inspect import (
    FormatName,
    LossOn,
    MaxLength,
    Model,
    Source,
    Template,
    answer_download,
    child_process,
    column_setting,
    options,
    tell,
)
from qlora_tui.cli.data_options import Columns, IgnoreColumns, Split
from qlora_tui.cli.options import Json, Settings, Yes
from qlora_tui.cli.output import write_json, write_table
from qlora_tui.data import checked_rows
from qlora_tui.errors import DataError
from qlora_tui.terminal import narrate, printable

_LONGEST_CELL = 2000


def register(app: typer.Typer) -> None:
    """Add the command to the `data` group."""
    app.command("check")(check)


def check(
    source: Source = None,
    model: Model = None,
    format_name: FormatName = None,
    column: Columns = None,
    ignore_column: IgnoreColumns = None,
    split: Split = None,
    template: Template = None,
    max_length: MaxLength = None,
    loss_on: LossOn = None,
    settings: Settings = None,
    rows: int = typer.Option(20, "--rows", min=1, max=1000, help="Number of rows to check, counted from the first."),
    as_json: Json = False,
    yes: Yes = False,
) -> None:
    """Compare rows as read, as trained and as prompted.

    The exit code is 10 when a row is refused, loses trained text, or its prompt differs from the training format.
    """
    given = {
        "model.id": model,
        "data.source": source,
        "data.format": format_name,
        "data.ignore_columns": ignore_column,
        "data.split": split,
        "data.template": template,
        "training.max_length_tokens": max_length,
        "training.loss_on": loss_on,
    }
    found = _checked([*(settings or []), *options(given), *map(column_setting, column or [])], rows, yes=yes)
    if as_json:
        write_json(found)
    else:
        _write(found)
    if problem := checked_rows.failure(found["rows"]):
        raise DataError(problem, hint=checked_rows.HINT)


def _checked(overrides: list[str], rows: int, *, yes: bool) -> dict[str, Any]:
    """The source and the checks of its rows, as the child reports them."""
    found: dict[str, Any] = {"rows": []}
    with child_process() as (child, events):
        from qlora_tui.config.overrides import resolve

        config = resolve(overrides=overrides)
        request = {"config": config.model_dump(mode="json"), "shown_rows": rows, "quick": True, "check": True}
        tell(child, request)
        for event in events:
            match event.pop("event"):
                case "download":
                    answer_download(child, event, yes=yes)
                case "source":
                    found["source"] = event
                case "check":
                    found |= event
    return found


def _write(found: dict[str, Any]) -> None:
    for note in (*found["source"]["notes"], *found.get("notes", ())):
        narrate(printable(note, one_line=True))
    headings = ["row", "result", "as read", "trained", "asked", "problem"]
    table = []
    for row in found["rows"]:
        cells = (checked_rows.as_read(row), row["trained"], row["prompt"], row["problem"])
        table.append([row["origin"], checked_rows.result(row), *map(_shown, cells)])
    write_table(headings, table)


def _shown(text: str) -> str:
    """Shorten a long text; in a pipe, also remove line breaks."""
    text = text if len(text) <= _LONGEST_CELL else f"{text[:_LONGEST_CELL]}…"
    return text if sys.stdout.isatty() else text.replace("\n", "\\n")
