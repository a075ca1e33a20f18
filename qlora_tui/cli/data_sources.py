"""`qlora-tui data list` and `data convert`: the known sets, and any source as clean messages jsonl."""

import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qlora_tui.cli import completion
from qlora_tui.cli.consent import agrees
from qlora_tui.cli.data_options import Columns, Config, IgnoreColumns, Revision, SkipBadRows, Split
from qlora_tui.cli.options import Json, Yes
from qlora_tui.terminal import narrate, printable
from qlora_tui.units import disk

if TYPE_CHECKING:
    from qlora_tui.config.data import SourceSpec
    from qlora_tui.data.downloads import Consent, Download

FormatName = Annotated[str, typer.Option("--format", help="Shape of the rows; auto detects it.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the `data` group."""
    app.command("list")(list_sets)
    app.command("convert")(convert)


def list_sets(as_json: Json = False) -> None:
    """List the data sets known by name."""
    from qlora_tui.cli.output import write_json, write_line
    from qlora_tui.config.model import STARTER
    from qlora_tui.data.registry import KNOWN, STARTER_SET

    sets = {STARTER: STARTER_SET, **KNOWN}
    if as_json:
        listed = [{"name": name, **_described(known)} for name, known in sets.items()]
        write_json({"sets": listed})
        return
    for name, known in sets.items():
        where = known.hub_id or "bundled"
        write_line(f"{name}: {known.title}")
        _echo_indented(f"{where}; {known.rows}; licence: {known.license}; format {known.format}")
        if known.note:
            _echo_indented(known.note)


def _echo_indented(text: str) -> None:
    """One line; in a terminal, lines that fit."""
    from qlora_tui.cli.output import write_line

    indent = " " * 4
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    write_line(textwrap.fill(text, columns, initial_indent=indent, subsequent_indent=indent))


def _described(known: Any) -> dict[str, Any]:
    return {
        "title": known.title,
        "hub_id": known.hub_id or None,
        "config": known.config,
        "revision": known.revision,
        "data_file": known.data_file,
        "rows": known.rows,
        "license": known.license,
        "format": known.format,
        "columns": known.columns.model_dump(exclude_none=True),
        "note": known.note,
    }


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            autocompletion=completion.datasets,
            help="A known set, a file or folder, or a hub dataset id.",
        ),
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write. Default: stdout.")] = None,
    format_name: FormatName = "auto",
    column: Columns = None,
    ignore_column: IgnoreColumns = None,
    config: Config = None,
    split: Split = None,
    revision: Revision = None,
    skip_bad_rows: SkipBadRows = False,
    yes: Yes = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write a summary as JSON to stdout. Needs --out.")] = False,
) -> None:
    """Convert a dataset to JSON Lines with chat messages."""
    from qlora_tui.cli.output import JsonLines, write_json
    from qlora_tui.data.convert import convert as convert_rows
    from qlora_tui.data.report import counted
    from qlora_tui.errors import UsageError

    if as_json and out is None:
        raise UsageError("--json needs --out: without it, the rows are written to stdout", hint="Add --out FILE.")
    spec = source_spec(source, format_name, column, config, split, revision)
    spec = spec.model_copy(update={"ignore_columns": ignore_column or []})
    target = out if out is not None else JsonLines()
    done = convert_rows(spec, target, skip_bad_rows=skip_bad_rows, consent=consent(yes))
    narrate(f"{counted(done.rows)} from format {done.detection.format}" + (f" to {out}" if out is not None else ""))
    for warning in done.warnings:
        narrate(printable(warning, one_line=True))
    if as_json:
        write_json(
            {"file": str(out), "rows": done.rows, "format": done.detection.format, "bad_rows": done.bad_row_count}
        )
    if done.bad_row_count:
        narrate(f"{counted(done.bad_row_count)} skipped, such as:")
        for row in done.bad_rows[:5]:
            narrate(f"    {printable(row.where)}: {printable(row.reason, one_line=True)}")


def source_spec(
    source: str,
    format_name: str = "auto",
    column: list[str] | None = None,
    config: str | None = None,
    split: str | None = None,
    revision: str | None = None,
) -> "SourceSpec":
    """The SourceSpec of command line options. Raises UsageError for an unknown format or kind of column."""
    from typing import get_args

    from qlora_tui.config.data import ColumnMap, Format, SourceSpec
    from qlora_tui.errors import UsageError, nearest

    if format_name not in get_args(Format):
        raise UsageError(f"no format {format_name!r}", hint=nearest(format_name, list(get_args(Format))))
    columns: dict[str, str] = {}
    for setting in column or []:
        kind, equals, name = setting.partition("=")
        if not equals or kind not in ColumnMap.model_fields:
            raise UsageError(
                f"--column {setting}: {'no kind of column ' + repr(kind) if equals else 'write KIND=NAME'}",
                hint=nearest(kind, list(ColumnMap.model_fields)),
            )
        columns[kind] = name
    settings = {"source": source, "format": format_name, "config": config, "split": split, "revision": revision}
    if not source:
        raise UsageError("no data source given", hint="`qlora-tui data list` shows the known sets.")
    return SourceSpec.model_validate({**settings, "columns": ColumnMap(**columns)})


def consent(yes: bool) -> "Consent":
    """Says yes to downloads when told so, asks where a person is at the terminal, else says no."""

    def answer(download: "Download") -> bool:

        line = f"download {download.what}, {disk(download.size_bytes)}, to {download.destination}"
        if yes:
            narrate(line)
            return True
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return False
        return agrees(f"{line}?")

    return answer
