"""Time and memory limits for untrusted code in this process: chat templates, tokenizer rules.

A thread watches the block that runs such code. Beyond a limit it raises an exception inside the block, which ends
Python code. Native code that does not return is ended together with the process, after `last_words` has been called.
Time is CPU time of the process, so a busy machine does not count; a block within its limits costs microseconds.
"""

import ctypes
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from types import TracebackType

import psutil

from qlora_tui.errors import QloraError
from qlora_tui.terminal import narrate
from qlora_tui.units import memory

POLL_S = 0.05
_GRACE_S = 2.0
"""CPU seconds that interrupted code may take to end before the process is terminated."""
_IDLE_S = 5.0
"""The watcher thread exits after this time without a block."""


@cache
def _ram_bytes() -> int:
    return int(psutil.virtual_memory().total)


def at_most_half_of_ram(wanted_bytes: int) -> int:
    """Return `wanted_bytes`, or half of this machine's RAM if that is less."""
    return min(wanted_bytes, _ram_bytes() // 2)


def _say_last_words(error: QloraError) -> None:
    narrate(f"error: {error.message}")
    narrate(f"hint: {error.hint}")


last_words: Callable[[QloraError], object] = _say_last_words
"""Reports the error that ends the process. Set by each kind of process, called from the watcher thread."""


class _Interrupted(BaseException):
    """Raised by the watcher thread inside a block. Not caught by handlers of `Exception` in the block."""


class limited:  # noqa: N801  (used as a context manager, like `suppress`)
    """Run the block under limits. Raises `error(reason)`, with a reason such as "took more than 20 s of CPU time".

    With `address_space` one allocation of more than twice `memory_bytes` is a MemoryError: code that allocates in one
    call is seen too late by a watching thread. Linux only; not for code that starts threads, whose stacks count.
    """

    __slots__ = (
        "_began_bytes", "_began_cpu_s", "_exceeded", "_interrupted_cpu_s", "_limit_before", "_thread",
        "address_space", "cpu_s", "error", "last_error", "memory_bytes",
    )  # fmt: skip

    def __init__(
        self,
        cpu_s: float,
        memory_bytes: int,
        error: Callable[[str], Exception],
        last_error: Callable[[str], QloraError],
        *,
        address_space: bool = False,
    ) -> None:
        self.cpu_s = cpu_s
        self.memory_bytes = memory_bytes
        self.error = error
        self.last_error = last_error
        """Creates the error for a process that is terminated because the block does not end."""
        self.address_space = address_space and sys.platform == "linux"
        self._thread = threading.get_ident()
        self._began_cpu_s: float | None = None
        self._began_bytes = 0
        self._exceeded = ""
        self._interrupted_cpu_s = 0.0

    def __enter__(self) -> None:
        if self.address_space:
            before = self._limit_before = resource.getrlimit(resource.RLIMIT_AS)
            most_bytes = _address_space_bytes() + 2 * self.memory_bytes
            if before[0] == resource.RLIM_INFINITY or most_bytes < before[0]:
                resource.setrlimit(resource.RLIMIT_AS, (most_bytes, before[1]))
        _watch(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._leave()
        except _Interrupted:  # it arrived on the way out
            self._leave()
        if self.address_space:
            resource.setrlimit(resource.RLIMIT_AS, self._limit_before)
        if self._exceeded:
            raise self.error(self._exceeded) from None

    def _leave(self) -> None:
        with _mutex:
            _active.discard(self)
            if self._exceeded:
                _raise_in(self._thread, None)

    def check(self, cpu_s: float, used_bytes: int) -> None:
        """Called by the watcher thread: start measuring, interrupt the block, or end the process."""
        if self._began_cpu_s is None:
            self._began_cpu_s, self._began_bytes = cpu_s, used_bytes
        elif self._exceeded:
            if cpu_s - self._interrupted_cpu_s > _GRACE_S or self._grown(used_bytes) > 2 * self.memory_bytes:
                _end(self.last_error(self._exceeded))
        elif cpu_s - self._began_cpu_s > self.cpu_s:
            self._interrupt(f"took more than {self.cpu_s:.0f} s of CPU time", cpu_s)
        elif self._grown(used_bytes) > self.memory_bytes:
            self._interrupt(f"took more than {memory(self.memory_bytes)} of memory", cpu_s)

    def _grown(self, used_bytes: int) -> int:
        return used_bytes - self._began_bytes

    def _interrupt(self, reason: str, cpu_s: float) -> None:
        self._exceeded, self._interrupted_cpu_s = reason, cpu_s
        _raise_in(self._thread, _Interrupted)


_mutex = threading.RLock()
_active: set[limited] = set()
_watcher: threading.Thread | None = None
_last_entered_s = 0.0


def _watch(block: limited) -> None:
    global _watcher, _last_entered_s
    with _mutex:
        _active.add(block)
        _last_entered_s = time.monotonic()
        if _watcher is None:
            _watcher = threading.Thread(target=_follow, name="limits", daemon=True)
            _watcher.start()


def _follow() -> None:
    global _watcher
    process = psutil.Process()
    while True:
        time.sleep(POLL_S)
        with _mutex:
            if not _active and time.monotonic() - _last_entered_s > _IDLE_S:
                _watcher = None
                return
            if _active:
                cpu_s, used_bytes = time.process_time(), process.memory_info().rss
                for block in list(_active):
                    block.check(cpu_s, used_bytes)


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Raise an exception in another thread at its next bytecode; None cancels a pending one."""
    argument = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), argument)


def _end(error: QloraError) -> None:
    try:
        last_words(error)
    finally:
        os._exit(error.exit_code)


_READ_AGAIN_S = 0.1
_address_space = (-1.0, 0)
"""When it was read, and what was read: reading takes longer than a typical block."""


def _address_space_bytes() -> int:
    global _address_space
    now_s = time.monotonic()
    read_s, size_bytes = _address_space
    if read_s < 0 or now_s - read_s > _READ_AGAIN_S:
        size_bytes = psutil.Process().memory_info().vms
        _address_space = (now_s, size_bytes)
    return size_bytes
