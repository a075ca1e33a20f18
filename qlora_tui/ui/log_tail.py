"""The end of a worker's output, read as it grows and made inert."""

from collections import deque
from pathlib import Path

from qlora_tui.regular_files import open_to_read
from qlora_tui.terminal import printable
from qlora_tui.ui.run_view import LogTail

KEPT_LINES = 1000
_FIRST_BYTES = 256 << 10
_MOST_BYTES = 1 << 20
_LONGEST_LINE = 2000


class LogReader:
    """Follows stdio.log by byte offset. Of a long file only the end is read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset: int | None = None
        self._rest = b""
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._seen = 0

    def read(self) -> LogTail:
        """The newest complete lines. A file that is missing or cannot be read has none."""
        try:
            with open_to_read(self._path) as file:
                size_bytes = file.seek(0, 2)
                if self._offset is None or size_bytes < self._offset:
                    self._offset = max(0, size_bytes - _FIRST_BYTES)
                elif size_bytes - self._offset > _MOST_BYTES:
                    self._offset, self._rest = size_bytes - _MOST_BYTES, b""
                file.seek(self._offset)
                new = file.read(_MOST_BYTES)
        except OSError:
            new = b""
        if new and self._offset is not None:
            self._offset += len(new)
            *whole, self._rest = (self._rest + new).split(b"\n")
            self._rest = self._rest[-_MOST_BYTES:]
            for line in whole:
                self._lines.append(_shown(line))
                self._seen += 1
        return LogTail(self._seen - len(self._lines), tuple(self._lines))


def _shown(line: bytes) -> str:
    """What a terminal would have left of a line: a progress bar rewrites itself from the last carriage return."""
    text = line.decode("utf-8", "replace").rstrip("\r")
    return printable(text[text.rfind("\r") + 1 :][:_LONGEST_LINE])
