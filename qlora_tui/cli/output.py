"""Data on stdout: tables for people, tab-separated lines for pipes, JSON for programs."""

import json
import sys
import time
from typing import Any

import typer

from qlora_tui.terminal import printable


def write_json(content: Any) -> None:
    """`content` as indented JSON."""
    typer.echo(json.dumps(content, indent=2, ensure_ascii=not _speaks_unicode()))


def _speaks_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def write_table(columns: list[str], rows: list[list[str]]) -> None:
    """Rows under their headings on a terminal; elsewhere one line a row, with tabs and without headings."""
    plain = [[printable(cell, one_line=True) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in plain:
            typer.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in plain:
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(table)


def write_facts(facts: dict[str, str]) -> None:
    """One fact a line, name first; a fact of several lines is indented under its name."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        text = printable(value).replace("\n", "\n" + " " * (width + 2))
        typer.echo(f"{name:{width}}  {text}")


def moment(time_s: float | None) -> str:
    """A time as date and clock on this machine; empty for None."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(time_s)) if time_s else ""
    except (OverflowError, ValueError, OSError):
        return "unknown"
