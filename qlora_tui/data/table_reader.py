"""Rows of tables: csv and tsv with a header line, parquet and arrow; and of plain text."""

import csv
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

from qlora_tui.data.bad_rows import BadRow
from qlora_tui.data.files import OpenFile
from qlora_tui.data.json_reader import RawRow
from qlora_tui.data.lines import MAX_ROW_BYTES, lines
from qlora_tui.errors import DataError
from qlora_tui.units import memory

_BATCH_ROWS = 256
_DAMAGE = (OSError, ValueError, MemoryError, SystemError, OverflowError)
"""What pyarrow raises on damaged files besides its own errors; MemoryError when a damaged length is enormous."""

_DELIMITERS = (",", "\t", ";", "|")


def delimited_rows(file: OpenFile, name: str, kind: Literal["csv", "tsv"]) -> Iterator[RawRow | BadRow]:
    """Rows of a csv or tsv file. The first line names the columns; a quoted field may hold line ends.

    Raises DataError for an unusable header and for quoting that never ends.
    """
    csv.field_size_limit(MAX_ROW_BYTES)
    undecodable: list[BadRow] = []
    texts = _decoded(lines(file, name), undecodable)
    first = next(texts, None)
    if first is None:
        yield from undecodable
        return
    delimiter = delimiter_of(first, kind)
    reader = csv.reader(_chained(first, texts), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f"{name}:{reader.line_num}: broken {kind}: {error}",
                hint="Inside a quoted field a quote is written twice.",
            ) from error
        while undecodable:
            yield undecodable.pop(0)
        if fields is None:
            return
        if header is None:
            header = _header(fields, name)
        elif fields:
            yield _table_row(header, fields, f"{name}:{reader.line_num}")


def _decoded(numbered: Iterator[tuple[int, str | BadRow]], undecodable: list[BadRow]) -> Iterator[str]:
    for _, line in numbered:
        if isinstance(line, BadRow):
            undecodable.append(line)
            yield "\n"
        else:
            yield line


def _chained(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def delimiter_of(header: str, kind: Literal["csv", "tsv"]) -> str:
    """The usual delimiter of `kind`, or the one that the header has in its place."""
    usual = "\t" if kind == "tsv" else ","
    if usual in header:
        return usual
    return next((other for other in _DELIMITERS if other in header), usual)


def _header(fields: list[str], name: str) -> list[str]:
    header = [field.strip() for field in fields]
    repeated = [column for column, count in Counter(header).items() if count > 1]
    if repeated:
        raise DataError(f"{name}:1: column {repeated[0]!r} appears twice in the header", hint="Rename one of them.")
    if "\x00" in "".join(header):
        raise DataError(f"{name}:1: the header holds null bytes", hint="Is this a text file? Save it as UTF-8.")
    return header


def _table_row(header: list[str], fields: list[str], where: str) -> RawRow | BadRow:
    if len(fields) != len(header):
        found = "1 field" if len(fields) == 1 else f"{len(fields)} fields"
        return BadRow(where, f"has {found}, the header has {len(header)}")
    return where, dict(zip(header, fields, strict=True))


def parquet_rows(file: OpenFile, name: str) -> Iterator[RawRow | BadRow]:
    """Rows of a parquet file, batch by batch. Raises DataError when it is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        parquet = pq.ParquetFile(file.stream)
        _refuse_repeated(parquet.schema_arrow.names, name)
        first = 0
        for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
            yield from _batch_rows(batch, name, first)
            first += batch.num_rows
    except (pa.ArrowException, *_DAMAGE) as error:
        raise _damaged(name, "parquet", error) from error


def arrow_rows(file: OpenFile, name: str) -> Iterator[RawRow | BadRow]:
    """Rows of an arrow file in stream or file form. Raises DataError when it is damaged."""
    import pyarrow as pa

    try:
        if file.head.startswith(b"ARROW1"):
            random_access = pa.ipc.open_file(file.stream)
            batches: Iterator[Any] = (random_access.get_batch(n) for n in range(random_access.num_record_batches))
            names = random_access.schema.names
        else:
            stream = pa.ipc.open_stream(file.stream)
            batches, names = iter(stream), stream.schema.names
        _refuse_repeated(names, name)
        first = 0
        for batch in batches:
            for start in range(0, batch.num_rows, _BATCH_ROWS):
                yield from _batch_rows(batch.slice(start, _BATCH_ROWS), name, first + start)
            first += batch.num_rows
    except (pa.ArrowException, *_DAMAGE) as error:
        raise _damaged(name, "arrow", error) from error


def _batch_rows(batch: Any, name: str, first: int) -> Iterator[RawRow | BadRow]:
    import pyarrow as pa

    # Offsets in a damaged file may point anywhere in memory; nothing is read from a batch before they are checked.
    batch.validate(full=True)
    nested = any(pa.types.is_nested(field.type) for field in batch.schema)
    try:
        rows = batch.to_pylist()
    except (UnicodeDecodeError, OverflowError, ValueError):
        for index in range(batch.num_rows):
            where = f"{name}[{first + index}]"
            try:
                (row,) = batch.slice(index, 1).to_pylist()
                yield where, _without_padding(row) if nested else row
            except (UnicodeDecodeError, OverflowError, ValueError) as error:
                yield BadRow(where, f"a value cannot be read: {error}")
        return
    for index, row in enumerate(rows, first):
        yield f"{name}[{index}]", _without_padding(row) if nested else row


def _without_padding(row: dict[str, Any]) -> dict[str, Any]:
    """Return `row` without the nulls in its structs: in Arrow, all objects of a column share the same keys."""
    return {name: _unpadded(value) if isinstance(value, dict | list) else value for name, value in row.items()}


def _unpadded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unpadded(item) for key, item in value.items() if item is not None}
    return [_unpadded(item) for item in value] if isinstance(value, list) else value


def _refuse_repeated(names: list[str], name: str) -> None:
    for column, count in Counter(names).items():
        if count > 1:
            raise DataError(f"{name}: column {column!r} appears twice", hint="Rename one of them.")


def _damaged(name: str, kind: str, error: Exception) -> DataError:
    return DataError(f"{name}: damaged {kind} file: {str(error).splitlines()[0] if str(error) else error!r}")


def text_rows(file: OpenFile, name: str) -> Iterator[RawRow | BadRow]:
    """Plain text: passages between blank lines when the start of the file has such, else one row per line."""
    if has_passages(file.head):
        yield from _passages(file, name)
        return
    for number, line in lines(file, name):
        if isinstance(line, BadRow):
            yield line
        elif not line.isspace():
            yield f"{name}:{number}", {"text": line.rstrip("\r\n")}


def has_passages(head: bytes) -> bool:
    """Whether blank lines stand between texts in the first bytes of a plain text file."""
    return b"\n\n" in head.replace(b"\r", b"").replace(b"\x00", b"").strip()


def _passages(file: OpenFile, name: str) -> Iterator[RawRow | BadRow]:
    passage: list[str] = []
    size_chars = start = 0
    for number, line in lines(file, name):
        if isinstance(line, BadRow):
            yield line
            continue
        if line.isspace():
            if passage:
                yield f"{name}:{start}", {"text": "".join(passage).rstrip()}
            passage, size_chars = [], 0
            continue
        start = start if passage else number
        passage.append(line.replace("\r\n", "\n"))
        size_chars += len(line)
        if size_chars > MAX_ROW_BYTES:
            raise DataError(f"{name}:{start}: a passage of more than {memory(MAX_ROW_BYTES)}")
    if passage:
        yield f"{name}:{start}", {"text": "".join(passage).rstrip()}
