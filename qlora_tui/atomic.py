"""Writing files so that a reader sees the old content or the new one, never half of it."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qlora_tui.errors import StorageError


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content`: temporary file in the same folder, fsync, rename, fsync of the folder.

    Raises StorageError when the folder is read-only, missing or full.
    """
    with storage_errors(path):
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        fsync_folder(path.parent)


def write_text(path: Path, content: str) -> None:
    """`write_bytes` for UTF-8 text. Lone surrogates are written as the replacement character."""
    write_bytes(path, content.encode("utf-8", "replace"))


def write_json(path: Path, content: Any) -> None:
    """`write_text` of indented JSON with a final newline."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def fsync_tree(folder: Path) -> None:
    """Make every file below `folder` durable."""
    for path in (folder, *folder.rglob("*")):
        fsync_folder(path)


def fsync_folder(folder: Path) -> None:
    """Make renames and new names inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError about `path` into a StorageError that names it and says what to do."""
    try:
        yield
    except OSError as error:
        raise storage_error(path, error) from error


def storage_error(path: Path, error: OSError) -> StorageError:
    """What to say about a failure to write `path`."""
    return StorageError(f"cannot write {path}: {error.strerror or error}", hint=_remedy(error))


def _remedy(error: OSError) -> str:
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The disk is full: free some space, or set another folder with QLORA_TUI_RUNS."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "The folder is not writable: change its permissions, or set another folder with QLORA_TUI_RUNS."
    return "Check that the folder exists and is writable."
