"""Checksums in the files of a run, so that damage is detected when they are read.

A text ends with a line with its checksum, a JSON object has it under a key, and a folder contains a list of its
files. Files of earlier versions have no checksum and are read without a check.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from xxhash import xxh3_64, xxh3_64_hexdigest

from qlora_tui import atomic
from qlora_tui.regular_files import UnsuitableFileError, open_to_read, read_bytes

_LINE = b"# Checksum (xxh3) of the lines above; remove this line to use changed ones: "
_LOOKS_SUMMED = re.compile(rb"[^\n]{40}[0-9a-f]{16}\n?\Z")
_KEY = "xxh3"
_BLOCK_BYTES = 1 << 20

DAMAGED = "its checksum does not match"


class DamagedError(ValueError):
    """The content is damaged. The message says how."""


def reason(error: Exception) -> str:
    """Return why a file is damaged or cannot be read, to follow "PATH is damaged: "."""
    return str(error.strerror if isinstance(error, OSError) and error.strerror else error)


class ChecksumError(DamagedError):
    """The content can be read but is not what was written."""


def with_checksum(text: str) -> str:
    """Return a text of whole lines with its checksum in one more line."""
    content = text.encode("utf-8", "replace")
    return f"{text}{_LINE.decode()}{xxh3_64_hexdigest(content)}\n"


def check_text(content: bytes) -> bool:
    """Whether a text has a checksum. Raises DamagedError when its lines are not those of the checksum."""
    body, line, checksum = content.rpartition(_LINE)
    if not line and _LOOKS_SUMMED.search(content):  # the line itself is damaged
        raise DamagedError(DAMAGED)
    if line and checksum.rstrip(b"\n") != xxh3_64_hexdigest(body).encode():
        raise DamagedError(DAMAGED)
    return bool(line)


def check_whole(content: bytes, written: str) -> None:
    """Raise DamagedError when the end of a text was cut off, its checksum included. `written` is what it was."""
    whole = with_checksum(written).encode("utf-8", "replace")
    if len(content) < len(written.encode("utf-8", "replace")) and whole.startswith(content):
        raise DamagedError("it is cut off")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON object with its checksum, complete or not at all. Raises StorageError."""
    atomic.write_json(path, {**values, _KEY: _of_json(values)})


def read_json(path: Path) -> dict[str, Any]:
    """Read an object that `write_json` wrote. Raises DamagedError, UnsuitableFileError, OSError."""
    try:
        values = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"it is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise DamagedError("it is not a JSON object")
    checksum = values.pop(_KEY, None)
    if checksum is not None and checksum != _of_json(values):
        raise ChecksumError(DAMAGED)
    return values


def _of_json(values: Mapping[str, Any]) -> str:
    """Return the checksum of the values, independent of indentation and order."""
    content = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return xxh3_64_hexdigest(content.encode("utf-8", "replace"))


def write_list(folder: Path, name: str, *, leave_out: Callable[[Path], bool] = lambda path: False) -> int:
    """Write the list `name` of all files in a folder, with sizes and checksums. Return the bytes of these files.

    Raises StorageError.
    """
    files: dict[str, dict[str, Any]] = {
        path.relative_to(folder).as_posix(): {"size_bytes": path.stat().st_size, _KEY: _of_file(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != name and not leave_out(path)
    }
    write_json(folder / name, {"files": files})
    return sum(facts["size_bytes"] for facts in files.values())


def why_damaged(folder: Path, name: str, *, by_content: bool) -> str | None:
    """Return what is wrong with the files in the list `name`, or None. Without `by_content` only sizes are compared.

    Raises FileNotFoundError without the list, OSError when the disk cannot be read.
    """
    try:
        files = read_json(folder / name)["files"]
        if not files:
            return f"{name} is empty"
        for file, facts in files.items():
            if problem := _why_file_damaged(folder / file, facts, by_content=by_content):
                return problem
    except UnsuitableFileError as error:
        return f"{Path(error.filename).name} cannot be used: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # ValueError also for a name that no file has
        return f"{name} cannot be read: {error}"
    return None


def _why_file_damaged(path: Path, facts: Mapping[str, Any], *, by_content: bool) -> str | None:
    try:
        actual_bytes = path.stat().st_size
        if actual_bytes != facts["size_bytes"]:
            return f"{path.name} has {actual_bytes} of {facts['size_bytes']} bytes"
        matches = not by_content or _matches(path, facts)
    except FileNotFoundError:
        return f"{path.name} is missing"
    return None if matches else f"{path.name} is damaged"


def _matches(path: Path, facts: Mapping[str, Any]) -> bool:
    if _KEY in facts:
        return bool(_of_file(path) == facts[_KEY])
    return bool(_crc32(path) == facts["crc32"])


def _of_file(path: Path) -> str:
    checksum = xxh3_64()
    with open_to_read(path) as file:
        while block := file.read(_BLOCK_BYTES):
            checksum.update(block)
    return checksum.hexdigest()


def _crc32(path: Path) -> int:
    """Checksum of earlier versions."""
    from zlib import crc32

    value = 0
    with open_to_read(path) as file:
        while block := file.read(_BLOCK_BYTES):
            value = crc32(block, value)
    return value
