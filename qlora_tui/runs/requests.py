"""Asking a worker for something until it says that it has heard."""

import time

from qlora_tui.runs import control, jobs
from qlora_tui.runs.state import RunState
from qlora_tui.runs.store import RunFolder

_SILENCE_S = 3.0
"""A worker that listens acknowledges sooner."""


class Request:
    """One control message, sent again to each worker that takes over before it was heard.

    A worker that is just starting, or that replaces its own process to replan, passes over what came before it
    listened. Raises RunConflictError when no worker lives.
    """

    def __init__(self, run: RunFolder, action: control.Action, state: RunState) -> None:
        """Send it. `state` is the run as it was read before."""
        self.run = run
        self.action = action
        self._worker = _worker(state)
        self._ids = [jobs.ask(run, action)]
        self._began_s = self._sent_s = time.monotonic()

    @property
    def waited_s(self) -> float:
        """Seconds since it was first sent."""
        return time.monotonic() - self._began_s

    def heard(self, state: RunState) -> bool:
        """Whether a worker has acknowledged it; asks again when another one has taken over and is silent."""
        if not set(self._ids).isdisjoint(state.acknowledged):
            return True
        silent = time.monotonic() - self._sent_s >= _SILENCE_S
        if silent and _worker(state) != self._worker and jobs.is_alive(self.run):
            self._worker = _worker(state)
            self._ids.append(control.send(self.run.control, self.action))
            self._sent_s = time.monotonic()
        return False


def _worker(state: RunState) -> tuple[int, int]:
    return state.attempt, state.pid
