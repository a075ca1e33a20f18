"""Reading a run in a thread of the screen: the follower, the log, the sensors, and how often a view is shown.

A view is handed over only when the one before it is on screen, so a slow terminal gets fewer of them and no queue
grows.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil

from qlora_tui import hardware
from qlora_tui.errors import QloraError
from qlora_tui.memory.stored_estimate import StoredEstimate
from qlora_tui.runs import jobs
from qlora_tui.runs.fingerprint import read_plan
from qlora_tui.runs.follow import Follower
from qlora_tui.runs.garbage import uncollected
from qlora_tui.runs.store import RunFolder
from qlora_tui.starter import demo
from qlora_tui.ui.curves import Curves, Detail, curves, detail
from qlora_tui.ui.damage_check import DamageCheck
from qlora_tui.ui.load_history import Load, LoadHistory
from qlora_tui.ui.log_tail import LogReader
from qlora_tui.ui.run_view import LogTail, RunView

SLOWEST_LOOK_S = 0.5
"""However rarely the screen is redrawn, a dead worker is noticed this soon."""

_LONG_READ_S = 0.3
"""Reading what was appended takes longer only when a long log is opened; then it is shown as it is read."""

_READING_S = 1.0
"""Between two views of a log that is being read: each takes time from the reading."""

_LONGEST_DRAWING_S = 0.5
"""Maximum time to wait for a view to be drawn."""

_LONG_STEPS = 1000
_LONG_CURVES_S = 1.0
_SENSORS_S = 1.0
_RESTING_SENSORS_S = 3.0
_BUSY_SHARE = 0.2
"""Share of the time that drawing may take before views become rarer."""


class RunReader:
    """Follows one run until it is stopped. Everything but `stop` and `shown` runs in the thread of `follow`."""

    def __init__(self, run: RunFolder, refresh_hz: float, history: LoadHistory | None = None) -> None:
        self.run = run
        self._period_s = 1 / refresh_hz
        self._follower = Follower(run)
        self._log = LogReader(run.stdio)
        self._damage = DamageCheck(run)
        self._stopped = threading.Event()
        self._on_screen = threading.Event()
        self._on_screen.set()
        self._shown_s = self._drawing_s = 0.0
        self._sensors_s = 0.0
        self._history = history or LoadHistory()
        self._loads: tuple[Load, ...] = ()
        self._machine: hardware.Machine | None = None
        self._worker_bytes: int | None = None
        self._estimate: StoredEstimate | None = None
        self._is_demo = False
        self._curves: tuple[int, Curves] = (-1, Curves())
        self._curves_s = 0.0
        self._last: RunView | None = None

    def stop(self) -> None:
        """End `follow` soon. Called from the screen."""
        self._stopped.set()

    def shown(self) -> None:
        """The last view is on screen now. Called from the screen."""
        self._drawing_s = time.monotonic() - self._shown_s
        self._on_screen.set()

    def follow(self, show: Callable[[RunView], Any]) -> None:
        """Hand over a view whenever there is something new to see. Returns after `stop`."""
        with suppress(QloraError):
            self._is_demo = demo.is_demo(self.run.load_config())
        while not self._stopped.is_set():
            if self._follower.renew():
                self._log = LogReader(self.run.stdio)
                self._estimate = None
            self._follower.alive = jobs.is_alive(self.run)
            with uncollected():
                self._read(show)
            self._read_sensors()
            self._offer("removed" if self._follower.is_removed else self._follower.status, show)
            self._stopped.wait(min(self._period_s, SLOWEST_LOOK_S))

    def _read(self, show: Callable[[RunView], Any]) -> None:
        """Read available events. Reading pauses while a view of a long log is drawn."""
        began_s = time.monotonic()
        while self._follower.advance() and not self._stopped.is_set():
            if time.monotonic() - began_s > _LONG_READ_S:
                self._offer("reading", show)
                self._on_screen.wait(_LONGEST_DRAWING_S)

    def detail(self, low: int, high: int, is_cancelled: Callable[[], bool]) -> Detail | None:
        """Read a part of the run in detail; None when cancelled. Called in a separate thread.

        Raises StorageError when the log cannot be read.
        """
        with uncollected():
            steps = self._follower.index.read(self.run.events, low, high, is_cancelled)
        return None if is_cancelled() else detail(low, high, steps, self._follower.state.evals)

    def _offer(self, status: Any, show: Callable[[RunView], Any]) -> None:
        """Show a view, unless there is nothing new, it is too early, or the one before is still being drawn."""
        now_s = time.monotonic()
        waited_s = now_s - self._shown_s
        ended = self._last is not None and status not in ("reading", self._last.status)
        if not self._on_screen.is_set():
            return
        period_s = _READING_S if status == "reading" else self._period_s
        if not ended and waited_s < max(period_s, self._drawing_s / _BUSY_SHARE) * 0.9:
            return
        view = self._view(status)
        if view == self._last:
            return
        self._last, self._shown_s = view, now_s
        self._on_screen.clear()
        show(view)

    def _view(self, status: Any) -> RunView:
        state = self._follower.state
        may_be_damaged = status not in ("reading", "removed", *jobs.LIVE)
        self._draw_curves()
        return RunView(
            name=self.run.name,
            folder=self.run.path,
            status=status,
            state=state,
            curves=self._curves[1],
            log=LogTail() if status == "reading" else self._log.read(),
            machine=self._machine,
            loads=self._loads,
            worker_bytes=self._worker_bytes,
            silence=None if status == "reading" else self._follower.silence,
            damage=self._damage.found(state) if may_be_damaged else (),
            estimate=self._estimate,
            is_demo=self._is_demo,
        )

    def _draw_curves(self) -> None:
        """The curves of the state; those of a long living run only now and then, where one step changes little."""
        state, now_s = self._follower.state, time.monotonic()
        rests = self._follower.alive and state.step_number > _LONG_STEPS and now_s - self._curves_s < _LONG_CURVES_S
        if self._curves[0] != state.last_seq and not rests:
            self._curves, self._curves_s = (state.last_seq, curves(state)), now_s

    def _read_sensors(self) -> None:
        now_s = time.monotonic()
        if self._machine and now_s - self._sensors_s < (_SENSORS_S if self._follower.alive else _RESTING_SENSORS_S):
            return
        self._sensors_s = now_s
        self._machine = hardware.snapshot()
        self._history.record(self._machine)
        self._loads = self._history.readings
        if self._estimate is None:
            self._estimate = StoredEstimate.of(read_plan(self.run))
        self._worker_bytes = _resident_bytes(self._follower.state.pid) if self._follower.alive else None


def _resident_bytes(pid: int) -> int | None:
    """Main memory of the process that holds the run's lock."""
    try:
        return int(psutil.Process(pid).memory_info().rss) if pid else None
    except psutil.Error:
        return None
