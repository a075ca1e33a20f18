"""How long and how much the caches keep: entries that nothing used for long go, then the oldest ones beyond a size."""

import contextlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path

MAX_BYTES = 20 * 10**9
"""Each cache folder is cut down to this size before something is written to it."""

_UNUSED_S = 30 * 24 * 3600.0
_ABANDONED_S = 24 * 3600.0


def sweep(folder: Path, is_unfinished: Callable[[Path], bool]) -> None:
    """Delete entries of `folder`, files or folders, whose time of change says when they were last used.

    `is_unfinished` tells what a writer has not completed; a day later that writer was killed. What is in use stays
    readable for the process that has it open.
    """
    kept: list[tuple[float, int, Path]] = []
    for entry in folder.iterdir():
        with contextlib.suppress(OSError):
            used_s = entry.stat().st_mtime
            unfinished = is_unfinished(entry)
            if time.time() - used_s > (_ABANDONED_S if unfinished else _UNUSED_S):
                _delete(entry)
            elif not unfinished:
                kept.append((used_s, _size_bytes(entry), entry))
    total_bytes = sum(size for _, size, _ in kept)
    for _, size, entry in sorted(kept):
        if total_bytes <= MAX_BYTES:
            break
        with contextlib.suppress(OSError):
            _delete(entry)
            total_bytes -= size


def _size_bytes(entry: Path) -> int:
    files = entry.iterdir() if entry.is_dir() else [entry]
    return sum(file.stat().st_size for file in files)


def _delete(entry: Path) -> None:
    if entry.is_dir():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink()
