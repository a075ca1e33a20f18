"""A worker's sign of life: a small file that names its process and is touched for as long as it makes progress.

The lock says that a worker lives; it holds the lock too while it is stopped or waits for a disk that does not answer.
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
"""Between two touches of the file."""

SILENT_AFTER_S = 30.0
"""Without a touch for so long a worker does not respond. Longer than a C call keeps other threads from running."""

STALLED_AFTER_S = 60.0
"""A main thread that has not run and has written no event for so long makes no progress: it waits for a disk or GPU."""


class Heart:
    """Touches the file. Made by the main thread of a worker; `beat` is called by another one."""

    def __init__(self, run: RunFolder) -> None:
        """Write down the process. A file that cannot be written leaves the worker without a sign of life."""
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
    """How long a thread of this process has run, by the kernel's count; None where it keeps none."""
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
    """A worker that holds its lock and does not respond."""

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
    """The worker that the run's heartbeat names; None without one, as for a worker of an earlier version."""
    try:
        beat_s = run.heartbeat.stat().st_mtime
        about = json.loads(read_text(run.heartbeat))
        return Worker(int(about["pid"]), float(about["process_start_s"]), str(about["host"]), beat_s)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def silence(run: RunFolder) -> Silence | None:
    """Whether the living worker of a run responds: None when it does, or when nobody can say."""
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
