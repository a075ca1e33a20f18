"""`watch` and `attach`: follow a run from any shell."""

from typing import TYPE_CHECKING

import typer

from qlora_tui.cli.options import JsonEvents, Run

if TYPE_CHECKING:
    from qlora_tui.runs.store import RunFolder


def register(app: typer.Typer) -> None:
    app.command()(watch)
    app.command("attach", help="Follow a run (alias of watch).")(watch)


def watch(name: Run, as_json: JsonEvents = False) -> None:
    """Follow a run until it ends. Its outcome is the exit code.

    Ctrl-C does not affect the run.
    """
    from qlora_tui.cli import foreground, workbench
    from qlora_tui.runs import store

    run = store.find(name)
    if not as_json and workbench.has_screen() and _is_live(run) and not workbench.watch(run):
        foreground.say_it_goes_on(run)
        return
    foreground.watch(run, as_json=as_json)


def _is_live(run: "RunFolder") -> bool:
    from qlora_tui.runs.follow import Follower

    follower = Follower(run)
    follower.catch_up()
    return follower.status in ("running", "starting")
