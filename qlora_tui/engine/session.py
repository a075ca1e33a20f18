"""One worker's side of its run folder: what it says (events) and what it is told (control messages and signals)."""

import math
import os
import signal
import threading
from types import FrameType
from typing import Literal

from qlora_tui.errors import ExitCode
from qlora_tui.runs import events
from qlora_tui.runs.control import Control, ControlReader
from qlora_tui.runs.events import AnyEvent, EventWriter
from qlora_tui.runs.state import RunState, fold
from qlora_tui.runs.store import RunFolder

CONTROL_POLL_S = 0.2

Phase = Literal["preparing", "training", "finishing"]
StopReason = Literal["stop_and_save", "signal"]


class Session:
    """Writes events from any thread and keeps the folded state of what was written.

    A message is acknowledged as soon as it is read. "cancel" ends the process at once, even inside a long C call;
    "stop_and_save" is left to the trainer while it trains, and ends the process while there is nothing to save yet.
    """

    def __init__(self, run: RunFolder, state: RunState) -> None:
        self.run = run
        self.state = state
        self.phase: Phase = "preparing"
        self.save_now = threading.Event()
        self.stop_reason: StopReason | None = None
        self._control = ControlReader(run.control)
        self._writer = EventWriter(run.events)
        self._writing = threading.Lock()
        self._signalled = threading.Event()
        self._warned: set[str] = set()

    def emit(self, event: AnyEvent) -> None:
        """Append an event and fold it."""
        with self._writing:
            self.state = fold(self.state, self._writer.write(event))

    def emit_last(self, event: AnyEvent) -> None:
        """Append the final event and make the whole log durable."""
        self.emit(event)
        self._writer.sync()

    def stage(
        self,
        stage: events.StageName,
        detail: str = "",
        done: int | None = None,
        total: int | None = None,
        unit: str = "",
    ) -> None:
        """Say what is being done now."""
        self.emit(events.Stage(stage=stage, detail=detail, done=done, total=total, unit=unit))

    def warn(self, code: str, message: str) -> None:
        """Say something the user should know, once for each code and message."""
        if f"{code}\0{message}" not in self._warned:
            self._warned.add(f"{code}\0{message}")
            self.emit(events.Warned(code=code, message=message))

    def listen(self) -> None:
        """Start to follow control messages and the signals that mean "save and stop"."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        threading.Thread(target=self._follow, name="control", daemon=True).start()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signalled.set()

    def _follow(self) -> None:
        """Runs in a thread for as long as the worker lives."""
        while True:
            for message in self._control.read():
                self._obey(message)
            if self._signalled.wait(CONTROL_POLL_S) and self.stop_reason is None:
                self._stop("signal")

    def _obey(self, message: Control) -> None:
        self.emit(events.ControlAcknowledged(id=message.id, action=message.action))
        if message.action == "save_now":
            self.save_now.set()
        elif message.action == "stop_and_save":
            self._stop("stop_and_save")
        else:
            self._exit("cancel", ExitCode.CANCELLED)

    def _stop(self, reason: StopReason) -> None:
        self.stop_reason = reason
        if self.phase == "preparing":
            self._exit(reason, ExitCode.OK)

    def _exit(self, reason: Literal["stop_and_save", "signal", "cancel"], code: ExitCode) -> None:
        """End the process from the control thread, whatever the main thread is doing."""
        self.emit_last(self.stopped(reason))
        os._exit(code)

    def stopped(self, reason: Literal["stop_and_save", "signal", "cancel"]) -> events.Stopped:
        """The event that says where the run was left."""
        checkpoints = self.state.checkpoints
        return events.Stopped(
            reason=reason,
            step=self.state.step_number,
            checkpoint_step=checkpoints[-1].step if checkpoints else None,
        )


def finite(value: float | None) -> float | None:
    """`value`, or None where it is missing, infinite or not a number."""
    return float(value) if value is not None and math.isfinite(value) else None
