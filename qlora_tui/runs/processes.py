"""The processes of a worker: identity of a pid, signals to its group, and waiting for its end."""

import os
import signal
import time
from contextlib import suppress

import psutil

from qlora_tui.errors import EnvironmentProblem

_POLL_S = 0.05


def find(pid: int, start_s: float) -> psutil.Process | None:
    """Return the process with this pid if it started at `start_s`: pids are reused."""
    with suppress(psutil.Error, ValueError, OverflowError):
        process = psutil.Process(pid)
        if abs(process.create_time() - start_s) < 1.0:
            return process
    return None


def is_stopped(process: psutil.Process) -> bool:
    """Return whether it is suspended by a signal such as SIGSTOP or Ctrl-Z."""
    with suppress(psutil.Error):
        return bool(process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP))
    return False


def signal_group(process: psutil.Process, number: signal.Signals) -> None:
    """Signal every process of the group led by this one. Does nothing if they have ended."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def await_end_of_group(group: int, seconds: float) -> None:
    """Wait until all processes of the group have ended and their memory is free. Raises EnvironmentProblem."""
    deadline_s = time.monotonic() + seconds
    while left := members(group):
        if time.monotonic() > deadline_s:
            pids = ", ".join(str(process.pid) for process in left)
            raise EnvironmentProblem(f"processes of the run are still alive: {pids}", hint=f"kill -9 {pids}")
        time.sleep(_POLL_S)


def members(group: int) -> list[psutil.Process]:
    """The processes of a group that have not ended."""
    found: list[psutil.Process] = []
    if not group:  # no worker has written down its pid; group 0 would be the kernel's threads
        return found
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
