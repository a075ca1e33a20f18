"""What a person does to a run from the screen, each in a thread of the app: the steps of the commands."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from qlora_tui.errors import RunConflictError
from qlora_tui.runs import control
from qlora_tui.runs.follow import Follower
from qlora_tui.runs.requests import Request
from qlora_tui.runs.store import RunFolder

_PATIENCE_S = 15.0


def ask(run: RunFolder, action: control.Action, say: Callable[[str], object], is_cancelled: Callable[[], bool]) -> None:
    """Ask the worker until it has heard, whatever is on screen. Raises RunConflictError, StorageError.

    Says that there is no answer when there is none for a quarter of a minute.
    """
    follower = Follower(run)
    follower.catch_up()
    request = Request(run, action)
    patient = True
    for _ in follower.batches():
        if request.heard(follower.state) or is_cancelled():
            return
        if patient and request.waited_s > _PATIENCE_S:
            patient = False
            say("No answer yet: the worker answers between two steps. c cancels the run without a checkpoint.")
    raise RunConflictError(f"{run.name} ended before it answered", hint="See how it ended above.")


def open_folder(path: Path) -> bool:
    """Open a folder in the desktop's file manager; whether there is one."""
    opener = "open" if sys.platform == "darwin" else "xdg-open"
    has_desktop = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    program = shutil.which(opener)
    if not has_desktop or program is None:
        return False
    quiet = subprocess.DEVNULL
    subprocess.Popen([program, str(path)], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    return True
