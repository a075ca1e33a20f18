"""Writing files so that a reader sees the old content or the new one, never half of it."""

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from qlora_tui.errors import StorageError

_FOLDERS = "with QLORA_TUI_HOME (everything) or QLORA_TUI_RUNS (the runs)"


@contextlib.contextmanager
def replacing(path: Path, *, private: bool = True) -> Iterator[BinaryIO]:
    """Write to a temporary file that is synced to disk and replaces `path` when the block succeeds.

    With `private` only the owner can read the file. Files that the user asked for by name are not private.

    Raises StorageError when the folder is read-only, missing or full.
    """
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    with storage_errors(path):
        try:
            with _create(temporary, private=private) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        fsync_folder(path.parent)


def _create(path: Path, *, private: bool) -> BinaryIO:
    return os.fdopen(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if private else 0o666), "wb"
    )


def write_bytes(path: Path, content: bytes, *, private: bool = True) -> None:
    """Replace `path` by `content`, whole. Raises StorageError when the folder is read-only, missing or full."""
    with replacing(path, private=private) as file:
        file.write(content)


def write_text(path: Path, content: str, *, private: bool = True) -> None:
    """`write_bytes` for UTF-8 text. Lone surrogates are written as the replacement character."""
    write_bytes(path, content.encode("utf-8", "replace"), private=private)


def write_json(path: Path, content: Any) -> None:
    """`write_text` of indented JSON with a final newline."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def make_folder(path: Path) -> None:
    """Create a private folder and its missing parents. Raises StorageError."""
    with storage_errors(path):
        for folder in reversed((path, *path.parents)):
            if not folder.is_dir():
                folder.mkdir(mode=0o700, exist_ok=True)


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

    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
        return "Check that the folder exists and is writable."
    if error.errno == errno.EDQUOT:
        return f"The disk quota is exceeded. Free some space, or set another folder {_FOLDERS}."
    if error.errno == errno.ENOSPC:
        return f"The disk is full: free some space, or set another folder {_FOLDERS}."
    if error.errno == errno.EROFS:
        return (
            "The file system is read-only, as after a disk error (see `dmesg`). Remount it writable, or set another "
            f"folder {_FOLDERS}."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"The folder is not writable: change its permissions, or set another folder {_FOLDERS}."
    if error.errno == errno.EFBIG:
        return "The file would exceed the size limit of this shell. See `ulimit -f`."
    return f"The disk or its connection may be failing. Check it and `dmesg`, or set another folder {_FOLDERS}."
