"""Which checkpoints of a run are whole: each file readable, all of one step. No torch needed to know."""

import json
import shutil
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

MARKER = "complete.json"
"""Written last, after every file of the checkpoint is on disk: file names to sizes in bytes."""

_PREFIX = "checkpoint-"


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


def newest_complete(folder: Path) -> tuple[CheckpointFolder | None, list[tuple[CheckpointFolder, str]]]:
    """The newest whole checkpoint, and the newer ones that were skipped with the reason of each."""
    skipped: list[tuple[CheckpointFolder, str]] = []
    for checkpoint in all_checkpoints(folder):
        problem = why_incomplete(checkpoint)
        if problem is None:
            return checkpoint, skipped
        skipped.append((checkpoint, problem))
    return None, skipped


def why_incomplete(checkpoint: CheckpointFolder) -> str | None:
    """What is wrong with a checkpoint, or None when it can be resumed from."""
    try:
        files = json.loads((checkpoint.path / MARKER).read_text())["files"]
    except FileNotFoundError:
        return "it was not written to the end"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{MARKER} cannot be read"
    for name, size_bytes in files.items():
        problem = _why_unreadable(checkpoint.path / name, size_bytes)
        if problem:
            return problem
    try:
        state = json.loads((checkpoint.path / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return "trainer_state.json cannot be read"
    if state.get("global_step") != checkpoint.step:
        return f"trainer_state.json is of step {state.get('global_step')}"
    return None


def _why_unreadable(path: Path, size_bytes: int) -> str | None:
    try:
        actual_bytes = path.stat().st_size
        if actual_bytes != size_bytes:
            return f"{path.name} has {actual_bytes} of {size_bytes} bytes"
        if path.suffix == ".safetensors":
            return None if _safetensors_is_whole(path) else f"{path.name} is damaged"
        if path.suffix in (".pt", ".pth"):
            with zipfile.ZipFile(path) as archive:
                return f"{path.name} is damaged" if archive.testzip() else None
    except FileNotFoundError:
        return f"{path.name} is missing"
    except (OSError, zipfile.BadZipFile):
        return f"{path.name} cannot be read"
    return None


def _safetensors_is_whole(path: Path) -> bool:
    """Whether the header parses and its last tensor ends where the file ends."""
    with path.open("rb") as file:
        (header_bytes,) = struct.unpack("<Q", file.read(8))
        if header_bytes > path.stat().st_size:
            return False
        try:
            header = json.loads(file.read(header_bytes))
        except ValueError:
            return False
    ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    return bool(8 + header_bytes + max(ends, default=0) == path.stat().st_size)


def discard_older(folder: Path, keep: int, keep_also: frozenset[int]) -> None:
    """Delete all but the newest `keep` whole checkpoints and the steps in `keep_also`.

    The marker goes first, so a checkpoint that is half deleted is not taken for a whole one.
    """
    whole = [checkpoint for checkpoint in all_checkpoints(folder) if (checkpoint.path / MARKER).exists()]
    for checkpoint in whole[keep:]:
        if checkpoint.step not in keep_also:
            (checkpoint.path / MARKER).unlink()
            shutil.rmtree(checkpoint.path, ignore_errors=True)
