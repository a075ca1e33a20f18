"""Control the garbage collector: it is suspended while a long log is read, which creates no cycles."""

import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_LONG_S = 0.3

_lock = threading.Lock()
_reading = 0


@contextmanager
def uncollected() -> Iterator[None]:
    """Suspend the collector in every thread. Objects created in a long block are frozen out of later collections.

    A collection goes through all objects and stops every thread meanwhile, 40 ms with a long run on screen. Objects
    without cycles are freed all the same.
    """
    global _reading
    with _lock:
        _reading += 1
        gc.disable()
    began_s = time.monotonic()
    try:
        yield
    finally:
        if time.monotonic() - began_s > _LONG_S:
            gc.freeze()
        with _lock:
            _reading -= 1
            if not _reading:
                gc.enable()
