"""Report an internal error: one line on stderr, and the traceback in a file."""

import os

from qlora_tui import atomic, paths
from qlora_tui.errors import QloraError
from qlora_tui.redaction import traceback_of
from qlora_tui.terminal import narrate

DEBUG_VARIABLE = "QLORA_TUI_DEBUG"


def report(error: BaseException) -> None:
    """Write one line to stderr and the traceback, without local variables, to the cache folder.

    With QLORA_TUI_DEBUG=1, or where the file cannot be written, the traceback follows on stderr.
    """
    said = f"error: internal error: {type(error).__name__}: {' '.join(str(error).split())}"
    text = traceback_of(error)
    if os.environ.get(DEBUG_VARIABLE):
        narrate(f"{said}\n{text}")
        return
    file = paths.cache() / "last-traceback.txt"
    try:
        atomic.make_folder(file.parent)
        atomic.write_text(file, text)
    except (OSError, QloraError):
        narrate(f"{said}\n{text}")
    else:
        narrate(f"{said} (traceback: {file}; {DEBUG_VARIABLE}=1 prints it)")
