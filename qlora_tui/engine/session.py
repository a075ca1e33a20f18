"""The worker's side of a run folder: it writes events and receives control messages and signals."""

import math
import os
import select
import signal
import sys
import threading
from contextlib import suppress
from typing import Literal

from qlora_tui import atomic
from qlora_tui.errors import ExitCode, StorageError
from qlora_tui.redaction import redacted
from qlora_tui.runs import control, events, jobs, last_words, log_length
from qlora_tui.runs.control import Control, ControlReader
from qlora_tui.runs.event_log import EventReader, EventWriter
from qlora_tui.runs.events import AnyEvent
from qlora_tui.runs.heartbeat import Heart
from qlora_tui.runs.state import RunState, fold, fold_all
from qlora_tui.runs.store import RunFolder

CONTROL_POLL_S = 0.2
_RESERVE_BYTES = 64 << 10

Phase = Literal["preparing", "training", "finishing"]
StopReason = Literal["stop_and_save", "signal"]


class Session:
    """Writes events from any thread and keeps the folded state of what was written.

    A message is acknowledged as soon as it is read. "cancel" ends the process at once, even inside a long C call;
    "stop_and_save" is left to the trainer while it trains, and ends the process while there is nothing to save yet.
    """

    def __init__(self, run: RunFolder, state: RunState | None, control_offset: int | None = None) -> None:
        """Open the log for writing.

        `state` is the state after the events so far, or None to have `recall` read them. The session obeys messages
        after `control_offset` (bytes); None means messages sent from now on.
        """
        self.run = run
        self.state = RunState() if state is None else state
        self.phase: Phase = "preparing"
        self.save_now = threading.Event()
        self.stop_reason: StopReason | None = None
        self._control = ControlReader(
            run.control, control.end(run.control) if control_offset is None else control_offset
        )
        self._writer = EventWriter(run.events)
        self.lines_before = self._writer.seq
        """Number of lines of the log before this session."""
        atomic.write_bytes(run.reserve, os.urandom(_RESERVE_BYTES))
        self._writing = threading.Lock()
        self._written = 0
        self._recalled = threading.Event()
        if state is not None:
            self._recalled.set()
        self._warned: set[str] = set()

    def emit(self, event: AnyEvent) -> None:
        """Append an event and fold it."""
        with self._writing:
            stamped = self._writer.write(event)
            self._written += 1
            if self._recalled.is_set():
                self.state = fold(self.state, stamped)

    def recall(self) -> None:
        """Read the state from the events so far. For a long run this takes a while; messages wait until it is done.

        Raises StorageError when the log cannot be read.
        """
        reader, state = EventReader(self.run.events), RunState()
        for batch in reader.batches():
            state = fold_all(state, batch)
        with self._writing:
            for batch in reader.batches():  # what was written meanwhile
                state = fold_all(state, batch)
            self.state = jobs.with_damage(state, reader)
            self._recalled.set()

    @property
    def control_offset(self) -> int:
        """Offset of the next control message, in bytes: a worker that takes over continues reading there."""
        return self._control.offset

    def emit_last(self, event: AnyEvent) -> None:
        """Append the final event (on a full disk, in the space reserved for it) and sync the log to disk.

        If the log cannot be written any more, as on a read-only disk, the reason is stored elsewhere.
        """
        try:
            self._emit_in_reserve(event)
            self._writer.sync()
        except StorageError as error:
            print(f"{error.message}. {error.hint}", file=sys.stderr, flush=True)
            if isinstance(event, events.Failed):
                last_words.leave(self.run, self.state.attempt, event)
        with suppress(OSError):
            self.run.reserve.unlink(missing_ok=True)
        with suppress(StorageError):
            log_length.store(self.run, self._writer.seq)

    def _emit_in_reserve(self, event: AnyEvent) -> None:
        try:
            self.emit(event)
        except StorageError:
            with suppress(OSError):
                self.run.reserve.unlink(missing_ok=True)
            self.emit(event)

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

    def warn(self, code: str, message: str, *, once_by_code: bool = False) -> None:
        """Say something the user should know: once for each message, or once for each code."""
        key = code if once_by_code else f"{code}\0{message}"
        if key not in self._warned:
            self._warned.add(key)
            self.emit(events.Warned(code=code, message=redacted(message)))

    def listen(self) -> None:
        """Start the heartbeat and listen for control messages and for signals that mean "save and stop".

        A signal wakes the control thread through a pipe: Python's own handlers wait until the main thread comes back
        from the C call that it is in, which may load a model for minutes.
        """
        signals, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        heart = Heart(self.run)
        threading.Thread(target=self._follow, args=(signals, heart), name="control", daemon=True).start()

    def _follow(self, signals: int, heart: Heart) -> None:
        """Runs in a thread for as long as the worker lives, on a full disk too."""
        while True:
            signalled, _, _ = select.select([signals], [], [], CONTROL_POLL_S)
            heart.beat(self._written)
            try:
                if self._writer.was_removed():
                    self._exit_removed()
                self._recalled.wait(CONTROL_POLL_S)
                if not self._recalled.is_set():
                    continue
                for message in self._control.read():
                    self._obey(message)
                if signalled:
                    os.read(signals, 1)
                    if self.stop_reason is None:
                        self._stop("signal")
            except StorageError as error:
                print(f"{error.message}. {error.hint}", file=sys.stderr, flush=True)

    def _obey(self, message: Control) -> None:
        """Acknowledge a message and act on it, also when the acknowledgement cannot be written."""
        try:
            self.emit(events.ControlAcknowledged(id=message.id, action=message.action))
        finally:
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
        try:
            self.emit_last(self.stopped(reason))
        finally:
            os._exit(code)

    def _exit_removed(self) -> None:
        """End the process when its run was deleted or renamed: it would write to a folder that is no run any more."""
        try:
            now = self._writer.path_now()
            message = f"the run's folder was deleted while the run was active: {self.run.path}"
            hint = "If the folder was moved, resume the run from its new location."
            if now is not None:
                message = f"the run's folder was moved while the run was active, from {self.run.path} to {now.parent}"
                hint = f"Resume it under its new name: `qlora-tui resume {now.parent.name}`."
            where = self.state.stage.stage if self.state.stage else "starting"
            self.emit_last(events.Failed(message=message, hint=hint, where=where, exit_code=ExitCode.STORAGE))
        finally:
            os._exit(ExitCode.STORAGE)

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
