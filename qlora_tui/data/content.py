"""What identifies the content of files: a hash of their bytes, remembered for large files that did not change."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

from qlora_tui import paths
from qlora_tui.atomic import make_folder, write_json
from qlora_tui.data.files import DataFile, read_errors
from qlora_tui.errors import StorageError
from qlora_tui.regular_files import read_bytes

_CHUNK_BYTES = 1 << 22
_REMEMBERED_FROM_BYTES = 64 << 20
"""Smaller files are hashed faster than they are worth remembering."""

_SETTLED_S = 2.0
"""A file changed so recently could change again within the clock's resolution; its hash is not remembered."""

_QUICK_BYTES = 1 << 20


def content_hash(files: list[DataFile], on_bytes: Callable[[int], None] | None = None) -> str:
    """SHA-256 over names and bytes of `files`, in order; the same on every machine. `on_bytes` gets bytes hashed."""
    digest = hashlib.sha256()
    done_bytes = 0
    for file in files:
        size_bytes = file.size_bytes or 0
        tell = None if on_bytes is None else _offset(on_bytes, done_bytes)
        digest.update(f"{file.name}\0{size_bytes}\0{_file_hash(file, tell)}\0".encode("utf-8", "surrogateescape"))
        done_bytes += size_bytes
    return "sha256:" + digest.hexdigest()


def quick_hash(files: list[DataFile]) -> str:
    """SHA-256 over names, sizes and the first bytes of `files`: for a quick look, not for identity."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{file.size_bytes}\0".encode("utf-8", "surrogateescape"))
        with read_errors(file.name), file.open_raw() as raw:
            digest.update(raw.read(_QUICK_BYTES))
    return "quick:" + digest.hexdigest()


def _offset(on_bytes: Callable[[int], None], before: int) -> Callable[[int], None]:
    return lambda done: on_bytes(before + done)


def _file_hash(file: DataFile, on_bytes: Callable[[int], None] | None) -> str:
    state = _state(file.path) if (file.size_bytes or 0) >= _REMEMBERED_FROM_BYTES else None
    known = _recall(file.path, state)
    if known is not None:
        return known
    digest = hashlib.sha256()
    done_bytes = 0
    with read_errors(file.name), file.open_raw() as raw:
        while chunk := raw.read(_CHUNK_BYTES):
            digest.update(chunk)
            done_bytes += len(chunk)
            if on_bytes is not None:
                on_bytes(done_bytes)
    if state is not None and state == _state(file.path) and time.time_ns() - state[2] > _SETTLED_S * 1e9:
        _remember(file.path, state, digest.hexdigest())
    return digest.hexdigest()


def _state(path: Path | None) -> list[int] | None:
    """Size, times of change and inode: a file with the same ones is taken as unchanged. The second time is the file
    system's own, which a copy that keeps the first one cannot set."""
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _memory(path: Path) -> Path:
    key = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return paths.cache() / "hashes" / f"{key}.json"


def _recall(path: Path | None, state: list[int] | None) -> str | None:
    if path is None or state is None:
        return None
    try:
        stored = json.loads(read_bytes(_memory(path)))
        return str(stored["sha256"]) if stored["state"] == state else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(path: Path | None, state: list[int], sha256: str) -> None:
    """A hash that cannot be remembered is computed again; that is no reason to stop."""
    if path is None:
        return
    memory = _memory(path)
    try:
        make_folder(memory.parent)
        write_json(memory, {"state": state, "sha256": sha256})
    except (OSError, StorageError):
        return
