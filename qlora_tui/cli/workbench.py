"""Opening the workbench: the one place of the command line that reaches the screen."""


def open_workbench(*, run: str | None = None) -> None:
    """Run the app until the person leaves it. Raises UsageError without a terminal."""
    import sys

    from qlora_tui.errors import UsageError

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the workbench needs a terminal", hint="See `qlora-tui --help` for the commands.")
    from qlora_tui.ui.app import Workbench

    Workbench(run=run).run()
