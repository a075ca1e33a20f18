"""The log of a run: its events as one JSON line each, appended by the worker and read by everybody.

The worker is the only writer of a run's events.
"""

import json
import mmap
import os
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from qlora_tui.atomic import storage_errors
from qlora_tui.errors import StorageError
from qlora_tui.runs.events import AnyEvent, Started

_READ_BYTES = 1 << 16
_TAIL_BYTES = 1 << 20
_STARTED = b'"kind":"started"'

_decoder: TypeAdapter[list[AnyEvent]] = TypeAdapter(list[Annotated[AnyEvent, Field(discriminator="kind")]])


def decode(lines: list[bytes]) -> list[AnyEvent]:
    """The events on complete lines, but for lines without one this version knows. Many at once are decoded faster."""
    try:
        known = _decoder.validate_json(b"[%s]" % b",".join(lines))
    except ValidationError:
        known = []
    if len(known) == len(lines):
        return known
    middle = len(lines) // 2
    return decode(lines[:middle]) + decode(lines[middle:]) if middle else []


def end_of_lines(path: Path) -> int:
    """Return the offset after the last whole line, in bytes: events that are written from now on lie behind it."""
    try:
        with path.open("rb") as file:
            return _end_of_lines(file.fileno())
    except OSError:
        return 0


def _end_of_lines(handle: int) -> int:
    position = os.fstat(handle).st_size
    while position > 0:
        start = max(0, position - _TAIL_BYTES)
        newline = os.pread(handle, position - start, start).rfind(b"\n")
        position = start + newline + 1
        if newline >= 0:
            break
    return position


def last_started(path: Path) -> Started | None:
    """Return the beginning of the newest attempt, found from the end of the file without decoding the rest."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _last_started(content)
    except (OSError, ValueError):  # there is no file, or an empty one
        return None


def _last_started(content: mmap.mmap) -> Started | None:
    begin = len(content)
    while (found := content.rfind(_STARTED, 0, begin)) >= 0:
        begin, end = content.rfind(b"\n", 0, found) + 1, content.find(b"\n", found)
        for event in decode([content[begin:end]] if end >= 0 else []):
            if isinstance(event, Started):
                return event
    return None


class EventReader:
    """Reads a growing events file by byte offset. A torn last line is left for the next call."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset
        self.unreadable_lines = 0

    def batches(self) -> Iterator[list[AnyEvent]]:
        """Yield the events appended since the last call, a few hundred at a time. A missing file has no events.

        Raises StorageError when the file cannot be read.
        """
        try:
            yield from self._batches()
        except FileNotFoundError:
            return
        except OSError as error:
            hint = "Check the permissions of the run's folder, and the disk."
            raise StorageError(f"cannot read {self.path}: {error.strerror}", hint=hint) from error

    def _batches(self) -> Iterator[list[AnyEvent]]:
        with self.path.open("rb") as file:
            file.seek(self.offset)
            rest = b""
            while chunk := file.read(_READ_BYTES):
                *lines, rest = (rest + chunk).split(b"\n")
                self.offset += sum(map(len, lines)) + len(lines)
                known = decode(lines)
                self.unreadable_lines += len(lines) - len(known)
                yield known

    def read(self) -> Iterator[AnyEvent]:
        """The same one by one; to be read to its end, because the next call starts after a whole batch."""
        return chain.from_iterable(self.batches())


class EventWriter:
    """Appends events with one write each. Only the process that holds the run's lock may have one.

    Raises StorageError when the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with storage_errors(path):
            self._handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._drop_torn_tail()
        self._seq = self._last_seq()

    def write(self, event: AnyEvent) -> AnyEvent:
        """Stamp `event` with the next sequence number and the time, append it, and return it as written."""
        stamped = event.model_copy(update={"seq": self._seq + 1, "time_s": round(time.time(), 3)})
        line = _encoded(stamped)
        with storage_errors(self.path):
            size_bytes = os.fstat(self._handle).st_size
            try:
                while line:
                    line = line[os.write(self._handle, line) :]
            except OSError:
                os.ftruncate(self._handle, size_bytes)
                raise
        self._seq += 1
        return stamped

    def sync(self) -> None:
        """Make everything written so far survive a power failure."""
        with storage_errors(self.path):
            os.fsync(self._handle)

    def was_removed(self) -> bool:
        """Whether the file that is written to is no longer at its path."""
        try:
            return not os.path.samestat(os.fstat(self._handle), self.path.stat())
        except OSError as error:
            return isinstance(error, FileNotFoundError)

    def path_now(self) -> Path | None:
        """Where the file that is written to is now; None when it was deleted, or where the system cannot say."""
        try:
            path = Path(f"/proc/self/fd/{self._handle}").readlink()
            return path if os.path.samestat(os.fstat(self._handle), path.stat()) else None
        except OSError:
            return None

    def close(self) -> None:
        os.close(self._handle)

    def _drop_torn_tail(self) -> None:
        os.ftruncate(self._handle, _end_of_lines(self._handle))

    def _last_seq(self) -> int:
        end = os.fstat(self._handle).st_size
        tail = os.pread(self._handle, min(end, _TAIL_BYTES), max(0, end - _TAIL_BYTES))
        known = decode(tail.split(b"\n"))
        return known[-1].seq if known else 0


def _encoded(event: AnyEvent) -> bytes:
    """One line. A lone surrogate, which is in a file name that is no UTF-8, becomes a question mark."""
    text = json.dumps(event.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace") + b"\n"
