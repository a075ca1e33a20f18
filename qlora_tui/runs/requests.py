"""Asking a worker for something until it says that it has heard."""

import time

from qlora_tui.runs import control, jobs
from qlora_tui.runs.state import RunState
from qlora_tui.runs.store import RunFolder

_REPEAT_S = 3.0


class Request:
    """One control message, sent again while nobody answers.

    A worker that is just starting, or that replaces its own process to replan, passes over what came before it
    listened. Raises RunConflictError when no worker lives.
    """

    def __init__(self, run: RunFolder, action: control.Action) -> None:
        self.run = run
        self.action = action
        self._ids = [jobs.ask(run, action)]
        self._began_s = self._sent_s = time.monotonic()

    @property
    def waited_s(self) -> float:
        """Seconds since it was first sent."""
        return time.monotonic() - self._began_s

    def heard(self, state: RunState) -> bool:
        """Whether the worker has acknowledged it; asks again when that takes long."""
        if not set(self._ids).isdisjoint(state.acknowledged):
            return True
        if time.monotonic() - self._sent_s > _REPEAT_S and jobs.is_alive(self.run):
            self._ids.append(control.send(self.run.control, self.action))
            self._sent_s = time.monotonic()
        return False
