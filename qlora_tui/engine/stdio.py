"""Output of a worker, which goes to a file in the run's folder."""

import io
import sys


class _Lossy(io.FileIO):
    """A file that drops what cannot be written, as on a full or read-only disk."""

    def write(self, content: bytes, /) -> int:  # type: ignore[override]
        try:
            return super().write(content)
        except OSError:
            return len(content)


def make_lossy() -> None:
    """Drop output of this process that cannot be written, so that printing never raises OSError.

    The worker prints why it fails before it logs its final event, and libraries print during training. The log
    reports a disk that cannot be written.
    """
    sys.stdout, sys.stderr = _stream(1), _stream(2)


def _stream(number: int) -> io.TextIOWrapper:
    raw = _Lossy(number, "w", closefd=False)
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)
