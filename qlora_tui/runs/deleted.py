"""Deleted runs: a bin next to the runs, from which a run can be restored for seven days."""

import errno
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from qlora_tui import atomic, paths
from qlora_tui.errors import NotFoundError, RunConflictError, nearest
from qlora_tui.runs import jobs, queue, store
from qlora_tui.runs.store import RunFolder

KEPT_S = 7 * 24 * 3600.0
"""How long a deleted run can be restored."""

_BIN = ".bin"
_PURGING = "purging-"


@dataclass(frozen=True, slots=True)
class DeletedRun:
    """A run in the bin. Times in seconds since the epoch."""

    run: RunFolder
    """Its folder in the bin."""

    deleted_s: float

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def until_s(self) -> float:
        """When the run is removed permanently."""
        return self.deleted_s + KEPT_S


def delete(run: RunFolder) -> DeletedRun:
    """Move the run's folder into the bin and take the run out of the queue.

    Raises RunConflictError while its worker is alive or while the queue is busy, StorageError.
    """
    deleted_ns = time.time_ns()
    target = _bin() / str(deleted_ns) / run.name
    with jobs.hold(run), queue.removing(run.name), atomic.storage_errors(target):
        atomic.make_folder(target.parent)
        run.path.rename(target)
        atomic.fsync_folder(target.parent)
    return DeletedRun(RunFolder(target), deleted_ns / 1e9)


def entries() -> list[DeletedRun]:
    """The runs that can be restored, the one deleted last first."""
    now_s = time.time()
    found = [
        DeletedRun(RunFolder(path), deleted_ns / 1e9)
        for deleted_ns, slot in sorted(_slots(), reverse=True)
        for path in _children(slot)
    ]
    return [entry for entry in found if now_s < entry.until_s]


def find(name: str) -> DeletedRun:
    """The run of this name that was deleted last. Raises UsageError, NotFoundError."""
    store.check_name(name)
    found = entries()
    for entry in found:
        if entry.name == name:
            return entry
    hint = nearest(name, [entry.name for entry in found]) if found else "The bin is empty."
    raise NotFoundError(f"no run named {name!r} in the bin", hint=hint)


def restore(entry: DeletedRun, name: str | None = None) -> RunFolder:
    """Move a deleted run back, under its own name or another.

    Raises UsageError for an illegal name, RunConflictError when the name is taken, NotFoundError when the run is no
    longer in the bin, StorageError.
    """
    target = paths.runs() / store.check_name(name or entry.name)
    with atomic.storage_errors(target):
        try:
            if target.exists():
                raise OSError(errno.EEXIST, "")
            entry.run.path.rename(target)
        except FileNotFoundError as error:
            raise NotFoundError(f"{entry.name} is no longer in the bin") from error
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
            hint = f"Rename that run, or choose another name: `qlora-tui runs restore {entry.name} --name NEW`."
            raise RunConflictError(f"a run named {target.name!r} exists already", hint=hint) from error
        atomic.fsync_folder(target.parent)
    _remove_if_empty(entry.run.path.parent)
    return RunFolder(target)


def purge(*, older_than_s: float = KEPT_S) -> None:
    """Permanently remove expired deleted runs. Failed removals are retried next time."""
    now_s = time.time()
    for deleted_ns, slot in _slots():
        if now_s - deleted_ns / 1e9 >= older_than_s:
            doomed = slot.with_name(f"{_PURGING}{slot.name}")  # first out of reach of `restore`, then file by file
            try:
                slot.rename(doomed)
            except OSError:
                continue
    for left in _children(_bin()):
        if left.name.startswith(_PURGING):
            shutil.rmtree(left, ignore_errors=True)


def _slots() -> list[tuple[int, Path]]:
    """The folders of the bin by time of deletion in ns; each contains one run."""
    return [(int(path.name), path) for path in _children(_bin()) if path.name.isdecimal()]


def _children(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir()]
    except OSError:
        return []


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # another run was deleted into it, which cannot be: then it goes when it is old
        return


def _bin() -> Path:
    return paths.runs() / _BIN
