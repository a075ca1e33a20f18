"""What a person puts on a run afterwards: its name, its tags; and the bin from which a deleted run comes back."""

import json
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

from qlora_tui import atomic, paths
from qlora_tui.errors import NotFoundError, RunConflictError, UsageError
from qlora_tui.runs import jobs, queue, store
from qlora_tui.runs.store import RunFolder

FILE = "tags.json"
KEPT_S = 7 * 24 * 3600.0
"""Deleted runs are gone for good after this long."""

_BIN = ".bin"
_TAG = re.compile(r"[\w.+-]{1,40}")


def tags(run: RunFolder) -> tuple[str, ...]:
    """The run's tags; a file that is none has none."""
    try:
        found = json.loads((run.path / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return ()
    return tuple(tag for tag in found if isinstance(tag, str)) if isinstance(found, list) else ()


def set_tags(run: RunFolder, wanted: list[str]) -> None:
    """Replace the run's tags. Raises UsageError naming a tag that is not one word, StorageError."""
    for tag in wanted:
        if not _TAG.fullmatch(tag):
            raise UsageError(f"{tag!r} is not a tag", hint="Use letters, digits, dots, dashes, plus and underscores.")
    atomic.write_json(run.path / FILE, list(dict.fromkeys(wanted)))


def rename(run: RunFolder, name: str) -> RunFolder:
    """Give the run another name, which is that of its folder and of its place in the queue.

    Raises UsageError for an illegal name, RunConflictError when it is taken or the run is alive, StorageError.
    """
    store.check_name(name)
    target = run.path.with_name(name)
    with jobs.hold(run), queue.renaming(run.name, name):
        if target.exists():
            raise RunConflictError(f"a run named {name!r} exists already", hint="Choose another name.")
        with atomic.storage_errors(target):
            run.path.rename(target)
            atomic.fsync_folder(target.parent)
    return RunFolder(target)


def discard(run: RunFolder) -> None:
    """Put the run into the bin, whole. Raises RunConflictError while its worker is alive, StorageError."""
    grave = _bin() / f"{time.time_ns()}" / run.name
    with jobs.hold(run), atomic.storage_errors(grave):
        grave.parent.mkdir(parents=True)
        run.path.rename(grave)


def restore(name: str) -> RunFolder:
    """Bring back the run of this name that was discarded last. Raises NotFoundError, RunConflictError, StorageError."""
    graves = sorted(_bin().glob(f"*/{store.check_name(name)}"))
    if not graves:
        raise NotFoundError(f"no run named {name!r} in the bin", hint="It may have been emptied.")
    target = paths.runs() / name
    if target.exists():
        raise RunConflictError(f"a run named {name!r} exists already", hint="Rename it first.")
    with atomic.storage_errors(target):
        graves[-1].rename(target)
        graves[-1].parent.rmdir()
    return RunFolder(target)


def discarded() -> tuple[int, int]:
    """How many runs are in the bin, and their bytes on disk."""
    runs = [RunFolder(path) for path in _bin().glob("*/*")]
    return len(runs), sum(map(store.size_bytes, runs))


def empty_bin(*, older_than_s: float = 0.0) -> None:
    """Delete for good what was discarded so long ago. What cannot be deleted stays for the next time."""
    for grave in _bin().glob("*"):
        with suppress(ValueError):
            if time.time() - int(grave.name) / 1e9 >= older_than_s:
                shutil.rmtree(grave, ignore_errors=True)


def _bin() -> Path:
    return paths.runs() / _BIN
