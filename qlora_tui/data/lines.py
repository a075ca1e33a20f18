"""Lines of a text file with their numbers, decoded exactly: byte order marks, UTF-16, and bytes that are not text."""

import codecs
import io
from collections.abc import Iterator

from qlora_tui.data.bad_rows import BadRow
from qlora_tui.data.files import OpenFile
from qlora_tui.errors import DataError
from qlora_tui.units import memory

MAX_ROW_BYTES = 256 << 20
"""A longer single row is refused, so that a file without line ends cannot fill the memory."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(head: bytes) -> str:
    """Python's name of the encoding: from the byte order mark, else UTF-16 by its zero bytes, else UTF-8."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    start = head[:512]
    if len(start) >= 4 and start[1::2].count(0) * 2 > len(start) * 0.8:
        return "utf-16-le"
    if len(start) >= 4 and start[0::2].count(0) * 2 > len(start) * 0.8:
        return "utf-16-be"
    return "utf-8"


def lines(file: OpenFile, name: str) -> Iterator[tuple[int, str | BadRow]]:
    """Yield (line number from 1, text with its line end) or (line number, BadRow) where bytes are not UTF-8.

    Raises DataError for a line over MAX_ROW_BYTES, and for damaged UTF-16, which cannot be skipped by line.
    """
    encoding = encoding_of(file.head)
    if encoding not in {"utf-8", "utf-8-sig"}:
        yield from _wide_lines(file, name, encoding)
        return
    if encoding == "utf-8-sig":
        file.stream.read(len(codecs.BOM_UTF8))
    readline = file.stream.readline
    number = 0
    while raw := readline(MAX_ROW_BYTES):
        number += 1
        if len(raw) == MAX_ROW_BYTES:
            raise _too_long(name, number)
        try:
            yield number, raw.decode()
        except UnicodeDecodeError as error:
            yield number, BadRow(f"{name}:{number}", not_utf8(raw, error))


def text_stream(file: OpenFile) -> io.TextIOWrapper:
    """The whole file as strictly decoded text, line ends untouched."""
    return io.TextIOWrapper(file.stream, encoding=encoding_of(file.head), errors="strict", newline="")


def _wide_lines(file: OpenFile, name: str, encoding: str) -> Iterator[tuple[int, str]]:
    stream = io.TextIOWrapper(file.stream, encoding=encoding, errors="strict", newline="\n")
    number = 0
    try:
        while text := stream.readline(MAX_ROW_BYTES):
            number += 1
            if len(text) == MAX_ROW_BYTES:
                raise _too_long(name, number)
            yield number, text
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}:{number + 1}: damaged {encoding.upper()} text: {error.reason}",
            hint="Save the file again as UTF-8.",
        ) from error


def _too_long(name: str, number: int) -> DataError:
    return DataError(
        f"{name}:{number}: a single row of more than {memory(MAX_ROW_BYTES)}",
        hint="Is the file really one row per line?",
    )


def not_utf8(raw: bytes, error: UnicodeDecodeError) -> str:
    """Say which byte at which column is no UTF-8, with what stands before it."""
    before = raw[: error.start].decode("utf-8", "replace")
    return (
        f"column {len(before) + 1}: byte 0x{raw[error.start]:02x} is not UTF-8, after {before[-30:]!r}"
        " (Latin-1? `iconv -f ISO-8859-1 -t UTF-8` converts)"
    )
