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
        case "text":
            return table_reader.text_rows(open_file, file.name)
