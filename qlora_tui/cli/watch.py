"""`watch` and `attach`: follow a run from any shell."""

import typer

from qlora_tui.cli.options import JsonEvents, Run


def register(app: typer.Typer) -> None:
    app.command()(watch)
    app.command("attach", help="The same as watch.")(watch)


def watch(name: Run, as_json: JsonEvents = False) -> None:
    """Follow a run, or say how it ended. Ctrl-C leaves the run alone."""
    from qlora_tui.cli import foreground
    from qlora_tui.runs import store

    foreground.watch(store.find(name), as_json=as_json)
