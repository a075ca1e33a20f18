"""Runs that wait for their turn: a small file, and the loop that starts the next one when the machine is free.

A queued run is a folder that was created and not started, so it is listed, shown and deleted like any other. The loop
runs in a process of its own (`qlora-tui queue run`) that holds a lock and ends when nothing waits.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from filelock import FileLock, Timeout

from qlora_tui import atomic, hardware, paths
from qlora_tui.errors import QloraError, RunConflictError
from qlora_tui.regular_files import open_to_append
from qlora_tui.runs import jobs, store
from qlora_tui.runs.fingerprint import read_plan, record
from qlora_tui.runs.waiting import Waiting, file, waiting
from qlora_tui.units import memory

FREE_SHARE = 0.5
"""Without an estimate of the run, or with one beyond every GPU: the share of a GPU's memory that must be free before it
starts."""

_POLL_S = 2.0
_PATIENCE_S = 10.0
_LOOK_S = 1.0
"""Longer than anybody takes to look whether the lock is held."""


def add(name: str, *, allow_download: bool = False) -> None:
    """Put a created run at the end. Raises NotFoundError, RunConflictError when it has begun or waits, StorageError."""
    run = store.find(name)
    _check_not_begun(run)
    _foresee(run)
    with _changing() as entries:
        if any(entry.name == name for entry in entries):
            raise RunConflictError(f"run {name!r} is in the queue already", hint="See `qlora-tui queue list`.")
        entries.append(Waiting(name, allow_download))


def remove(name: str) -> bool:
    """Take a run out of the queue; whether it was in it. The run's folder stays. Raises StorageError."""
    with _changing() as entries:
        kept = [entry for entry in entries if entry.name != name]
        found = len(kept) < len(entries)
        entries[:] = kept
    return found


@contextmanager
def renaming(name: str, wanted: str) -> Iterator[None]:
    """Prevent the run from being started while the block renames it, then rename it in the queue.

    Raises RunConflictError when another process keeps the queue locked, StorageError.
    """
    with _changing() as entries:
        yield
        entries[:] = [replace(entry, name=wanted) if entry.name == name else entry for entry in entries]


@contextmanager
def removing(name: str) -> Iterator[None]:
    """Prevent the queue from starting a run while the block deletes it, then remove it from the queue.

    Raises RunConflictError when another process keeps the queue locked, StorageError.
    """
    with _changing() as entries:
        yield
        entries[:] = [entry for entry in entries if entry.name != name]


def is_running() -> bool:
    """Whether a process is working the queue off."""
    return jobs.is_held(_lock())


def ensure_running() -> None:
    """Start the process that works the queue off, unless there is one. It outlives this one. Raises StorageError."""
    if is_running():
        return
    log = file().with_suffix(".log")
    with atomic.storage_errors(log):
        atomic.make_folder(log.parent)
        with open_to_append(log) as output:
            subprocess.Popen(
                [sys.executable, "-m", "qlora_tui", "queue", "run"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=paths.child_environment(),
            )


def work_off(say: Callable[[str], None]) -> None:
    """Start one waiting run after another, each when no run lives and memory is free, until none waits.

    A run that cannot be started is said and passed over. Raises RunConflictError when another process does this.
    """
    lock = FileLock(_lock(), timeout=_LOOK_S)
    mine = _take(lock)
    if not mine:
        raise RunConflictError("another process works the queue off", hint="See it with `qlora-tui queue list`.")
    while mine:
        try:
            _start_all(say)
        finally:
            lock.release()
        # Whoever added a run since the last look saw a process at work, and started none.
        mine = bool(waiting()) and _take(lock)


def _take(lock: FileLock) -> bool:
    """Whether this process has the lock now."""
    with atomic.storage_errors(_lock()):
        atomic.make_folder(_lock().parent)
        try:
            lock.acquire()
        except Timeout:  # an OSError too, which is not about storage
            return False
    return True


def _start_all(say: Callable[[str], None]) -> None:
    reason = ""
    while entries := waiting():
        obstacle = busy(entries[0].name)
        if obstacle:
            if obstacle != reason:
                say(f"{entries[0].name} waits: {obstacle}")
            reason = obstacle
            time.sleep(_POLL_S)
            continue
        _start(entries[0], say)


def _start(entry: Waiting, say: Callable[[str], None]) -> None:
    """Start a run, unless it was taken out of the queue or renamed since the look."""
    if not remove(entry.name):
        return
    try:
        run = store.find(entry.name)
        _check_not_begun(run)
        jobs.start(run, allow_download=entry.allow_download)
        say(f"started {entry.name}")
    except QloraError as error:
        say(f"{entry.name} was not started: {error.message}")


def _check_not_begun(run: store.RunFolder) -> None:
    if jobs.look(run).status not in ("created", "queued"):
        raise RunConflictError(
            f"run {run.name!r} has begun already", hint=f"Continue it: `qlora-tui resume {run.name}`."
        )


def busy(name: str) -> str:
    """Why that run, the next one, cannot start now, or an empty string."""
    for run in store.all_runs():
        if alive := jobs.is_alive(run):
            silence = jobs.silence(run, alive=alive)
            return f"{run.name} is {silence or 'running'}"
    machine = hardware.snapshot()
    kind, need_bytes = _needed(name)
    if kind == "cpu":
        enough = need_bytes <= machine.ram_available_bytes or need_bytes > machine.ram_total_bytes
        return "" if enough else f"it needs {memory(need_bytes)} of RAM, {memory(machine.ram_available_bytes)} are free"
    return _short_of(machine.gpus, need_bytes)


def _short_of(gpus: tuple[hardware.Gpu, ...], need_bytes: int) -> str:
    """What no GPU has now but could have, or an empty string."""
    if not 0 < need_bytes <= max((gpu.total_bytes for gpu in gpus), default=0):
        busy_gpus = gpus and all(gpu.free_bytes < FREE_SHARE * gpu.total_bytes for gpu in gpus)
        return "the GPU's memory is in use" if busy_gpus else ""
    free_bytes = max(gpu.free_bytes for gpu in gpus)
    return "" if need_bytes <= free_bytes else f"it needs {memory(need_bytes)} of a GPU, {memory(free_bytes)} are free"


def _needed(name: str) -> tuple[str, int]:
    """Kind of device and bytes that a run is estimated to need; 0 bytes of a GPU if unknown."""
    try:
        expected = read_plan(store.find(name)).get("estimate")
    except QloraError:  # the folder was deleted: starting the run reports it
        expected = None
    if not isinstance(expected, dict) or not isinstance(expected.get("need_bytes"), int):
        return "cuda", 0
    return str(expected.get("kind")), expected["need_bytes"]


def _foresee(run: store.RunFolder) -> None:
    """Estimate the memory of the run for plan.json, unless it was estimated at creation."""
    from qlora_tui.memory.record import before_start
    from qlora_tui.memory.stored_estimate import BEFORE_START

    if BEFORE_START in read_plan(run):
        return
    expected = before_start(run.load_config(), hardware.snapshot())
    if expected is not None:
        record(run, estimate=expected)


@contextmanager
def _changing() -> Iterator[list[Waiting]]:
    """The queue, to be changed in place. What fails in the block changes nothing."""
    path = file()
    with atomic.storage_errors(path):
        atomic.make_folder(path.parent)
    lock = FileLock(path.with_suffix(".changing"), timeout=_PATIENCE_S)
    with atomic.storage_errors(path):
        try:
            lock.acquire()
        except Timeout as error:  # an OSError too, which is not about storage
            raise RunConflictError("another process is changing the queue", hint="Try again.") from error
    try:
        before = waiting()
        entries = list(before)
        yield entries
        if entries != before:
            atomic.write_json(path, [asdict(entry) for entry in entries])
    finally:
        lock.release()


def _lock() -> Path:
    return paths.data() / "queue.lock"
