"""Which checkpoints of a run are whole: each file as it was written, all of one step. No torch needed to know."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from qlora_tui import atomic
from qlora_tui.errors import StorageError
from qlora_tui.regular_files import UnsuitableFileError, read_bytes
from qlora_tui.runs import checksums

MARKER = "complete.json"
"""Written last, after all files of the checkpoint: maps file names to sizes in bytes and checksums."""

_PREFIX = "checkpoint-"
_DAMAGED = "damaged-"


@dataclass(frozen=True, slots=True)
class CheckpointFolder:
    path: Path
    step: int


def step_of(path: Path) -> int | None:
    """The step in a checkpoint folder's name, or None for another folder."""
    number = path.name.removeprefix(_PREFIX)
    return int(number) if path.name.startswith(_PREFIX) and number.isdecimal() else None


def all_checkpoints(folder: Path) -> list[CheckpointFolder]:
    """Checkpoint folders, whole or not, newest step first."""
    if not folder.is_dir():
        return []
    found = [(step_of(path), path) for path in folder.iterdir() if path.is_dir()]
    return [
        CheckpointFolder(path, step) for step, path in sorted(found, key=_by_step, reverse=True) if step is not None
    ]


def _by_step(item: tuple[int | None, Path]) -> int:
    return -1 if item[0] is None else item[0]


Skipped = tuple[CheckpointFolder, str]
"""A checkpoint that cannot be resumed from, and why."""


def newest_complete(folder: Path, *, by_content: bool = True) -> tuple[CheckpointFolder | None, list[Skipped]]:
    """The newest whole checkpoint, and the newer ones that were skipped with the reason of each.

    Without `by_content` no file is read whole, which may take minutes: then one that is damaged may be taken for whole.

    Raises StorageError when the disk does not let itself be read: that says nothing about the checkpoint.
    """
    skipped: list[Skipped] = []
    for checkpoint in all_checkpoints(folder):
        problem = why_incomplete(checkpoint, by_content=by_content)
        if problem is None:
            return checkpoint, skipped
        skipped.append((checkpoint, problem))
    return None, skipped


def seal(folder: Path) -> int:
    """Make a written checkpoint durable and mark it whole. Returns its bytes."""
    atomic.fsync_tree(folder)
    return checksums.write_list(folder, MARKER)


def why_incomplete(checkpoint: CheckpointFolder, *, by_content: bool = True) -> str | None:
    """What is wrong with a checkpoint, or None when it can be resumed from. Raises StorageError."""
    try:
        if problem := checksums.why_damaged(checkpoint.path, MARKER, by_content=by_content):
            return problem
        step = json.loads(read_bytes(checkpoint.path / "trainer_state.json"))["global_step"]
    except FileNotFoundError as error:
        is_marker = error.filename == str(checkpoint.path / MARKER)
        return "it is incomplete" if is_marker else "trainer_state.json is missing"
    except UnsuitableFileError as error:
        return f"{Path(error.filename).name} cannot be used: {error.strerror}"
    except OSError as error:
        hint = f"Check the disk and its permissions, or delete {checkpoint.path} to resume from the one before it."
        raise StorageError(f"cannot read {error.filename}: {error.strerror}", hint=hint) from error
    except (ValueError, KeyError, TypeError, RecursionError):
        return "trainer_state.json cannot be read"
    return None if step == checkpoint.step else f"trainer_state.json is of step {step}"


def put_aside(skipped: list[Skipped]) -> list[str]:
    """Get checkpoints that are not resumed from out of the way, and say of each what became of it.

    One that was not written to the end is deleted. What is left of a damaged one may still be worth something to a
    person; it is kept until others are put aside. Raises StorageError.
    """
    damaged = [checkpoint for checkpoint, _ in skipped if (checkpoint.path / MARKER).exists()]
    for checkpoint in damaged[:1]:
        for earlier in checkpoint.path.parent.glob(f"{_DAMAGED}*"):
            shutil.rmtree(earlier, ignore_errors=True)
    said = []
    for checkpoint, problem in skipped:
        kept = checkpoint.path.with_name(f"{_DAMAGED}{checkpoint.step}")
        if checkpoint in damaged:
            with atomic.storage_errors(kept):
                checkpoint.path.rename(kept)
        else:
            shutil.rmtree(checkpoint.path, ignore_errors=True)
        fate = f"What is left of it is in {kept}." if checkpoint in damaged else "It was deleted."
        said.append(f"{checkpoint.path.name} is not resumed from: {problem}. {fate}")
    return said


def discard_unwritten(folder: Path) -> None:
    """Delete the checkpoints that were not written to the end."""
    for checkpoint in all_checkpoints(folder):
        if not (checkpoint.path / MARKER).exists():
            shutil.rmtree(checkpoint.path, ignore_errors=True)


def discard_older(folder: Path, keep: int, keep_also: frozenset[int]) -> None:
    """Delete all but the newest `keep` whole checkpoints and the steps in `keep_also`.

    The marker goes first, so a checkpoint that is half deleted is not taken for a whole one.
    """
    whole = [checkpoint for checkpoint in all_checkpoints(folder) if (checkpoint.path / MARKER).exists()]
    for checkpoint in whole[keep:]:
        if checkpoint.step not in keep_also:
            (checkpoint.path / MARKER).unlink()
            shutil.rmtree(checkpoint.path, ignore_errors=True)
