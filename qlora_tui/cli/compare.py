"""`runs compare`: runs side by side on the terminal, as JSON or as a page."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qlora_tui.cli import completion
from qlora_tui.cli.options import Json
from qlora_tui.terminal import narrate, printable

if TYPE_CHECKING:
    from qlora_tui.evaluation.comparison import RunsComparison

_LONGEST_VALUE = 40


def register(app: typer.Typer) -> None:
    app.command()(compare)


def compare(
    names: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", autocompletion=completion.runs, help="Names of runs; `qlora-tui runs list`."),
    ],
    verdicts: Annotated[
        list[Path] | None,
        typer.Option("--verdicts", metavar="FILE", help="Verdicts of `arena judge` or `arena vote`. Repeatable."),
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page that opens offline to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Compare settings, losses, memory, time and evaluations of runs.

    Differences in evaluations are tested against noise. With --verdicts, the comparison includes Elo ratings of the
    judged answers.
    """
    from qlora_tui import atomic
    from qlora_tui.arena import judged_runs, ratings
    from qlora_tui.cli.output import write_json
    from qlora_tui.evaluation import comparison
    from qlora_tui.runs import jobs, store

    found = [jobs.look(store.find(name)) for name in dict.fromkeys(names)]
    compared = judged_runs.judged(comparison.compare(found), ratings.read(verdicts) if verdicts else ())
    if html is not None:
        from qlora_tui.evaluation.html_report import render

        atomic.write_text(html, render(found, compared.comparison, compared.sections()), private=False)
        narrate(f"wrote {html}")
    if as_json:
        write_json(compared.as_json())
    elif html is None:
        _show(compared.comparison)
        if compared.ranking is not None:
            from qlora_tui.cli.arena.tables import show_ranking

            show_ranking(compared.ranking)


def _show(compared: "RunsComparison") -> None:
    from qlora_tui.cli.output import write_table
    from qlora_tui.evaluation.comparison import differences_table, facts_table, values_table

    rows = [[key, *map(_short, values)] for key, values in compared.settings.items()]
    rows += facts_table(compared.facts)
    write_table(["setting or result", *compared.names], rows)
    _plot(compared)
    if compared.evaluations:
        for columns, cells in (values_table(compared.evaluations), differences_table(compared.evaluations)):
            write_table(columns, [[_cell(value) for value in line] for line in cells])
    else:
        narrate("no evaluations yet; `qlora-tui eval --help` lists them")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def _cell(value: Any) -> str:
    from qlora_tui.evaluation.comparison import number

    return "-" if value is None else value if isinstance(value, str) else number(value)


def _plot(compared: "RunsComparison") -> None:
    """Training losses over one another; on a terminal only."""
    if not sys.stdout.isatty():
        return
    from qlora_tui.cli.inert_console import InertConsole
    from qlora_tui.cli.plot import Curve, curve_plot

    curves = [Curve(printable(name, one_line=True), found["loss"]) for name, found in compared.curves.items()]
    console = InertConsole()
    if any(curve.points for curve in curves):
        console.print("\ntraining loss")
        for line in curve_plot(curves, console.width):
            console.print(line)
