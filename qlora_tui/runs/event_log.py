"""The log of a run: one JSON line per event, appended by the worker and read by all other processes.

The worker is the only writer of a run's events. A line begins with its number in the log and ends with a checksum of
the text before it; lines of version 1 have no checksum. A gap in the numbers shows that lines were removed.
"""

import errno
import json
import mmap
import os
import re
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from xxhash import xxh3_64_hexdigest

from qlora_tui.atomic import storage_errors
from qlora_tui.errors import StorageError
from qlora_tui.regular_files import UnsuitableFileError, descriptor, open_to_read
from qlora_tui.runs.events import EVENTS_VERSION, AnyEvent, Started
from qlora_tui.units import memory

_READ_BYTES = 1 << 16
_TAIL_BYTES = 1 << 20
_LONGEST_LINE_BYTES = 16 << 20
"""Longer data without a line break is not a log, and may be endless."""

_LONG_LINE_BYTES = 1 << 20
_LONGEST_TEXT = 10_000
"""Number of characters kept of each text in an overlong line, as when a library puts its input into a message."""

_SUM = b',"xxh3":"'
_END = b'"}'
_SUM_BYTES = 16 + len(_END)
"""Length of the part not covered by the checksum: the checksum itself and the end of the line."""

_UNSUMMED = b'{"v":1,'
_STARTED = b'"kind":"started"'
_NUMBER = re.compile(rb'\{"v":\d+,"seq":(\d+)')

_decoder: TypeAdapter[list[AnyEvent]] = TypeAdapter(list[Annotated[AnyEvent, Field(discriminator="kind")]])


def _intact(lines: list[bytes]) -> list[bytes]:
    """Return the lines with the expected checksum. Older lines without a checksum are not checked."""
    summed = [line for line in lines if line.endswith(xxh3_64_hexdigest(line[:-_SUM_BYTES]).encode() + _END)]
    if len(summed) == len(lines):
        return summed
    known = set(summed)
    return [line for line in lines if line in known or (line.startswith(_UNSUMMED) and _SUM not in line)]


def _decoded(lines: list[bytes]) -> list[AnyEvent]:
    """Decode the events on these lines, except unknown ones. Decoding many at once is faster."""
    try:
        known = _decoder.validate_json(b"[%s]" % b",".join(lines))
    except ValidationError:
        known = []
    if len(known) == len(lines):
        return known
    middle = len(lines) // 2
    return _decoded(lines[:middle]) + _decoded(lines[middle:]) if middle else []


def end_of_lines(path: Path) -> int:
    """Return the offset after the last complete line, in bytes."""
    try:
        with open_to_read(path) as file:
            return _end_of_lines(file.fileno())
    except OSError:
        return 0


def _end_of_lines(handle: int) -> int:
    size_bytes = position = os.fstat(handle).st_size
    while position > 0:
        start = max(0, position - _TAIL_BYTES)
        newline = os.pread(handle, position - start, start).rfind(b"\n")
        position = start + newline + 1
        if newline >= 0:
            break
        if size_bytes - position > _LONGEST_LINE_BYTES:
            raise UnsuitableFileError(errno.EFBIG, f"its last {memory(_LONGEST_LINE_BYTES)} contain no line break")
    return position


def last_started(path: Path) -> Started | None:
    """Return the beginning of the newest attempt, found from the end of the file without decoding the rest."""
    try:
        with open_to_read(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _last_started(content)
    except (OSError, ValueError):  # there is no file, or an empty one
        return None


def _last_started(content: mmap.mmap) -> Started | None:
    begin = len(content)
    while (found := content.rfind(_STARTED, 0, begin)) >= 0:
        begin, end = content.rfind(b"\n", 0, found) + 1, content.find(b"\n", found)
        for event in _decoded(_intact([content[begin:end]])) if end >= 0 else []:
            if isinstance(event, Started):
                return event
    return None


class EventReader:
    """Reads a growing events file by byte offset. A torn last line is left for the next call."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset
        self.damaged_lines = 0
        """Number of damaged lines."""
        self.unreadable_lines = 0
        """Number of damaged lines and of lines unknown to this version."""
        self.missing_lines = 0
        """Number of lines that were removed from the log before an intact line."""
        self._number: int | None = None if offset else 0
        """Number of the last intact line; None before the first line of a reader that begins inside the log."""
        self._unnumbered = 0
        """Number of lines after that one which are damaged or have no number."""
        self._ended = False

    @property
    def last_line(self) -> int:
        """Number of the last line read. Damaged and unknown lines count."""
        return (self._number or 0) + self._unnumbered

    def batches(self) -> Iterator[list[AnyEvent]]:
        """Yield the events appended since the last call, a few hundred at a time. A missing file has no events.

        Raises StorageError when the file cannot be read.
        """
        if self._ended:
            return
        try:
            yield from self._batches()
        except FileNotFoundError:
            return
        except OSError as error:
            hint = "Check the permissions of the run's folder, and the disk."
            raise StorageError(f"cannot read {self.path}: {error.strerror}", hint=hint) from error

    def _batches(self) -> Iterator[list[AnyEvent]]:
        with open_to_read(self.path) as file:
            file.seek(self.offset)
            rest = b""
            while chunk := file.read(_READ_BYTES):
                *lines, rest = (rest + chunk).split(b"\n")
                self.offset += sum(map(len, lines)) + len(lines)
                intact = _intact(lines)
                known = _decoded(intact)
                self.damaged_lines += len(lines) - len(intact)
                self.unreadable_lines += len(lines) - len(known)
                self._find_missing(lines, intact, known)
                yield known
                if len(rest) > _LONGEST_LINE_BYTES:
                    self._give_up()
                    return

    def _find_missing(self, lines: list[bytes], intact: list[bytes], known: list[AnyEvent]) -> None:
        """Count the lines missing between these and before them. A damaged line may be the missing one."""
        if len(known) == len(lines) and self._number is not None and not self._unnumbered:
            numbers = (known[0].seq, known[-1].seq) if known else (self._number + 1, self._number)
            if numbers == (self._number + 1, self._number + len(lines)):
                self._number = numbers[1]
                return
        whole = set(intact)
        for line in lines:
            found = _NUMBER.match(line) if line in whole else None
            if found is None or not (number := int(found[1])):
                self._unnumbered += 1
                continue
            if self._number is not None:
                self.missing_lines += max(0, number - self._number - 1 - self._unnumbered)
            self._number, self._unnumbered = number, 0

    def _give_up(self) -> None:
        """Stop reading a line that does not end."""
        self._ended = True
        self.damaged_lines += 1
        self.unreadable_lines += 1

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
            self._handle = descriptor(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
            self._drop_torn_tail()
        self.seq = self._last_seq()
        """Number of the last line."""

    def write(self, event: AnyEvent) -> AnyEvent:
        """Stamp `event` with the next sequence number and the time, append it, and return it as written."""
        stamp = {"v": EVENTS_VERSION, "seq": self.seq + 1, "time_s": round(time.time(), 3)}
        stamped = event.model_copy(update=stamp)
        line = _encoded(stamped)
        with storage_errors(self.path):
            size_bytes = os.fstat(self._handle).st_size
            try:
                while line:
                    line = line[os.write(self._handle, line) :]
            except OSError:
                os.ftruncate(self._handle, size_bytes)
                raise
        self.seq += 1
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
        """Return the current path of the open file; None when it was deleted or is unknown."""
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
        known = _decoded(_intact(tail.split(b"\n")))
        return known[-1].seq if known else 0


def _encoded(event: AnyEvent) -> bytes:
    """One line. A lone surrogate, which is in a file name that is no UTF-8, becomes a question mark."""
    values = event.model_dump(mode="json")
    content = _json(values)
    if len(content) > _LONG_LINE_BYTES:
        content = _json(_shortened(values))
    content += _SUM
    return content + xxh3_64_hexdigest(content).encode() + _END + b"\n"


def _json(values: Any) -> bytes:
    """Return JSON in one line, without the closing brace."""
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")[:-1]


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shortened(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_shortened(each) for each in value]
    return value[:_LONGEST_TEXT] if isinstance(value, str) else value
