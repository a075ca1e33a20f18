"""A file of JSON lines that only grows and loses nothing that was written: one synced write a row.

What was paid for or thought about once (a verdict, a vote, a generation) is in the file before the next one begins, and
a program that was killed continues at the end of the file.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from qlora_tui import atomic
from qlora_tui.atomic import storage_errors
from qlora_tui.errors import DataError, NotFoundError, RunConflictError
from qlora_tui.regular_files import descriptor, read_bytes


class RowLog:
    """The open log. Rows that were there are in `rows`; a torn last line was dropped."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self._handle = handle
        self._drop_torn_tail()
        self.rows = [row for _, row in located_rows(path, kind="jsonl")]
        self._starts: list[int] = []

    def append(self, row: dict[str, Any]) -> None:
        """Add `row`, on disk when this returns. Raises StorageError, with the file as it was before."""
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace") + b"\n"
        with storage_errors(self.path):
            start = os.fstat(self._handle).st_size
            try:
                rest = line
                while rest:
                    rest = rest[os.write(self._handle, rest) :]
                os.fsync(self._handle)
            except OSError:
                os.ftruncate(self._handle, start)
                raise
        self._starts.append(start)
        self.rows.append(row)

    def pop(self) -> dict[str, Any] | None:
        """Take back the row appended last since the log was opened, or None."""
        if not self._starts:
            return None
        with storage_errors(self.path):
            os.ftruncate(self._handle, self._starts.pop())
            os.fsync(self._handle)
        return self.rows.pop()

    def _drop_torn_tail(self) -> None:
        with storage_errors(self.path):
            content = read_bytes(self.path)
            whole = content.rfind(b"\n") + 1
            if whole != len(content):
                os.ftruncate(self._handle, whole)


@contextmanager
def opened(path: Path) -> Iterator[RowLog]:
    """The log at `path`, made when it is not there. One process at a time.

    Raises StorageError, DataError for a damaged line, RunConflictError while another process writes it.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = descriptor(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    try:
        _lock(handle, path)
        atomic.fsync_folder(path.parent)
        yield RowLog(path, handle)
    finally:
        os.close(handle)


def _lock(handle: int, path: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunConflictError(f"{path} is being written by another process", hint="Wait for it to end.") from error


def located_rows(path: Path, kind: Literal["jsonl"] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file:line, columns) of every row of a jsonl, json, csv, tsv or parquet file, also compressed.

    Raises NotFoundError, or DataError for the first row that cannot be read.
    """
    from qlora_tui.data.bad_rows import BadRow
    from qlora_tui.data.files import local_file
    from qlora_tui.data.readers import raw_rows

    if not path.is_file():
        raise NotFoundError(f"no such file: {path}", hint="Check the path.")
    for row in raw_rows([local_file(path, str(path), kind)]):
        if isinstance(row, BadRow):
            raise DataError(f"{row.where}: {row.reason}", hint="Correct the row, or take it out.")
        yield row
