"""Rows of JSON: one object per line, or a document, read so that every mistake has a line and a column."""

import io
import json
import re
from collections.abc import Iterator
from typing import Any

from qlora_tui.data.bad_rows import BadRow
from qlora_tui.data.files import OpenFile
from qlora_tui.data.lines import MAX_ROW_BYTES, lines, text_stream
from qlora_tui.errors import DataError
from qlora_tui.units import memory

RawRow = tuple[str, dict[str, Any]]
"""Where the row stands, and its columns."""

_SPACE = re.compile(r"[ \t\n\r]*")
_CHUNK = 1 << 20
_LOOKAHEAD = 16
"""Longest token (`\\uXXXX\\uXXXX`, -Infinity) that can look broken only because the buffer ends inside it."""


class _DuplicateKeyError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKeyError(f"key {key!r} appears twice in one object")
            seen.add(key)
    return mapping


_decoder = json.JSONDecoder(object_pairs_hook=_unique)


def jsonl_rows(file: OpenFile, name: str) -> Iterator[RawRow | BadRow]:
    """Rows of a file with one JSON object per line. Blank lines are passed over."""
    for number, line in lines(file, name):
        if isinstance(line, BadRow):
            yield line
            continue
        try:
            row = _line_value(line)
        except (ValueError, RecursionError) as error:
            if not line.isspace():
                yield BadRow(f"{name}:{number}", _line_problem(line, error))
            continue
        yield from _rows(row, f"{name}:{number}")


def _line_value(line: str) -> Any:
    """The JSON value of a line. The scanner alone is twice as fast as `decode`, which is left to say what is wrong."""
    try:
        value, end = _decoder.scan_once(line, 0)  # type: ignore[attr-defined]
    except StopIteration:
        return _decoder.decode(line)
    return value if not line[end:].strip() else _decoder.decode(line)


def _line_problem(line: str, error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        position = min(error.pos, len(line.rstrip()))
        problem = _problem(error)
        return f"column {position + 1}: broken JSON: {problem}, near {snippet(line, position)}"
    return _other_problem(error)


def _problem(error: json.JSONDecodeError) -> str:
    if not error.msg.startswith("Invalid control character"):
        return error.msg
    met = error.doc[error.pos : error.pos + 1]
    return "the line ends inside a text" if met in "\r\n" else f"a text holds the control character U+{ord(met):04X}"


def _other_problem(error: ValueError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "JSON is nested too deeply"
    if isinstance(error, _DuplicateKeyError):
        return str(error)
    return f"a number that cannot be read: {error}"


def snippet(text: str, position: int) -> str:
    """About 60 characters around `position`, quoted, with control characters escaped."""
    start, end = max(0, position - 30), position + 30
    shown = text[start:end].strip("\r\n")
    return ("…" if start else "") + json.dumps(shown, ensure_ascii=False) + ("…" if end < len(text.rstrip()) else "")


def describe(value: Any) -> str:
    """A value in words, for messages: its type and a short form."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"the truth value {str(value).lower()}"
    if isinstance(value, int | float):
        try:
            return f"the number {value}"[:40]
        except ValueError:
            return "a huge number"
    if isinstance(value, str):
        return f"the text {json.dumps(value[:30], ensure_ascii=False)}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object with " + (", ".join(repr(key) for key in list(value)[:5]) or "nothing in it")
    return f"a {type(value).__name__}"


class _Document:
    """A sliding window over a JSON text of any length that knows the line and column of each position."""

    def __init__(self, stream: io.TextIOBase, name: str) -> None:
        self._stream = stream
        self._name = name
        self._buffer = ""
        self._position = 0
        self._line = 1
        self._column = 1
        self._ended = False

    def peek(self) -> str:
        """The next character that is not blank; empty at the end."""
        while True:
            match = _SPACE.match(self._buffer, self._position)
            self._position = match.end() if match else self._position
            if self._position < len(self._buffer) or self._ended:
                return self._buffer[self._position : self._position + 1]
            self._more()

    def take(self) -> None:
        self._position += 1

    def place(self, position: int | None = None) -> tuple[int, int]:
        """Line and column, both from 1, of a position in the window; of the current one by default."""
        end = self._position if position is None else position
        newlines = self._buffer.count("\n", 0, end)
        if not newlines:
            return self._line, self._column + end
        return self._line + newlines, end - self._buffer.rfind("\n", 0, end)

    def value(self) -> Any:
        """The JSON value at the current position. Raises DataError with line, column and a snippet."""
        while True:
            try:
                value, end = _decoder.raw_decode(self._buffer, self._position)
            except json.JSONDecodeError as error:
                if self._ended or self._certain(error):
                    raise self.broken(_problem(error), error.pos) from error
            except (ValueError, RecursionError) as error:
                raise self.broken(_other_problem(error), self._position) from error
            else:
                if end < len(self._buffer) or self._ended or isinstance(value, dict | list):
                    self._position = end
                    return value
            self._more()

    def broken(self, problem: str, position: int | None = None) -> DataError:
        at = self._position if position is None else position
        line, column = self.place(at)
        return DataError(
            f"{self._name}:{line}: column {column}: broken JSON: {problem}, near {snippet(self._buffer, at)}",
            hint="Rows of a JSON document cannot be skipped one by one; those of a .jsonl file can.",
        )

    def _certain(self, error: json.JSONDecodeError) -> bool:
        if error.msg.startswith("Unterminated string"):
            return False
        return error.pos < len(self._buffer) - _LOOKAHEAD

    def _more(self) -> None:
        pending = len(self._buffer) - self._position
        if pending > MAX_ROW_BYTES:
            raise self.broken(f"a single value of more than {memory(MAX_ROW_BYTES)}")
        self._line, self._column = self.place()
        try:
            chunk = self._stream.read(max(_CHUNK, pending))
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self._name}: byte 0x{error.object[error.start]:02x} is not {error.encoding.upper()} text,"
                f" after line {self._line + self._buffer.count(chr(10), self._position)}",
                hint="Save the file as UTF-8 (`iconv -f ISO-8859-1 -t UTF-8` converts Latin-1).",
            ) from error
        self._ended = not chunk
        self._buffer = self._buffer[self._position :] + chunk
        self._position = 0


def document_rows(file: OpenFile, name: str) -> Iterator[RawRow | BadRow]:
    """Rows of a JSON document: a list of objects, read in pieces; objects one after another; or one object.

    One object is a table when its values are columns of equal length, a wrapper when it holds one list of objects
    (`{"data": [...]}`), else a single row. Raises DataError where the text is broken.
    """
    document = _Document(text_stream(file), name)
    if document.peek() == "[":
        yield from _list_rows(document, name)
        return
    values = _objects(document, name)
    first = next(values, None)
    if first is None:
        return
    second = next(values, None)
    if second is None and not isinstance(first, BadRow):
        yield from _unwrapped(first[1], name)
        return
    yield first
    if second is not None:
        yield second
    yield from values


def _list_rows(document: _Document, name: str) -> Iterator[RawRow | BadRow]:
    document.take()
    index = 0
    if document.peek() == "]":
        document.take()
    else:
        while True:
            document.peek()
            line, _ = document.place()
            yield from _rows(document.value(), f"{name}[{index}] (line {line})")
            index += 1
            separator = document.peek()
            if separator not in {",", "]"}:
                raise document.broken("Expecting ',' or ']' after a row" if separator else "the list is cut off")
            document.take()
            if separator == "]":
                break
    if document.peek():
        raise document.broken("more text after the end of the list")


def _objects(document: _Document, name: str) -> Iterator[RawRow | BadRow]:
    while document.peek():
        line, _ = document.place()
        yield from _rows(document.value(), f"{name}:{line}")


def _rows(value: Any, where: str) -> Iterator[RawRow | BadRow]:
    """Return `value` as a row. A list of turns is a conversation; any other list of objects contains rows."""
    if isinstance(value, dict):
        yield where, value
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        if all({"role", "from"} & set(item) for item in value):
            yield where, {"messages": value}
        else:
            for index, item in enumerate(value):
                yield f"{where}[{index}]", item
    else:
        yield BadRow(where, f"is {describe(value)}, expected an object with named columns")


def _unwrapped(content: dict[str, Any], name: str) -> Iterator[RawRow | BadRow]:
    lists = {
        key: value
        for key, value in content.items()
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
    }
    turns = any({"role", "from"} & set(value[0]) for value in lists.values())
    if len(lists) == 1 and not turns:
        ((key, rows),) = lists.items()
        for index, row in enumerate(rows):
            yield f"{name}[{key}][{index}]", row
        return
    if len(lists) > 1 and not turns and len(lists) == len(content):
        raise DataError(
            f"{name}: holds {len(lists)} lists of rows: {', '.join(lists)}",
            hint="Save the one to train on as a file of its own.",
        )
    columns = _columns(content)
    if columns is None:
        yield f"{name}:1", content
        return
    for index, values in enumerate(zip(*columns.values(), strict=True)):
        yield f"{name}[{index}]", dict(zip(columns, values, strict=True))


def _columns(content: dict[str, Any]) -> dict[str, list[Any]] | None:
    columns: dict[str, list[Any]] = {}
    for key, value in content.items():
        if isinstance(value, dict) and all(index.isdigit() for index in value):
            columns[key] = list(value.values())
        elif isinstance(value, list) and not any(isinstance(item, dict) for item in value):
            columns[key] = value
        else:
            return None
    return columns if columns and len({len(values) for values in columns.values()}) == 1 else None
