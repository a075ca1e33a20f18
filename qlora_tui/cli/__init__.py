"""The `qlora-tui` command. stdout is data, stderr is narration, and every error ends in one line and an exit code.

The modules of this package import no more than typer at the top: what a command needs is imported when it runs.
"""

import os
import sys
from typing import Annotated

import typer

from qlora_tui import __version__
from qlora_tui.cli import (
    arena,
    chat,
    control,
    data,
    demo,
    doctor,
    estimate,
    evaluate,
    locations,
    models,
    presets,
    queue,
    runs,
    train,
    watch,
    web,
    workbench,
)
from qlora_tui.errors import ExitCode, QloraError

_INTERRUPTED = 130

app = typer.Typer(
    name="qlora-tui",
    help="Fine-tune language models in 4-bit from the terminal.",
    epilog="Exit codes: 0 done, 1 internal error, 2 usage, 3 configuration, 4 not found, 5 conflict, 6 does not fit, "
    "7 out of memory, 8 cancelled, 9 model, 10 data, 11 storage, 12 environment, 13 a tight fit.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
train.register(app)
watch.register(app)
control.register(app)
chat.register(app)
app.add_typer(runs.app, name="runs")
app.add_typer(queue.app, name="queue")
app.add_typer(presets.app, name="presets")
estimate.register(app)
app.add_typer(evaluate.app, name="eval")
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")
app.add_typer(arena.app, name="arena")
demo.register(app)
doctor.register(app)
locations.register(app)
web.register(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"qlora-tui {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        if sys.stdin.isatty() and sys.stdout.isatty():
            workbench.open_workbench()
        else:
            typer.echo(context.get_help())


def main() -> None:
    """Run the command line and exit: the one place where an exception becomes a line on stderr and an exit code."""
    try:
        app()
        sys.stdout.flush()
    except QloraError as error:
        _explain(error)
        _leave(error.exit_code)
    except KeyboardInterrupt:
        _leave(_INTERRUPTED)
    except BrokenPipeError:
        _leave(ExitCode.OK)
    except Exception as error:  # the edge of the program: a fault of ours, not the user's
        _report(error)
        _leave(ExitCode.INTERNAL)


def _leave(code: int) -> None:
    """Exit without a second complaint when the reader of stdout has gone."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _explain(error: QloraError) -> None:
    from qlora_tui.terminal import narrate

    narrate(f"error: {error.message}")
    if error.hint:
        narrate(f"hint: {error.hint}")


def _report(error: Exception) -> None:
    """One line, and where the traceback is; QLORA_TUI_DEBUG=1 prints it instead."""
    import traceback

    from qlora_tui import atomic, paths
    from qlora_tui.terminal import narrate

    narrate(f"error: internal error: {type(error).__name__}: {error}")
    text = "".join(traceback.format_exception(error))
    if os.environ.get("QLORA_TUI_DEBUG"):
        narrate(text)
        return
    file = paths.cache() / "last-traceback.txt"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(file, text)
        narrate(f"hint: the traceback is in {file}; QLORA_TUI_DEBUG=1 prints it")
    except (OSError, QloraError):
        narrate(text)
