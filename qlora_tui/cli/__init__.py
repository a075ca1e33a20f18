"""The `qlora-tui` command. stdout is data, stderr is narration, and every error ends in one line and an exit code.

The modules of this package import no more than typer at the top: what a command needs is imported when it runs.
"""

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Annotated

import typer

from qlora_tui import __version__, crash, encoding
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
    manual,
    models,
    output,
    presets,
    queue,
    runs,
    train,
    watch,
    web,
    workbench,
)
from qlora_tui.cli.command import Noun
from qlora_tui.errors import ExitCode, QloraError, UsageError

_INTERRUPTED = 130
_COMPLETION = "_QLORA_TUI_COMPLETE"

app = Noun(
    "Fine-tune language models in 4-bit from the terminal. Without a command, opens the workbench.",
    name="qlora-tui",
    epilog="Exit codes: 0 done, 1 internal error, 2 usage, 3 configuration, 4 not found, 5 conflict, 6 does not fit, "
    "7 out of memory, 8 cancelled, 9 model, 10 data, 11 storage, 12 environment, 13 may just fit.",
    no_args_is_help=False,
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
manual.register(app)
web.register(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        output.write_line(f"qlora-tui {__version__}")
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
            output.write_line(context.get_help())


def main() -> None:
    """Run the command line and exit. The only place that turns exceptions into a line on stderr and an exit code.

    With --json the error is a JSON document on stdout as well.
    """
    encoding.adapt_streams()
    output.begin()
    try:
        _refuse_what_is_no_text(sys.argv[1:])
        with _ended_by_signals():
            _run(sys.argv[1:])
        sys.stdout.flush()
    except typer.Exit as exit_:
        _leave(exit_.exit_code)
    except QloraError as error:
        _fail(error.message, error.hint, error.exit_code)
    except _BAD_COMMAND_LINE as error:
        from qlora_tui.terminal import narrate

        narrate(_shown(error))
        _fail(error.format_message(), "", error.exit_code, said=True)  # type: ignore[attr-defined]
    except (typer.Abort, EOFError):
        _fail("aborted", "", ExitCode.INTERNAL)
    except KeyboardInterrupt:
        _leave(_INTERRUPTED)
    except BrokenPipeError:  # whoever read stdout has read enough
        _leave(ExitCode.OK)
    except SystemExit as exit_:  # Rich makes exit code 1 of a closed pipe
        _leave(ExitCode.OK if isinstance(exit_.__context__, BrokenPipeError) else int(exit_.code or 0))
    except Exception as error:  # the edge of the program: a fault of ours, not the user's
        crash.report(error)
        _fail(f"internal error: {type(error).__name__}: {error}", "", ExitCode.INTERNAL, said=True)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Raise SystemExit in the block on a terminating signal, so that child processes are terminated too.

    A signal that is ignored, as under nohup, stays ignored.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    ours = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


_BAD_COMMAND_LINE: type[Exception] = typer.BadParameter.__mro__[2]
"""ClickException, which typer does not export."""


def _shown(error: Exception) -> str:
    """Typer's message about a bad command line, which quotes user input."""
    text = io.StringIO()
    error.show(text)  # type: ignore[attr-defined]
    return text.getvalue().rstrip("\n")


def _refuse_what_is_no_text(words: list[str]) -> None:
    """Raise UsageError for an argument that is not UTF-8: it cannot be stored in a configuration or log."""
    for word in words:
        if not word.isascii() and any("\ud800" <= character <= "\udfff" for character in word):
            raise UsageError(
                f"this argument is not UTF-8 text: {os.fsencode(word)!r}",
                hint="Rename the file or folder so that its name is valid UTF-8.",
            )


def _run(words: list[str]) -> None:
    """Run one command. Typer's own `main` would exit with code 1 on a closed pipe."""
    command = typer.main.get_command(app)
    if _COMPLETION in os.environ:  # the shell asks for completions
        command.main(prog_name="qlora-tui")
    with command.make_context("qlora-tui", words) as context:
        command.invoke(context)


def _fail(message: str, hint: str, code: int, *, said: bool = False) -> None:
    """Exit with the error on stderr, unless `said`, and on stdout with --json."""
    from qlora_tui.terminal import narrate

    with suppress(BrokenPipeError):
        if not said:
            narrate(f"error: {message}")
            if hint:
                narrate(f"hint: {hint}")
        if _wants_json(sys.argv[1:]):
            output.write_error(message, hint, code)
    _leave(code)


def _wants_json(words: list[str]) -> bool:
    """Return whether --json is among the arguments, even if they cannot be parsed."""
    return "--json" in (words[: words.index("--")] if "--" in words else words)


def _leave(code: int) -> None:
    """Exit without another error when the reader of stdout has closed the pipe."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
