"""Open untrusted files: regular files only, and only as much as fits in memory.

A named pipe would block forever, a device such as /dev/zero never ends, and both can be in a run folder or
a model folder under the name of a file that is expected there.
"""

import errno
import os
import stat
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO

from qlora_tui.units import memory

LARGEST_BYTES = 256 << 20
"""Size limit of files that are read completely: JSON, TOML, templates, tokenizers."""

_READ_WHOLE = {".json", ".jinja", ".txt", ".model", ".md", ".toml", ".py"}

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class UnsuitableFileError(OSError):
    """A file that exists but is not opened: `strerror` is the reason, to follow "cannot read PATH: "."""


def check(path: Path, limit_bytes: int | None = None) -> None:
    """Raise UnsuitableFileError unless `path` is a regular file of at most `limit_bytes`; OSError when it is missing.

    For a file that a library opens by its path.
    """
    _check(path, path.stat(), limit_bytes)


def check_folder(folder: Path) -> None:
    """Check every file in a folder that a library loads from. Raises as `check`."""
    for path in sorted(folder.iterdir()):
        try:
            about = path.stat()
        except FileNotFoundError:  # a link to nothing
            continue
        if not stat.S_ISDIR(about.st_mode):
            _check(path, about, LARGEST_BYTES if path.suffix in _READ_WHOLE else None)


def _check(path: Path, about: os.stat_result, limit_bytes: int | None) -> None:
    kind = stat.S_IFMT(about.st_mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if kind != stat.S_IFREG:
        raise UnsuitableFileError(errno.EINVAL, f"it is {_KINDS.get(kind, 'special')}, not a regular file", str(path))
    if limit_bytes is not None and about.st_size > limit_bytes:
        raise _too_large(path, limit_bytes)


def _too_large(path: Path, limit_bytes: int) -> UnsuitableFileError:
    limit = memory(limit_bytes)
    return UnsuitableFileError(errno.EFBIG, f"it is larger than {limit}", str(path))


def descriptor(path: Path, flags: int, limit_bytes: int | None = None) -> int:
    """Open a regular file, which only its owner may read when it is new. Raises UnsuitableFileError, OSError."""
    try:
        check(path, limit_bytes)  # opening alone can have an effect on a device, and fails for a pipe
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    handle = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, 0o600)
    try:
        _check(path, os.fstat(handle), limit_bytes)
    except OSError:
        os.close(handle)
        raise
    return handle


def open_to_read(path: Path) -> BinaryIO:
    """Open a regular file of any size. Raises UnsuitableFileError, OSError."""
    return os.fdopen(descriptor(path, os.O_RDONLY), "rb")


def open_unbuffered(path: Path) -> RawIOBase:
    """Open a regular file of any size without a buffer. Raises UnsuitableFileError, OSError."""
    return os.fdopen(descriptor(path, os.O_RDONLY), "rb", buffering=0)


def open_to_append(path: Path) -> BinaryIO:
    """Open a regular file to write at its end; a new one is private. Raises UnsuitableFileError, OSError."""
    return os.fdopen(descriptor(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab")


def read_bytes(path: Path, limit_bytes: int = LARGEST_BYTES) -> bytes:
    """Read a regular file whole. Raises UnsuitableFileError for a larger one too, OSError."""
    with os.fdopen(descriptor(path, os.O_RDONLY, limit_bytes), "rb") as file:
        content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:  # files of /proc say that they are empty
        raise _too_large(path, limit_bytes)
    return content


def read_text(path: Path, limit_bytes: int = LARGEST_BYTES) -> str:
    """Read a regular UTF-8 file whole. Raises UnicodeDecodeError, UnsuitableFileError, OSError."""
    return read_bytes(path, limit_bytes).decode("utf-8")
