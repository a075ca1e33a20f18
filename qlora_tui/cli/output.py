"""Data on stdout: tables on a terminal, tab-separated lines in a pipe, JSON with --json. The only writer of stdout."""

import json
import math
import sys
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import typer

from qlora_tui.terminal import json_safe, printable

if TYPE_CHECKING:
    from pydantic import BaseModel

SCHEMA_VERSION = 1
"""Version of all JSON on stdout. Incremented when a key is removed, renamed or changes its meaning."""


class _Stdout:
    """What this command has written so far."""

    has_document = False


def write_json(content: Mapping[str, Any]) -> None:
    """Write the command's JSON document, indented, with its schema version."""
    _Stdout.has_document = True
    _write(_encoded({"schema_version": SCHEMA_VERSION, **content}, indent=2) + "\n")


def write_json_line(content: Mapping[str, Any]) -> None:
    """Write one JSON document on one line, with its schema version."""
    _write(_encoded({"schema_version": SCHEMA_VERSION, **content}, indent=None) + "\n")


def write_error(message: str, hint: str, exit_code: int) -> None:
    """Write the error of a command as one line of JSON, unless its document was already written."""
    if not _Stdout.has_document:
        write_json_line({"error": {"exit_code": exit_code, "message": message, "hint": hint}})


def write_events(events: "Iterable[BaseModel]") -> None:
    """Write the events of a run as JSON Lines, as in events.jsonl. The version of an event is its `v`."""
    _write_json_text("".join(event.model_dump_json() + "\n" for event in events))


class JsonLines:
    """Return a stream for JSON Lines that are already encoded, such as the rows of a dataset."""

    def write(self, text: str) -> int:
        """Write JSON text. On a terminal, unprintable characters are escaped."""
        _write_json_text(text)
        return len(text)


def _write_json_text(text: str) -> None:
    _write(json_safe(text) if sys.stdout.isatty() else text)


def _encoded(content: Any, *, indent: int | None) -> str:
    """Encode strict JSON: no NaN, and ASCII if stdout is not UTF-8 or the text has a lone surrogate."""
    content = _finite(content)
    text = json.dumps(content, indent=indent, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return json.dumps(content, indent=indent)
    return json_safe(text) if sys.stdout.isatty() else text


def _finite(content: Any) -> Any:
    """Return the content with null for numbers that JSON cannot represent."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    return [_finite(value) for value in content] if isinstance(content, list | tuple) else content


def write_line(text: str = "") -> None:
    """Write text, which may contain foreign text, and a newline."""
    _write(printable(text) + "\n")


def write_piece(text: str) -> None:
    """Write part of a text immediately, as for an answer that is being generated."""
    _write(printable(text))
    sys.stdout.flush()


def write_text(text: str) -> None:
    """Write the content of a file: escaped on a terminal, unchanged in a pipe."""
    _write(printable(text) if sys.stdout.isatty() else text)


def begin() -> None:
    """Reset the record of what an earlier command of this process has written."""
    _Stdout.has_document = False


def _write(text: str) -> None:
    typer.echo(text, nl=False)


def write_table(columns: list[str], rows: list[list[str]]) -> None:
    """Write rows with a header: aligned on a terminal, tab-separated otherwise."""
    columns = [printable(column, one_line=True) for column in columns]
    plain = [[printable(cell, one_line=True) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in (columns, *plain):
            _write("\t".join(row) + "\n")
        return
    from rich.table import Table
    from rich.text import Text

    from qlora_tui.cli.inert_console import InertConsole

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for row in plain:
        table.add_row(*(Text(cell) for cell in row))
    InertConsole().print(table)


def write_facts(facts: dict[str, str]) -> None:
    """One fact a line, name first; a fact of several lines is indented under its name."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        text = printable(value).replace("\n", "\n" + " " * (width + 2))
        _write(f"{name:{width}}  {text}\n")


def moment(time_s: float | None) -> str:
    """Format a time as local date and time; empty for None."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(time_s)) if time_s else ""
    except (OverflowError, ValueError, OSError):
        return "unknown"
