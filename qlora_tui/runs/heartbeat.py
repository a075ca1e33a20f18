"""The heartbeat of a worker: a small file that names its process and is touched while it makes progress.

The lock shows that a worker is alive; it is also held while the worker is suspended or waits for a stalled disk.
"""

import json
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from qlora_tui import atomic
from qlora_tui.errors import StorageError
from qlora_tui.regular_files import read_text
from qlora_tui.runs import processes
from qlora_tui.runs.store import RunFolder

BEAT_S = 1.0
"""Seconds between two touches of the file."""

SILENT_AFTER_S = 30.0
"""After this time without a touch a worker is not responding. Longer than a C call blocks other threads."""

STALLED_AFTER_S = 60.0
"""A main thread without CPU time and events for this long makes no progress: it waits for a disk or GPU."""


class Heart:
    """Touches the file. Made by the main thread of a worker; `beat` is called by another one."""

    def __init__(self, run: RunFolder) -> None:
        """Write the process to the file. If it cannot be written, the worker has no heartbeat."""
        about = {"pid": os.getpid(), "process_start_s": psutil.Process().create_time(), "host": socket.gethostname()}
        self._path = run.heartbeat
        self._main_thread = threading.get_native_id()
        self._progress: object = None
        self._progress_s = self._beat_s = time.monotonic()
        with suppress(StorageError):
            atomic.write_text(self._path, json.dumps(about))

    def beat(self, written_events: int) -> None:
        """Touch the file, at most once a second, unless the main thread makes no progress."""
        now_s = time.monotonic()
        if now_s - self._beat_s < BEAT_S:
            return
        self._beat_s = now_s
        progress = (written_events, _runtime(self._main_thread))
        if progress != self._progress or progress[1] is None:
            self._progress, self._progress_s = progress, now_s
        if now_s - self._progress_s < STALLED_AFTER_S:
            with suppress(OSError):
                os.utime(self._path)


def _runtime(thread: int) -> str | None:
    """Return the CPU time of a thread of this process; None if the kernel does not report it."""
    try:
        return Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[0]
    except (OSError, IndexError):
        return None


@dataclass(frozen=True, slots=True)
class Worker:
    """The process that a heartbeat names."""

    pid: int
    process_start_s: float
    host: str
    beat_s: float
    """When it was touched last, in seconds since the epoch."""

    @property
    def process(self) -> psutil.Process | None:
        """The process, if it is on this machine and has not ended."""
        return processes.find(self.pid, self.process_start_s)


@dataclass(frozen=True, slots=True)
class Silence:
    """A worker that holds its lock but does not respond."""

    since_s: float
    """When it responded last, in seconds since the epoch."""

    advice: str
    """What to do about it."""

    def __str__(self) -> str:
        """Since when, by this machine's clock, with the date where it is another one."""
        since = time.localtime(self.since_s)
        is_today = since[:3] == time.localtime()[:3]
        return time.strftime(f"not responding since {'' if is_today else '%Y-%m-%d '}%H:%M:%S", since)


def worker(run: RunFolder) -> Worker | None:
    """Return the worker named by the run's heartbeat; None without one, as for earlier versions."""
    try:
        beat_s = run.heartbeat.stat().st_mtime
        about = json.loads(read_text(run.heartbeat))
        return Worker(int(about["pid"]), float(about["process_start_s"]), str(about["host"]), beat_s)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def silence(run: RunFolder) -> Silence | None:
    """Return the silence of a live worker; None if it responds or this is unknown."""
    found = worker(run)
    if found is None:
        return None
    process = found.process
    if process is None and found.host == socket.gethostname():
        return None  # left by an earlier worker: the one that lives has only just taken the lock
    if process is not None and processes.is_stopped(process):
        return Silence(
            found.beat_s, f"The worker was suspended by a signal. Continue it with `kill -CONT {found.pid}`."
        )
    if time.time() - found.beat_s < SILENT_AFTER_S:
        return None
    return Silence(
        found.beat_s,
        "The disk, the network or the GPU may not be responding. The worker continues when it responds; "
        f"`qlora-tui cancel {run.name}` cancels the run.",
    )
