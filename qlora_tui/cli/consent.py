"""The question before a download. Without a terminal to ask on, the answer is no unless --yes was given."""

import sys
from typing import TYPE_CHECKING

import typer

from qlora_tui.terminal import narrate, printable

if TYPE_CHECKING:
    from qlora_tui.config.run import RunConfig


def allow_downloads(config: "RunConfig", *, yes: bool, to_train: bool = True) -> bool:
    """Return whether the worker may download: list what is missing with its size and ask for consent.

    False when nothing is missing. With `to_train` a run that could not train is refused first.

    Raises ModelError, DataError or NotFoundError for unavailable files, the errors of the checks, UsageError when
    stdin is not interactive, CancelledError when the user declines.
    """
    from qlora_tui.runs.missing import missing_downloads, sentence

    downloads = missing_downloads(config, to_train=to_train)
    if not downloads:
        return False
    for download in downloads:
        narrate(sentence(download))
    _agree(yes)
    return True


def confirmed(question: str, *, yes: bool) -> None:
    """Ask for confirmation. Raises UsageError without a terminal, CancelledError when the user declines."""
    from qlora_tui.errors import CancelledError, UsageError

    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("confirmation is required, but stdin is not a terminal", hint="Pass --yes to confirm.")
    if not agrees(question):
        raise CancelledError("nothing was done")


def agrees(question: str) -> bool:
    """Ask for yes or no on stderr. Raises typer.Abort at the end of stdin."""
    return typer.confirm(printable(question, one_line=True), err=True)


def asked_number(question: str) -> int:
    """Ask for a whole number on stderr. Raises typer.Abort at the end of stdin."""
    answer: int = typer.prompt(printable(question, one_line=True), type=int, err=True)
    return answer


def _agree(yes: bool) -> None:
    from qlora_tui.errors import UsageError

    try:
        confirmed("Download this?", yes=yes)
    except UsageError as error:
        raise UsageError("nothing is downloaded without a yes", hint="Allow the download with --yes.") from error
