"""What a person does to a run from the screen, each in a thread of the app: the steps of the commands."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from qlora_tui.errors import RunConflictError
from qlora_tui.runs import control, jobs
from qlora_tui.runs.requests import Request
from qlora_tui.runs.state import RunState
from qlora_tui.runs.store import RunFolder

_POLL_S = 0.1
_PATIENCE_S = 15.0


def ask(run: RunFolder, action: control.Action, state: Callable[[], RunState], say: Callable[[str], object]) -> None:
    """Ask the worker until it has heard; `state` is the run as the screen knows it. Raises RunConflictError.

    Says that there is no answer when there is none for a quarter of a minute.
    """
    request = Request(run, action)
    patient = True
    while not request.heard(state()):
        if not jobs.is_alive(run):
            raise RunConflictError(f"{run.name} ended before it answered", hint="See how it ended above.")
        if patient and request.waited_s > _PATIENCE_S:
            patient = False
            say("No answer yet: the worker answers between two steps. c cancels the run without a checkpoint.")
        time.sleep(_POLL_S)


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
