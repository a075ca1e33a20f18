"""Workers as processes: start detached, know whether one lives, ask it to stop, escalate, resume.

A worker holds its run's lock for as long as it lives, so a free lock without a final event means that it crashed. A
pid counts only together with its start time.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from filelock import FileLock, Timeout

from qlora_tui import paths
from qlora_tui.atomic import storage_errors
from qlora_tui.errors import EnvironmentProblem, ExitCode, QloraError, RunConflictError, StorageError
from qlora_tui.regular_files import check, descriptor, open_to_append, open_to_read
from qlora_tui.runs import control, events, heartbeat, last_words, log_length, processes
from qlora_tui.runs.crash_cause import STARTED, crash_cause
from qlora_tui.runs.event_log import EventReader, EventWriter, end_of_lines
from qlora_tui.runs.state import RunState, fold_all
from qlora_tui.runs.store import RunFolder
from qlora_tui.runs.waiting import is_waiting

Status = Literal[
    "created", "queued", "starting", "running", "stopped", "cancelled", "failed", "finished", "crashed", "unreadable"
]
"""`created`: never started. `queued`: waiting in the queue, never started. `unreadable`: its events cannot be read,
as those of another user in a shared folder."""

WORKER = "qlora_tui.engine.worker"
"""Module of the process that trains one run."""

LIVE: tuple[Status, ...] = ("running", "starting")
"""A worker is alive, or is replacing its process."""

UNFINISHED = ("running", "replanning")
"""Phases after which a worker still has to say how it ended."""

FIRST_EVENT_S = 30.0
"""A worker without any event is terminated after this time without CPU use."""

CANCEL_GRACE_S = 20.0
TERMINATE_GRACE_S = 10.0
_LAST_WORDS_BYTES = 64 << 10
_POLL_S = 0.05
_LOCK_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Job:
    """A run as its folder and its processes tell it together."""

    run: RunFolder
    state: RunState
    alive: bool

    @property
    def status(self) -> Status:
        return status(self.run, self.state, alive=self.alive)

    @property
    def silence(self) -> heartbeat.Silence | None:
        """As `silence`."""
        return silence(self.run, alive=self.alive)


def status(run: RunFolder, state: RunState, *, alive: bool) -> Status:
    """What a run is doing: running by its events but without a worker means that the worker crashed.

    A worker that replans replaces its own process, and its lock is free until the new one has taken it.
    """
    if alive:
        return "running" if state.phase == "running" else "starting"
    if state.phase == "replanning":
        return "starting" if time.time() - state.last_event_s < FIRST_EVENT_S else "crashed"
    if state.phase == "created":
        return "queued" if is_waiting(run.name) else "created"
    return "crashed" if state.phase == "running" else state.phase


def silence(run: RunFolder, *, alive: bool) -> heartbeat.Silence | None:
    """Return since when the worker of a run has not responded, and what to do; None if it responds or there is none."""
    return heartbeat.silence(run) if alive else None


def worker_process(run: RunFolder) -> psutil.Process | None:
    """Return the worker of a run from its heartbeat, else from its events. None when it has ended."""
    if (worker := heartbeat.worker(run)) and worker.process:
        return worker.process
    state = replay(run)
    return processes.find(state.pid, state.process_start_s)


def replay(run: RunFolder) -> RunState:
    """The state after every event of the run."""
    state, reader = RunState(), EventReader(run.events)
    for batch in reader.batches():
        state = fold_all(state, batch)
    return with_damage(state, reader)


def with_damage(state: RunState, reader: EventReader) -> RunState:
    """Return the state including what the reader found about the lines of the log."""
    return state._replace(
        damaged_lines=reader.damaged_lines, missing_lines=reader.missing_lines, last_line=reader.last_line
    )


def look(run: RunFolder) -> Job:
    """The run now. Liveness is read first: a worker that ends in between leaves its final event behind."""
    alive = is_alive(run)
    return Job(run, with_last_words(run, replay(run), alive=alive), alive)


def with_last_words(run: RunFolder, state: RunState, *, alive: bool) -> RunState:
    """Return the state including the final event of a worker that could not write it to the run's folder."""
    if alive or state.phase not in UNFINISHED or (event := last_words.find(run, state.attempt)) is None:
        return state
    return fold_all(state, [event.model_copy(update={"seq": state.last_seq, "time_s": state.last_event_s})])


def is_alive(run: RunFolder) -> bool:
    """Whether a worker holds the run's lock."""
    return is_held(run.lock)


def is_held(lock: Path) -> bool:
    """Whether a process holds a lock. Looking is a shared lock, so two lookers do not take each other for it."""
    try:
        handle = descriptor(lock, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(handle)


@contextmanager
def hold(run: RunFolder) -> Iterator[None]:
    """Hold the run's lock: the right to write its events. Raises RunConflictError while another process has it."""
    lock = FileLock(run.lock, timeout=_LOCK_PATIENCE_S, mode=0o600)
    with storage_errors(run.lock):
        try:
            if run.lock.exists():
                check(run.lock)
            lock.acquire()
        except Timeout as error:  # an OSError too, which is not about storage
            raise RunConflictError(
                f"run {run.name!r} is busy: another worker holds its lock",
                hint=f"Watch it with `qlora-tui watch {run.name}`, or stop it with `qlora-tui stop {run.name}`.",
            ) from error
    try:
        yield
    finally:
        lock.release()


def start(
    run: RunFolder,
    *,
    allow_download: bool = False,
    replan_on_oom: bool = False,
    accept_changed_data: bool = False,
    settings: Sequence[str] = (),
) -> None:
    """Start a detached worker on the run's folder and wait for its first event.

    The worker continues from the latest complete checkpoint, if any. It leads a session of its own, and its
    output goes to stdio.log, so it does not notice when this process or its terminal ends. `settings` are changed
    lengths of the run, as `key=value` (`extension.plan`).

    It obeys messages sent from now on, including while it is starting.

    Raises RunConflictError when a worker is alive, EnvironmentProblem when the worker ends without an event, or is
    ended because it neither writes one nor works.
    """
    if is_alive(run):
        raise RunConflictError(f"run {run.name!r} is running already", hint=f"Watch it: `qlora-tui watch {run.name}`.")
    reader = EventReader(run.events, end_of_lines(run.events))
    command = [sys.executable, "-m", WORKER, str(run.path), f"--control-offset={control.end(run.control)}"]
    command += ["--allow-download"] if allow_download else []
    command += ["--replan-on-oom"] if replan_on_oom else []
    command += ["--accept-changed-data"] if accept_changed_data else []
    for text in settings:
        command += ["--set", text]
    with storage_errors(run.stdio), open_to_append(run.stdio) as output:
        output.write(f"{STARTED}\n".encode())
        output.flush()
        worker = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=run.path,
            env=paths.child_environment(),
        )
    _await_first_event(run, worker, reader)


def _await_first_event(run: RunFolder, worker: subprocess.Popen[bytes], reader: EventReader) -> None:
    """Wait while the worker uses CPU time: on a busy machine or a slow disk its imports alone may take minutes."""
    worked_s, since_s = 0.0, time.monotonic()
    while True:
        code = worker.poll()
        if any(isinstance(event, events.Started) and event.pid == worker.pid for event in reader.read()):
            return
        if code is not None:
            raise _not_started(run, code)
        if (now_worked_s := _cpu_s(worker.pid)) > worked_s:
            worked_s, since_s = now_worked_s, time.monotonic()
        elif time.monotonic() - since_s >= FIRST_EVENT_S:
            break
        time.sleep(_POLL_S)
    _kill(worker)
    raise _not_started(run, None)


def _cpu_s(pid: int) -> float:
    with suppress(psutil.Error):
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)
    return 0.0


def _kill(worker: subprocess.Popen[bytes]) -> None:
    """End a worker that has not started yet, which no run folder records."""
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        worker.wait(TERMINATE_GRACE_S)


def _not_started(run: RunFolder, code: int | None) -> QloraError:
    if code == ExitCode.CONFLICT:
        return RunConflictError(
            f"another worker has just started run {run.name!r}", hint=f"Watch it: `qlora-tui watch {run.name}`."
        )
    message = f"the worker of run {run.name!r} did not start"
    if code is None:
        message = f"the worker of run {run.name!r} made no progress for {FIRST_EVENT_S:.0f} s and was terminated"
    elif code == ExitCode.STORAGE:
        return StorageError(f"the worker of run {run.name!r} cannot use {run.path}", hint=_last_words(run))
    return EnvironmentProblem(message, hint=_last_words(run))


def _last_words(run: RunFolder) -> str:
    try:
        with open_to_read(run.stdio) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES))
            lines = file.read(_LAST_WORDS_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return f"Nothing could be read from {run.stdio}."
    if cause := crash_cause(lines):
        return f"{run.stdio} says: {cause}"
    return f"Its output is in {run.stdio}."


def ask(run: RunFolder, action: control.Action) -> str:
    """Send a control message to a worker and return its id. Raises RunConflictError when the run is not running."""
    if not is_alive(run) and look(run).status not in LIVE:
        raise RunConflictError(
            f"run {run.name!r} is not running", hint=f"Show its result with `qlora-tui runs show {run.name}`."
        )
    return control.send(run.control, action)


def cancel(run: RunFolder, say: Callable[[str], None]) -> Job:
    """End a worker for good: ask, wait, terminate its process group, kill it. Returns the run afterwards.

    `say` hears when the worker has been asked and of each harder step. Whatever happened, the run's last event says
    that it was cancelled and none of its processes is left.
    """
    try:
        ask(run, "cancel")
        say(f"cancelling {run.name}")
        grace_s = CANCEL_GRACE_S
    except StorageError as error:  # a full disk must not keep a worker alive
        say(error.message)
        grace_s = 0.0
    process = worker_process(run)
    if process is not None and processes.is_stopped(process):
        processes.signal_group(process, signal.SIGCONT)
    if not wait_until_dead(run, grace_s):
        for name, number in (("terminating", signal.SIGTERM), ("killing", signal.SIGKILL)):
            say(f"the worker does not answer: {name} its process group")
            if process := worker_process(run):
                processes.signal_group(process, number)
            if wait_until_dead(run, TERMINATE_GRACE_S):
                break
    with hold(run):
        job = Job(run, replay(run), alive=False)
        if job.state.phase in UNFINISHED:
            _write_cancelled(run, job.state)
    processes.await_end_of_group(job.state.pid, TERMINATE_GRACE_S)
    return look(run)


def _write_cancelled(run: RunFolder, state: RunState) -> None:
    writer = EventWriter(run.events)
    checkpoint_step = state.checkpoints[-1].step if state.checkpoints else None
    writer.write(events.Stopped(reason="cancel", step=state.step_number, checkpoint_step=checkpoint_step))
    writer.close()
    log_length.store(run, writer.seq)


def wait_until_dead(run: RunFolder, seconds: float) -> bool:
    """Wait at most so many seconds for the worker to let go of the lock; whether it did."""
    deadline_s = time.monotonic() + seconds
    while is_alive(run):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(_POLL_S)
    return True
