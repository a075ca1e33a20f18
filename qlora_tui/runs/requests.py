"""Asking a worker for something until it says that it has heard."""

import time

from qlora_tui.runs import control, jobs
from qlora_tui.runs.state import RunState
from qlora_tui.runs.store import RunFolder


class Request:
    """One control message. A worker that is starting, or that replaces its own process to replan, reads it later.

    Raises RunConflictError when the run is not running.
    """

    def __init__(self, run: RunFolder, action: control.Action) -> None:
        """Send it."""
        self._id = jobs.ask(run, action)
        self._sent_s = time.monotonic()

    @property
    def waited_s(self) -> float:
        """Seconds since it was sent."""
        return time.monotonic() - self._sent_s

    def heard(self, state: RunState) -> bool:
        """Whether the worker has acknowledged it in `state`."""
        return self._id in state.acknowledged
