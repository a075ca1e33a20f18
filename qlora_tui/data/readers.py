"""From files to raw rows: picks the reader of each file by its content."""

from collections.abc import Callable, Iterator

from qlora_tui.data.bad_rows import BadRow
from qlora_tui.data.files import DataFile, OpenFile, kind_of, opened
from qlora_tui.data.json_reader import RawRow

_PROGRESS_ROWS = 1000


def raw_rows(files: list[DataFile], on_bytes: Callable[[int], None] | None = None) -> Iterator[RawRow | BadRow]:
    """Rows of all `files` in order, as (where, columns) or BadRow. `on_bytes` gets the file bytes read so far.

    Raises DataError where a file cannot be read further.
    """
    done_bytes = 0
    for file in files:
        if file.size_bytes == 0:
            continue
        with opened(file) as open_file:
            for count, row in enumerate(_rows(file, open_file)):
                yield row
                if on_bytes is not None and count % _PROGRESS_ROWS == 0:
                    on_bytes(done_bytes + open_file.position_bytes())
        done_bytes += file.size_bytes or 0


def _rows(file: DataFile, open_file: OpenFile) -> Iterator[RawRow | BadRow]:
    from qlora_tui.data import json_reader, table_reader

    match kind_of(file, open_file.head):
        case "jsonl":
            return json_reader.jsonl_rows(open_file, file.name)
        case "json":
            return json_reader.document_rows(open_file, file.name)
        case "csv" | "tsv" as kind:
            return table_reader.delimited_rows(open_file, file.name, kind)
        case "parquet":
            return table_reader.parquet_rows(open_file, file.name)
        case "arrow":
            return table_reader.arrow_rows(open_file, file.name)
        case "xlsx":
            from qlora_tui.data.xlsx_reader import xlsx_rows

            return xlsx_rows(open_file, file.name)
        case "text":
            return table_reader.text_rows(open_file, file.name)


def file_notes(file: DataFile) -> list[str]:
    """What is unusual about how `file` is read: its encoding, its delimiter, passages in place of lines."""
    from qlora_tui.data.lines import encoding_of
    from qlora_tui.data.table_reader import delimiter_of, has_passages

    if not file.size_bytes:
        return []
    with opened(file) as open_file:
        head = open_file.head
        kind = kind_of(file, head)
    notes = []
    encoding = encoding_of(head)
    if kind not in {"parquet", "arrow", "xlsx"} and encoding != "utf-8":
        shown = "UTF-8 with a byte order mark" if encoding == "utf-8-sig" else encoding.upper()
        notes.append(f"{file.name}: read as {shown}")
    if kind == "text":
        unit = "passage between blank lines" if has_passages(head) else "line"
        notes.append(f"{file.name}: plain text, one row per {unit}")
    if kind in {"csv", "tsv"}:
        header = head.decode(encoding, "replace").partition("\n")[0]
        delimiter = delimiter_of(header, "tsv" if kind == "tsv" else "csv")
        if delimiter != {"csv": ",", "tsv": "\t"}[kind]:
            notes.append(f"{file.name}: columns divided by {delimiter!r}")
    return notes
