"""Opening the workbench and the inline view: the one place of the command line that reaches the screen."""

import os
import sys
from typing import TYPE_CHECKING

import typer

from qlora_tui import crash
from qlora_tui.errors import ExitCode

if TYPE_CHECKING:
    from qlora_tui.runs.store import RunFolder


_SIGNALLED = 128
"""Return codes above are 128 + the number of a signal."""


def has_screen() -> bool:
    """Whether this terminal can show more than lines."""
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()
    return on_terminal and os.environ.get("TERM", "dumb") != "dumb"


def open_workbench(*, run: str | None = None) -> None:
    """Run the app until the person leaves it. Raises UsageError without a terminal that can show it."""
    from qlora_tui.errors import UsageError

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the workbench needs a terminal", hint="See `qlora-tui --help` for the commands.")
    if os.environ.get("TERM") == "dumb":
        raise UsageError(
            "the workbench needs a terminal that can move its cursor; this one says TERM=dumb",
            hint="The commands work here: see `qlora-tui --help`.",
        )
    from qlora_tui.ui.app import Workbench

    app = Workbench(run=run)
    app.run()
    _end_with(app.crash, app.return_code)


def watch(run: "RunFolder") -> bool:
    """Show a living run below the prompt until it ends; whether that was seen, or the person left before."""
    from qlora_tui.ui.watch import WatchApp

    app = WatchApp(run)
    ended = bool(app.run(inline=True))
    _end_with(app.crash, app.return_code)
    return ended


def _end_with(fault: BaseException | None, return_code: int | None) -> None:
    """Report the exception that ended an app and exit with code 1; raise SystemExit when a signal ended it."""
    if fault is not None:
        crash.report(fault)
        raise typer.Exit(ExitCode.INTERNAL)
    if return_code is not None and return_code > _SIGNALLED:
        raise SystemExit(return_code)
