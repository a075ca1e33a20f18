"""The question before a download. Without a terminal to ask on, the answer is no unless --yes was given."""

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import typer

from qlora_tui.terminal import narrate, printable

if TYPE_CHECKING:
    from qlora_tui.config.data import SourceSpec
    from qlora_tui.config.run import RunConfig
    from qlora_tui.data.downloads import Download
    from qlora_tui.data.splits import Purpose


def allow_downloads(config: "RunConfig", *, yes: bool) -> bool:
    """Whether the worker may download: what is missing was named with its size and agreed to.

    False when nothing is missing. Raises ModelError, DataError or NotFoundError for what cannot be had, UsageError
    when there is nobody to ask, CancelledError for a no.
    """
    downloads = _missing(config)
    if not downloads:
        return False
    for download in downloads:
        narrate(_sentence(download))
    _agree(yes)
    return True


def confirmed(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone. Raises UsageError without a terminal, CancelledError for a no."""
    from qlora_tui.errors import CancelledError, UsageError

    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("this needs a yes, and there is no terminal to ask on", hint="Say it with --yes.")
    if not typer.confirm(printable(question, one_line=True), err=True):
        raise CancelledError("nothing was done")


def _agree(yes: bool) -> None:
    from qlora_tui.errors import UsageError

    try:
        confirmed("Download this?", yes=yes)
    except UsageError as error:
        raise UsageError("nothing is downloaded without a yes", hint="Allow the download with --yes.") from error


def _sentence(download: "Download") -> str:
    from qlora_tui.data.downloads import size

    return f"{download.what} is not on this machine: {size(download.size_bytes)} would go to {download.destination}"


def _missing(config: "RunConfig") -> "list[Download]":
    from qlora_tui.data.downloads import Download
    from qlora_tui.data.sources import find_source
    from qlora_tui.models.folder import location
    from qlora_tui.models.hub import missing_download

    location(config.model)
    model = missing_download(config.model)
    found = [] if model is None else [model]

    class Asked(Exception):
        """Ends the search for a source at the question, so that nothing is downloaded here."""

    def ask(download: Download) -> bool:
        found.append(download)
        raise Asked

    wanted: list[tuple[SourceSpec, Purpose]] = [(spec, "train") for spec in (config.data, *config.data.mix)]
    if config.data.eval_spec is not None:
        wanted.append((config.data.eval_spec, "eval"))
    for spec, purpose in wanted:
        with suppress(Asked):
            streaming = config.data.streaming and purpose == "train"
            find_source(spec, purpose, streaming=streaming, consent=ask, on_progress=None)
    return found
